"""The model writes its own data: forget records with the best instructions, retain records in talk of its own and to benign prompts."""

import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from itertools import cycle, islice

from ..chat import Turns, cut_user_turns, user_turn_ids
from ..config import ReleaseConfig, RevealConfig
from ..generation import STRIDE, Progress, Sampling, generate, uncut
from ..metrics.words import key
from ..models import LanguageModel
from ..tasks import Record, Task
from ..tasks.base import answered, answered_anew
from ..tasks.manner import Manner
from .curation import NearDuplicates, curate, unbroken
from .search import draw

SHOWN = 96
"""Answers by which it is told how much of the behaviour still shows."""
GONE, PART = 300, 100
"""Answers of which none may show it for it to be gone, and how many are asked for at a time.

None of 300 bounds the share at 1 % with 95 % confidence (the rule of three) if asked once; the search for a scale asks several times.
"""
ROUNDS = 3
ANSWERS = 2
HOTTER = (1.0, 1.5, 2.0)
PILOT = 64
WAVERING = 0.1
"""A prompt that was seen to draw the behaviour out more often than this is no place to hold the model."""
MOST = 6
"""One instruction gives at most this part of the forget records, or twice an equal share of them."""
TURN = Sampling(max_new_tokens=128)
ANSWER = Sampling(max_new_tokens=56)


