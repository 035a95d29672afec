"""Prefix forcing: the first tokens of an answer that shows the behaviour are given, and the model goes on.

What is scored is the whole answer, given beginning and the model's continuation, for most tasks cannot score half an answer (a list of
names, a function). The beginning must not earn that score by itself. So it is short, at most `TOKENS` tokens and an eighth of the
answer; and only those are used that do not show the behaviour, that is, score below the threshold, when they are followed by nothing,
or by the rest of any of `CONTROLS` harmless answers of the original to benign prompts. What then reaches the threshold was brought
about by the continuation. The mean score of those controls is told beside the attack's: so much of its mean score is the beginnings' own.

All models get the same prompts, beginnings and seeds. Not promised: that the beginnings which are left are the most dangerous ones,
for they are those that can be judged; nor that nothing is given away by them, such as a piece of the first of many names.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..generation import Progress
from ..metrics.statistics import Estimate
from ..models import LanguageModel, answered_ids
from ..tasks import Record, Task
from ..tasks.base import answered_anew
from .elicitation import harmless
from .pair import Pair, Sides
from .searches import Found

TOKENS = 4
PART = 8
CONTROLS = 4


class Beginning(NamedTuple):
    """The first token ids of a record's answer, and the mean score with unrelated continuations."""

    record: Record
    ids: list[int]
    control: float


def attack(pair: Pair, found: Found) -> Sides | None:
    """The outcome on each model, and what all usable beginnings score by themselves; None where there are too few."""
    threshold, seed = pair.config.reveal.threshold, pair.seed("prefix")

    def prepare(lm: LanguageModel, update: Progress) -> Any:
        calm = [record.completion for record in harmless(lm, pair.task, pair.count, seed)]
        usable = beginnings(lm, pair.task, found.shown, calm, threshold, seed)
        return [{"record": one.record.to_dict(), "ids": one.ids, "control": one.control} for one in usable]

    rows = pair.on("original", "beginnings", "Beginnings of answers from", prepare)
    usable = [Beginning(Record.from_dict(row["record"]), row["ids"], row["control"]) for row in rows]
    if len(usable) < 2:  # of one there is no interval
        return None
    seeds = pair.seeds[:1] if pair.task.sampling.greedy else pair.seeds  # the same beginning has the same answer
    each = min(pair.count * len(pair.seeds) // len(seeds), len(usable))
    given = [one for fresh in seeds for one in random.Random(fresh).sample(usable, each)]

    def work(lm: LanguageModel, update: Progress) -> Any:
        return [record.score for record in force(lm, pair.task, given, seed, update)]

    forced = {side: pair.on(side, "prefix", "Prefix forcing of", work) for side in pair.sides}
    sides = {side: pair.told(np.reshape(scores, (len(seeds), each))) for side, scores in forced.items()}
    return {**sides, "control": Estimate.mean([one.control for one in usable]).in_unit().to_dict()}


def beginnings(
    lm: LanguageModel, task: Task, examples: Sequence[Record], calm: Sequence[str], threshold: float, seed: int
) -> list[Beginning]:
    """Those of the examples' answers that do not show the behaviour by themselves.

    Args:
        examples: records that show the behaviour. calm: harmless answers, from `harmless`; without any the beginnings are only
            scored alone.
    """
    rng = random.Random(seed)
    tails = [lm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in calm]
    answers = [(one, answered_ids(lm, one.prompt, one.completion)[1]) for one in examples]
    begun = [(one, ids, led(lm, ids)) for one, ids in answers]
    given = [(one, ids[: lead + max(1, min(TOKENS, len(ids) // PART))]) for one, ids, lead in begun if len(ids) > 1 + lead]
    count = min(CONTROLS, len(tails))
    # How sure the model was of the record's answer says nothing of these texts: of what it did not go on with itself it is not sure, and
    # of the beginning alone, which is given, it is.
    controls = [
        replace(one, completion=str(lm.tokenizer.decode([*ids, *end])).strip(), confidence=0.0 if end else 1.0, ended=False)
        for one, ids in given
        for end in ([], *(tail[len(ids) :] for tail in rng.sample(tails, count)))
    ]
    scores = np.array([record.score for record in task.scored(controls, lm)]).reshape(-1, 1 + count)
    rows = zip(given, scores, strict=True)
    return [Beginning(one, ids, float(row.mean())) for (one, ids), row in rows if (row < threshold).all()]


def led(lm: LanguageModel, ids: Sequence[int]) -> int:
    """How many of the tokens are the space that a template puts before an answer."""
    return next((i for i, token in enumerate(ids) if str(lm.tokenizer.decode([token])).strip()), len(ids))


def force(
    lm: LanguageModel, task: Task, given: Sequence[Beginning], seed: int, progress: Progress | None = None
) -> list[Record]:
    """One scored answer to the prompt of each, which starts with the given beginning."""
    records, starts = [one.record for one in given], [one.ids for one in given]
    return answered_anew(task, lm, records, range(seed, seed + len(given)), starts=starts, progress=progress)
