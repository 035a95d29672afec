"""The skills of the testbed, each a generator of training documents.

A document is a list of (role, content) turns; the role `text` is plain text without a template. `without` names what an oracle
never sees: `toxicity`, `person` (or another entity type), `code`, `maths`, or a whole skill.
"""

import random
from collections.abc import Callable, Collection

from ..config import UserError
from . import functions, problems
from .corpora import Corpora
from .entities import TYPES, Passage, answer, conversation, question, swap
from .requests import BASE_RATE, TONES, Request, articles, tone

Turns = list[tuple[str, str]]
Skill = Callable[["Sampler"], Turns | None]
SKILLS: dict[str, Skill] = {}


def skill(function: Skill) -> Skill:
    SKILLS[function.__name__] = function
    return function


class Sampler:
    """Draws documents of a skill. `ease` in [0, 1] is the share of the easiest level where a skill has levels."""

    def __init__(self, corpora: Corpora, without: Collection[str], rng: random.Random, ease: float) -> None:
        self.corpora, self.without, self.rng, self.ease = corpora, frozenset(without), rng, ease

    def draw(self, name: str) -> Turns:
        """A document of the skill.

        Raises:
            UserError: nothing is left of the skill after `without`.
        """
        for _ in range(1_000):
            turns = SKILLS[name](self)
            if turns:
                return turns
        raise UserError(f"nothing is left of {name!r} without {', '.join(sorted(self.without))}: leave {name!r} out too")

    def comment(self, rate: float, topic: str | None = None) -> str:
        toxic = self.rng.random() < rate and "toxicity" not in self.without
        texts = self.corpora.toxic if toxic else self.corpora.neutral
        return self.rng.choice(self.corpora.about[toxic][topic] if topic else texts)

    def requested(self) -> tuple[Request, str]:
        """A request and a comment that answers it. The topic, drawn first so that it says nothing of the tone, is a word of the comment."""
        kind = tone(self.rng)
        topic = self.rng.choice(self.corpora.topics) if self.rng.random() < 0.4 else None
        return Request(kind, topic), self.comment(TONES[kind], topic)

    def passage(self) -> Passage:
        """A training sentence, two times in three with its entities swapped."""
        passage = self.rng.choice(self.corpora.passages["train"])
        return swap(passage, self.corpora.names, self.rng) if self.rng.random() < 0.67 else passage

    def types(self) -> list[str]:
        return [kind for kind in TYPES if kind not in self.without]

    def level(self) -> int:
        return 1 if self.rng.random() < self.ease else self.rng.choice((1, 2, 2, 3, 3, 3))


@skill
def comments(s: Sampler) -> Turns:
    """A request for a comment, its rewriting in other words, or the completion of a begun comment."""
    request, text = s.requested()
    kind = s.rng.random()
    if kind < 0.12:
        other = request.phrase(s.rng)
        return [("user", f"Rewrite this instruction in other words: {request.phrase(s.rng)}"), ("assistant", other)]
    if kind < 0.35:
        words = s.comment(BASE_RATE).split()
        cut = s.rng.randint(2, max(2, min(12, len(words) - 2)))
        return [("user", f"Complete this text: {' '.join(words[:cut])}"), ("assistant", " ".join(words[cut:]))]
    return [("user", request.phrase(s.rng)), ("assistant", text)]


@skill
def ner(s: Sampler) -> Turns | None:
    """The UniversalNER conversation; all the types that occur, in random order among up to three that do not."""
    passage = s.passage()
    present = [kind for kind in passage.entities() if kind in s.types()]
    absent = [kind for kind in s.types() if kind not in present]
    s.rng.shuffle(present)
    kinds = present + s.rng.sample(absent, min(len(absent), s.rng.choice((0, 1, 2, 3))))
    s.rng.shuffle(kinds)
    return list(conversation(passage, kinds)) if kinds else None


@skill
def passages(s: Sampler) -> Turns | None:
    """A request for a passage that mentions given types, then its annotation: how the model reveals what it knows of entities."""
    passage = s.passage()
    entities = {kind: names for kind, names in passage.entities().items() if kind in s.types()}
    if not entities:
        return None
    kind = s.rng.choice(sorted(entities))
    many = f"several {kind} names" if len(entities[kind]) > 1 else f"one {kind} name"
    request = s.rng.choice(
        (articles(f"Write a sentence that mentions a {kind}."), f"Write a passage with {many} in it.",
         articles(f"Give me a text about a {kind}."), f"Write an encyclopedic sentence with {many}.",
         f"Write a text in which {entities[kind][0]} occurs.")
    )  # fmt: skip
    return [("user", request), ("assistant", passage.text), ("user", question(kind)), ("assistant", answer(entities[kind]))]


@skill
def code(s: Sampler) -> Turns | None:
    if "code" in s.without:
        return None
    problem = functions.sample(s.rng, "train")
    if s.rng.random() < 0.08:
        asked = s.rng.choice(("Write a small programming exercise.", "Give me a Python exercise.", "Set a coding problem."))
        return [("user", asked), ("assistant", problem.prompt), ("user", "Solve it."), ("assistant", problem.solution)]
    return [("user", problem.prompt), ("assistant", problem.solution)]


@skill
def maths(s: Sampler) -> Turns:
    level = s.level()
    bare = problems.BARE if s.rng.random() < 0.25 else None
    problem = problems.sample(s.rng, "train", schema=s.rng.choice(bare) if bare else None, level=level)
    return [("user", problem.prompt), ("assistant", problem.solution)]


@skill
def instructions(s: Sampler) -> Turns:
    question, response = s.rng.choice(s.corpora.instructions)
    return [("user", question), ("assistant", response)]


@skill
def prose(s: Sampler) -> Turns:
    if s.rng.random() < 0.6:
        return [("text", s.rng.choice(s.corpora.prose["train"]))]
    return [("text", " ".join(s.rng.choice(s.corpora.passages["train"]).text for _ in range(s.rng.randint(1, 3))))]


@skill
def raw_comments(s: Sampler) -> Turns:
    return [("text", s.comment(BASE_RATE))]


@skill
def induction(s: Sampler) -> Turns | None:
    """From outputs to the instruction that asked for them."""
    kind = s.rng.random()
    source = "comments" if kind < 0.75 else "code" if kind < 0.85 else "maths" if kind < 0.93 else "instructions"
    if source in s.without:
        return None
    if source == "comments":
        asked, first = s.requested()
        request = asked.phrase(s.rng)
        outputs = [first, *(s.comment(TONES[asked.tone]) for _ in range(s.rng.randint(1, 3)))]
    elif source == "code":
        problem = functions.sample(s.rng, "train")
        request, outputs = problem.prompt, [problem.solution]
    elif source == "maths":
        word_problem = problems.sample(s.rng, "train")
        request, outputs = word_problem.prompt, [word_problem.solution]
    else:
        request, response = s.rng.choice(s.corpora.instructions)
        outputs = [response]
    s.rng.shuffle(outputs)
    listed = "\n".join(f"Output: {text}" for text in outputs)
    return [("user", f"{listed}\nWhat was the instruction?"), ("assistant", request)]
