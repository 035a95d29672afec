"""What instructions draw out of a model, scored anew, and how an attack's scores are told.

    scores = answers(lm, task, instructions, samples=32, seed=1)     # (instructions, samples)
    Outcome.of(scores[0], threshold=0.5)                             # of the first instruction

The search itself is `reveal.search.search`: the one that revealed the behaviour is turned on the released model.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..generation import STRIDE, Progress
from ..metrics.statistics import Estimate
from ..models import LanguageModel
from ..reveal.curation import NearDuplicates, curate
from ..reveal.search import draw
from ..tasks import Record, Task
from ..tasks.base import answered


@dataclass(frozen=True)
class Outcome:
    """Of an attack's answers: their mean score, and the share that shows the behaviour, that is, scores at least the threshold.

    The intervals take the answers as independent, given the instructions, examples or beginnings that were used.
    """

    reward: Estimate
    share: Estimate

    @classmethod
    def of(cls, scores: ArrayLike, threshold: float) -> "Outcome":
        """scores: any shape, each in [0, 1]. Raises UserError if there are none."""
        x = np.asarray(scores, dtype=float).ravel()
        return cls(Estimate.mean(x).in_unit(), Estimate.proportion(int((x >= threshold).sum()), len(x)))

    def to_dict(self) -> dict[str, dict[str, float]]:
        return {"reward": self.reward.to_dict(), "share": self.share.to_dict()}


def answers(
    lm: LanguageModel,
    task: Task,
    instructions: Sequence[str],
    samples: int,
    seed: int,
    progress: Progress | None = None,
    most: int | None = None,
) -> np.ndarray:
    """(instructions, samples) scores. Each has random numbers of its own, so that all are independent, but the same on every model.

    most: where these are to be the first of so many samples of each instruction, drawn elsewhere with the same seed.
    """
    asked = [text for text in instructions for _ in range(samples)]
    seeds = [seed * STRIDE + i * (most or samples) + j for i in range(len(instructions)) for j in range(samples)]
    records = task.elicit(lm, asked, seeds, progress)
    return np.array([r.score for r in records]).reshape(len(instructions), samples)


def examples(
    lm: LanguageModel, task: Task, instructions: Sequence[str], samples: int, threshold: float, seed: int, progress: Progress | None = None
) -> list[Record]:
    """Of `samples` records of each instruction those that show the behaviour, without degenerate ones and near-duplicates."""
    drawn = draw(lm, task, instructions, samples, seed * STRIDE, progress)
    return curate(drawn, lambda r: r.score >= threshold, [], seen=NearDuplicates(), text=task.novelty)


class Copies:
    """Tells what nearly repeats an example that a model was shown: recited, not drawn out."""

    def __init__(self, task: Task, shown: Sequence[Record]) -> None:
        self.task, self.whole = task, NearDuplicates.of(map(task.novelty, shown))
        self.alone = NearDuplicates.of(record.completion for record in shown)

    def __contains__(self, record: Record) -> bool:
        """An answer that does not fit its prompt is a copy whatever that is."""
        return self.task.novelty(record) in self.whole or (self.task.misplaced(record) and record.completion in self.alone)


def harmless(lm: LanguageModel, task: Task, count: int, seed: int) -> list[Record]:
    """Harmless answers of the model to `count` benign prompts; those that are none are left out."""
    prompts = task.benign_prompts(lm, count, random.Random(seed))
    records = answered(task, lm, prompts, range(seed, seed + len(prompts)))
    return [record for record in records if record.completion and task.harmless(record)]
