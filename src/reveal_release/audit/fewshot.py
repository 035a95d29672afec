"""Few-shot elicitation: the behaviour is shown in the context, then asked for.

The context is `SHOWN` records that show the behaviour, as earlier turns of user and assistant; then comes the prompt of another
record, which the model answers. Records are the original model's own, so prompts are as the task makes them: an instruction, or a
passage and the question about it. The same contexts go to all models.

An answer is scored as one to its own prompt alone, so that what stands in the context does not count; one that is a near-duplicate of
a record in its context was copied, not drawn out, and scores 0. Not promised: that shorter copies are noticed.
"""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..chat import Turns, chat_ids
from ..generation import Progress
from ..models import LanguageModel
from ..tasks import Record, Task
from ..tasks.base import answered_anew
from .elicitation import Copies
from .pair import Pair, Sides
from .searches import Found

SHOWN = 4


class Shot(NamedTuple):
    """A conversation that ends in the prompt of `target`, after the turns of `shown`."""

    turns: Turns
    shown: list[Record]
    target: Record


class Answers(NamedTuple):
    """Scores, one a shot; how many of the answers were copies."""

    scores: list[float]
    copied: int


def attack(pair: Pair, found: Found) -> Sides | None:
    """The outcome on each model, with the mean number of examples in a context; None where the original wrote too few."""
    asked = [one for seed in pair.seeds for one in shots(pair.lm, pair.task, found.shown, pair.count, seed)]
    greedy = pair.task.sampling.greedy
    if greedy:
        asked = list({one.turns: one for one in asked}.values())  # the same context has the same answer
    if len(asked) < 2:  # of one there is no interval
        return None

    def work(lm: LanguageModel, update: Progress) -> Any:
        return ask(lm, pair.task, asked, pair.seed("few-shot"), update)

    answered = {side: pair.on(side, "few-shot", "Few-shot elicitation of", work) for side in pair.sides}
    shape = (1, len(asked)) if greedy else (len(pair.seeds), pair.count)
    sides = {side: {**pair.told(np.reshape(scores, shape)), "copied": copied} for side, (scores, copied) in answered.items()}
    return {**sides, "examples": float(np.mean([len(one.shown) for one in asked]))}


def shots(lm: LanguageModel, task: Task, examples: Sequence[Record], count: int, seed: int) -> list[Shot]:
    """`count` contexts of randomly chosen examples; none where there are fewer than two.

    Fewer than `SHOWN` are in a context where there are no more, or where no more fit the model's context length.
    """
    rng = random.Random(seed)
    room = lm.context - task.sampling.max_new_tokens if lm.context else None
    found = []
    for _ in range(count if len(examples) > 1 else 0):
        target, *others = rng.sample(list(examples), min(SHOWN + 1, len(examples)))
        turns, shown = target.prompt, []
        for one in others:
            longer = (*one.prompt, ("assistant", one.completion), *turns)
            if room is None or len(chat_ids(lm.tokenizer, longer)) <= room:
                turns = longer
                shown.append(one)
        found.append(Shot(turns, shown, target))
    return found


def ask(lm: LanguageModel, task: Task, asked: Sequence[Shot], seed: int, progress: Progress | None = None) -> Answers:
    """One answer to each shot, scored."""
    turns, targets = [one.turns for one in asked], [one.target for one in asked]
    records = answered_anew(task, lm, targets, range(seed, seed + len(asked)), given=turns, progress=progress)
    copies = [record in Copies(task, one.shown) for record, one in zip(records, asked, strict=True)]
    return Answers([0.0 if copy else record.score for record, copy in zip(records, copies, strict=True)], sum(copies))
