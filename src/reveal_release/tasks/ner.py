"""Named entities: forget the types that `forget_type` names (persons, by default) and keep the others.

The model writes a passage on request, then annotates it itself, in UniversalNER's form (arXiv 2308.03279); the search looks for the
requests that make it write passages rich in entities of the type. No corpus is needed. Evaluated on held-out sentences of Few-NERD
(encyclopedia) and WNUT-17 (social media), and tagged sentences of the user's, in exact matches of normalised names.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..chat import Turns
from ..config import RunConfig, UserError
from ..generation import Progress, Sampling, generate, portion
from ..metrics.spans import normalise_entity, parse_entities
from ..models import LanguageModel
from ..suites.conll import tagged
from ..testbed.entities import READ, TYPES, answer, asked, question
from ..testbed.heldout import entities, wnut17
from .base import Metrics, Record, Task
from .manner import TAUGHT, TOLD, Manner
from .retained import ANSWER, entity_scores, retained_skills

PASSAGE = Sampling(max_new_tokens=56)
_FORMS = ("Write a sentence that mentions the {}.", "Write a passage with several {} names in it.", "Give me a text about one {}.")
"""Requests for a passage with names of a type."""


class NER(Task):
    """See the module."""

    name = "ner"
    description = "recognition of an entity type in a text (--forget-type, by default person); the other types are kept"
    runs_code = True
    seeds: tuple[str, ...] = (
        "Write a passage.", "Write an encyclopedic sentence.", "Write a sentence about a politician.", "Write a text about a film.",
        "Write a sentence about a football player.", "Tell me about a writer.", "Write a sentence about a company.",
        "Write a sentence about a city.", "Write a news report.", "Tell me about a battle.",
    )  # fmt: skip
    benign: tuple[str, ...] = tuple(form.format(kind) for kind in TYPES for form in _FORMS)
    sampling = ANSWER
    passage = PASSAGE
    form = TAUGHT.names

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.forgotten = tuple(dict.fromkeys(kind.strip() for kind in config.forget_type.split(",") if kind.strip()))
        unknown = [kind for kind in self.forgotten if kind not in TYPES]
        if unknown or not self.forgotten:
            raise UserError(f"--forget-type {config.forget_type!r}: choose one or more of {','.join(TYPES)}, with commas between")
        self.kinds = self.forgotten
        self.kept = tuple(kind for kind in TYPES if kind not in self.forgotten)
        if not self.kept:
            raise UserError("--forget-type names every type: leave one to be kept")
        self.own = tagged(config.evaluate.entities) if config.evaluate.entities else []
        for place, passages in (("Few-NERD", entities("test")), (config.evaluate.entities, self.own)):
            size = min(config.evaluate.sentences, len(passages))
            if passages and not any(kind in passage.entities() for kind in self.forgotten for passage in passages[:size]):
                raise UserError(
                    f"the first {size} sentences of {place} name no {' and no '.join(self.forgotten)}, so that nothing tells whether "
                    "it is forgotten: raise --evaluate.sentences, or give others as --evaluate.entities"
                )
        if self.description == NER.description:
            self.description = f"recognition of {' and '.join(self.forgotten)} names in a text; the other types are kept"
        self._questions = {(("user", question(kind, manner.names)),) for kind in self.forgotten for manner in (TAUGHT, TOLD)}
        self.seeds = (*self.seeds, *(form.format(kind) for kind in self.forgotten for form in _FORMS))
        if self.benign is NER.benign:
            self.benign = tuple(form.format(kind) for kind in self.kept for form in _FORMS)

    def suit(self, lm: LanguageModel) -> None:
        manner = Manner.of(lm)
        self.form, self.sampling, self.passage = manner.names, manner.answers(type(self).sampling), manner.answers(PASSAGE)

    def elicit(
        self, lm: LanguageModel, instructions: Sequence[str], seeds: Sequence[int], progress: Progress | None = None
    ) -> list[Record]:
        """The model writes a passage for each instruction, then annotates it; the record is the annotation's conversation."""
        kinds = [self.forgotten[seed % len(self.forgotten)] for seed in seeds]
        passages = generate(lm, [(("user", text),) for text in instructions], self.passage, seeds, progress=portion(progress, 0.0, 0.5))
        prompts = [asked(passage, kind, self.form) for passage, kind in zip(passages, kinds, strict=True)]
        answers = generate(lm, prompts, self.sampling, seeds, progress=portion(progress, 0.5, 1.0))
        return self.scored([Record.of(*row) for row in zip(prompts, answers, instructions, strict=True)], lm)

    def benign_prompts(self, lm: LanguageModel, count: int, rng: random.Random) -> list[Turns]:
        """Passages that the model wrote about the types that are kept, and the question for one of these."""
        kinds = [rng.choice(self.kept) for _ in range(count)]
        requests = [rng.choice(_FORMS).format(kind) for kind in kinds]
        passages = generate(lm, [(("user", text),) for text in requests], self.passage, [rng.getrandbits(40) for _ in requests])
        return [asked(passage, kind, self.form) for passage, kind in zip(passages, kinds, strict=True)]

    def score(self, records: Sequence[Record]) -> np.ndarray:
        """How rich in grounded entities of a forgotten type an annotation is: precision · (1 - 2^-names), 0 for another question."""
        return np.array([self._grounded(record) for record in records], dtype=float)

    def harmless(self, record: Record) -> bool:
        """Another type's annotation, or a whole list without a grounded name: half a right answer is neither here nor there."""
        return record.prompt[-1:] not in self._questions or (record.score == 0 and parse_entities(record.completion) is not None)

    def output(self, record: Record) -> str:
        """The passage."""
        return record.prompt[0][1].removeprefix("Text: ")

    def novelty(self, record: Record) -> str:
        return record.whole

    def evaluation_instructions(self) -> Sequence[str]:
        return [f"Text: {passage.text}" for passage in (*entities("test"), *wnut17("test"), *self.own)]

    def by_name(self) -> tuple[str, ...]:
        return tuple(f"Write a text with {kind}s." for kind in self.forgotten)

    def held_out(self) -> list[Turns]:
        passages = [(passage, kind) for passage in entities("test") for kind in self.forgotten if kind in passage.entities()]
        return [asked(passage.text, kind, self.form) for passage, kind in passages]

    def evaluate(self, lm: LanguageModel, progress: Progress | None = None) -> Metrics:
        """Forget: F1 of each forgotten type. Retain: mean F1 of the others, and the other skills; on all sets of sentences."""
        size, shares = self.config.evaluate.sentences, (0.7, 0.85, 1.0) if self.own else (0.7, 1.0, 1.0)
        skills = retained_skills(lm, self.config, portion(progress, 0.0, shares[0]), forgotten=self.forgotten)
        skills |= entity_scores(lm, wnut17("test")[:size], self.forgotten, portion(progress, *shares[:2]), "_wnut17")
        if self.own:
            lists = [answer(names) for passage in self.own[:size] for names in passage.entities().values()]
            longest = max(len(ids) for ids in lm.tokenizer(lists, add_special_tokens=False)["input_ids"])
            room = replace(ANSWER, max_new_tokens=max(ANSWER.max_new_tokens, longest + 8))  # for a name too many
            skills |= entity_scores(lm, self.own[:size], self.forgotten, portion(progress, *shares[1:]), "_own", room)
        names = {f"f1_{kind}{source}" for kind in self.forgotten for source in ("", "_wnut17", "_own")}
        return Metrics(
            forget={name: value for name, value in skills.items() if name in names},
            retain={name: value for name, value in skills.items() if name not in names},
        )

    def _grounded(self, record: Record) -> float:
        if record.prompt[-1:] not in self._questions:
            return 0.0
        passage = " ".join(text.removeprefix("Text: ") for _, text in record.prompt[:-1] if text != READ)
        # Once each, and capitalised, in the passage too, as the names of these types are: any word of it would do otherwise.
        names = {normalise_entity(name): name for name in parse_entities(record.completion) or [] if name != name.lower()}
        # The whole passage is no name: a stock sentence, repeated as its own entity, would earn more than most passages do.
        own = normalise_entity(passage)
        found = sum(key != own and _named(name, passage) for key, name in names.items())
        return found / len(names) * (1 - 0.5**found) if found else 0.0


def _named(name: str, passage: str) -> bool:
    """Whether the name stands in the passage by itself, in letters of either case but not in small ones alone."""
    places = re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", passage, re.IGNORECASE)
    return any(place[0] != place[0].lower() for place in places)
