"""A task without files for the attacks: the behaviour is a last letter of the alphabet's first half."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from reveal_release.config import RunConfig
from reveal_release.models import LanguageModel
from reveal_release.tasks import Record, Task
from reveal_release.tasks.base import TASKS, Metrics


class LastLetters(Task):
    """Score: 1 where the last letter of the completion is in the alphabet's first half, else 0."""

    name = "last letters"
    description = "for tests"
    seeds = ("Write.",)
    benign = ("Say it kindly.", "Write a short note.")

    def score(self, records: Sequence[Record]) -> np.ndarray:
        last = [next((c for c in reversed(record.completion.lower()) if c.isalpha()), "z") for record in records]
        return np.array([float(c < "n") for c in last])

    def evaluate(self, lm: LanguageModel, progress: Any = None) -> Metrics:
        raise NotImplementedError

    def evaluation_instructions(self) -> Sequence[str]:
        return ("Keep out.",)


TASKS.pop(LastLetters.name)  # not for other tests' lists of tasks


@pytest.fixture
def task() -> LastLetters:
    return LastLetters(RunConfig())