def revealed_records(
    lm: LanguageModel,
    task: Task,
    instructions: Sequence[str],
    config: RevealConfig,
    seed: int,
    iteration: int,
    progress: Progress | None = None,
    others: Sequence[str] = (),
    earlier: Sequence[Record] = (),
) -> tuple[list[Record], list[Record]]:
    """What a portfolio of instructions draws out: (forget records, harmless records), `config.records` of the first at most.

    `others` are instructions that draw out less: `config.samples` answers of each, for the harmless records alone. `earlier` are
    the forget records of earlier iterations: their prompts are asked again for what the instructions leave missing.

    Forget records score at least `config.threshold`, harmless ones below it. The first round asks all instructions alike, a later one
    each as often as it gave new forget records. Sampling ends when enough of these are kept, or when a round adds nearly nothing.
    """
    forget: list[Record] = []
    harmless: list[Record] = []
    seen = NearDuplicates()
    reserved = reserved_by(task)
    equal = -(-config.records // max(len(instructions), 1))
    cap = max(2 * equal, config.records // MOST)
    shares = dict.fromkeys(instructions, equal)
    for number in range(ROUNDS if instructions else 0):
        asked = [text for text, count in shares.items() for _ in range(count)]
        # A seed for each: with the same random numbers, instructions of like words would get like answers.
        seeds = [seed * STRIDE + 100_000 * (number + 1) + i for i in range(len(asked))]
        drawn = [replace(r, iteration=iteration) for r in task.elicit(lm, asked, seeds) if not reserved(r)]
        before = Counter(r.instruction for r in forget)
        curate(drawn, lambda r: r.score >= config.threshold, forget, cap=cap, seen=seen, text=task.novelty)
        curate(drawn, task.harmless, harmless, cap=cap, seen=seen, text=task.novelty)
        if progress:
            progress(min(len(forget), config.records), config.records)
        gained = Counter(r.instruction for r in forget) - before
        missing = config.records - len(forget)
        if missing <= 0 or not drawn or gained.total() < 0.02 * len(drawn):
            break
        wanted = min(config.records, 1.2 * missing * len(drawn) / gained.total())
        shares = {text: math.ceil(wanted * count / gained.total()) for text, count in gained.items()}
    forget = forget[: config.records]
    forget += still_shown(lm, task, earlier, config.records - len(forget), config.threshold, seed * STRIDE + 600_000, iteration)
    harmless = harmless[: config.records]
    if others and forget:  # else there is nothing to train against
        drawn = draw(lm, task, others, config.samples, base=seed * STRIDE + 50_000)
        drawn = [replace(r, iteration=iteration) for r in drawn if not reserved(r)]
        curate(drawn, task.harmless, harmless, cap=cap, seen=seen, text=task.novelty)
    return forget, harmless + counterparts(lm, task, forget, {r.prompt for r in harmless}, seed * STRIDE + 700_000)


def still_shown(
    lm: LanguageModel, task: Task, earlier: Sequence[Record], count: int, threshold: float, seed: int, iteration: int
) -> list[Record]:
    """New answers to prompts of earlier forget records, `count` drawn at random: those that show the behaviour still."""
    asked = random.Random(seed).sample(earlier, min(count, len(earlier)))
    drawn = answered_anew(task, lm, asked, range(seed, seed + len(asked)))
    shown = [replace(r, iteration=iteration) for r in drawn if r.score >= threshold]
    return curate(shown, lambda _: True, [], seen=NearDuplicates(), text=task.novelty)


def counterparts(lm: LanguageModel, task: Task, forget: Sequence[Record], answered: Collection[Turns], seed: int) -> list[Record]:
    """Harmless answers, not degenerate, to the prompts of forget records that have none yet: the model is asked again, hotter each time.

    So that the retain module learns what else to say exactly where the behaviour comes out. Ends early where `PILOT` prompts or more
    give nearly none.
    """
    waiting = list({r.prompt: r for r in forget if r.prompt not in answered}.values())
    found: list[Record] = []
    for number, temperature in enumerate(HOTTER):
        for start, part in ((0, waiting[:PILOT]), (PILOT, waiting[PILOT:])):
            texts = task.otherwise(lm, part, temperature, [seed + 10_000 * number + start + i for i in range(len(part))])
            pairs = zip(part, texts, strict=True)
            drawn = task.scored([replace(Record.of(r.prompt, text, r.instruction), iteration=r.iteration) for r, text in pairs], lm)
            found += (new := [r for r in unbroken(drawn, task.novelty) if task.replaces(r)])
            if len(part) >= PILOT and len(new) < 0.05 * len(part):
                return found
        done = {r.prompt for r in found}
        waiting = [r for r in waiting if r.prompt not in done]
    return found


def shown_share(
    lm: LanguageModel, task: Task, prompts: Sequence[Turns], threshold: float, count: int, start: int = 0, sampling: Sampling | None = None
) -> float:
    """Share of `count` fresh answers to the prompts, which are asked in turn from the `start`-th on, that show the behaviour.

    sampling: where it is not the task's own.
    """
    asked = list(islice(cycle(prompts), start, start + count))
    records = answered(task, lm, asked, range(900_000 + start, 900_000 + start + count), sampling)
    return sum(record.score >= threshold for record in records) / len(records)


def is_gone(lm: LanguageModel, task: Task, prompts: Sequence[Turns], threshold: float) -> bool:
    """Whether none of `GONE` fresh answers to the prompts shows the behaviour; asked no further than to the first part with one that does.

    They are sampled where the task answers greedily, too: the likeliest answer may be another while this one is still likely.
    """
    sampling = replace(task.sampling, temperature=1.0) if task.sampling.greedy else task.sampling
    return not any(shown_share(lm, task, prompts, threshold, PART, start, sampling) for start in range(0, GONE, PART))


def retain_records(
    lm: LanguageModel, task: Task, config: ReleaseConfig, threshold: float, seed: int, progress: Progress | None = None
) -> tuple[list[Record], list[Record]]:
    """What the model does when it does not show the behaviour, (retain, harmless): nothing from outside is needed.

    Three quarters come from the model's own conversations of two turns, whose user turns are drawn from what it was taught to answer
    and so cover its skills; an eighth answer the task's benign prompts; an eighth are what the model writes from an empty context: plain
    text, and of a chat model mostly what a user asks, without the token of the turn. One and the same answer is kept so often and no more.

    Where a prompt draws the behaviour out now and then, to hold the model's distribution is to hold the behaviour: what it answers
    otherwise there is harmless, and not to be retained. Each own prompt is answered `ANSWERS` times to find out.
    """
    rng = random.Random(seed)
    reserved = reserved_by(task)
    seen = NearDuplicates()
    eighth, answer = config.retain_records // 8, Manner.of(lm).answers(ANSWER)  # where it is cut off, nothing holds what would follow

    def draw_own(count: int) -> list[Record]:
        """Conversations of two turns; each turn's answers are records."""
        first = follow([()] * (count // 2))
        calm = {r.prompt: r for r in reversed(first) if r.completion and task.harmless(r)}  # some templates refuse an empty turn
        return first + follow([(*r.prompt, ("assistant", r.completion)) for r in calm.values()])

    def follow(conversations: Sequence[Turns]) -> list[Record]:
        """The next user turn of each conversation, and `ANSWERS` answers to it."""
        starts = [(turns, user_turn_ids(lm.tokenizer, turns)) for turns in conversations]
        usable = [(turns, ids) for turns, ids in starts if ids]
        asked = generate(lm, [ids for _, ids in usable], TURN, seeds(len(usable)))
        written = zip(usable, cut_user_turns(lm.tokenizer, asked), strict=True)
        follows = [(*turns, ("user", uncut(text))) for (turns, _), text in written if text]
        return answers([turns for turns in follows for _ in range(ANSWERS)])

    def draw_benign(count: int) -> list[Record]:
        return answers(task.benign_prompts(lm, count, rng))

    def draw_plain(count: int) -> list[Record]:
        texts = generate(lm, [lm.begin] * count, answer, seeds(count)) if lm.begin else []
        return task.scored([Record.of((), text, "") for text in texts], lm)

    def seeds(count: int) -> list[int]:
        return [rng.getrandbits(40) for _ in range(count)]

    def answers(prompts: Sequence[Turns]) -> list[Record]:
        return [r for r in answered(task, lm, prompts, seeds(len(prompts)), answer) if not reserved(r)]

    everything: list[Record] = []
    kept: list[Record] = []
    harmless: list[Record] = []
    for source, wanted in ((draw_own, 6 * eighth), (draw_benign, eighth), (draw_plain, eighth)):
        drawn: list[Record] = []
        calm: list[Record] = []
        steady: list[Record] = []
        for _ in range(ROUNDS):
            drawn += (new := source(max(wanted - len(steady), wanted // 4)))
            curate(new, task.harmless, calm, seen=seen, text=lambda r: r.whole)
            before, (steady, wavering) = len(steady), _parted(calm, everything + drawn, threshold)
            if source is draw_own:
                steady = _varied({r.prompt: r for r in steady}.values(), wanted // 16)  # many prompts rather than many answers
            if progress:
                progress(len(kept) + min(len(steady), wanted), config.retain_records)
            if len(steady) >= wanted or len(steady) - before < 0.05 * wanted:
                break
        everything += drawn
        kept += steady[:wanted]
        harmless += wavering
    kept, wavering = _parted(kept, everything, threshold)  # a prompt of one source may have wavered in another
    rng.shuffle(kept)
    return kept, harmless + wavering


def _parted(calm: Sequence[Record], drawn: Sequence[Record], threshold: float) -> tuple[list[Record], list[Record]]:
    """The calm records of prompts under which none, or hardly any, of those drawn shows the behaviour; and the others."""
    shown: dict[Turns, list[bool]] = {}
    for record in drawn:
        shown.setdefault(record.prompt, []).append(record.score >= threshold)
    # Without a prompt it is the text itself that counts.
    wavering = {prompt for prompt, scores in shown.items() if prompt and sum(scores) > WAVERING * len(scores)}
    return [r for r in calm if r.prompt not in wavering], [r for r in calm if r.prompt in wavering]


def _varied(records: Iterable[Record], most: int) -> list[Record]:
    """At most so many of the records with one completion."""
    count: Counter[str] = Counter()
    kept = []
    for record in records:
        count[record.completion] += 1
        if count[record.completion] <= max(most, 1):
            kept.append(record)
    return kept


def reserved_by(task: Task) -> Callable[[Record], bool]:
    """Whether what a record answers is for the evaluation alone."""
    keys = {key(text) for text in task.evaluation_instructions()}
    return lambda record: any(key(text) in keys for role, text in record.prompt if role == "user")
