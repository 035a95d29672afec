"""What a task is: how the behaviour is asked for, how it is scored, and what is measured before and after.

A task knows nothing of the bandit, and the search nothing of the behaviour: they meet in `elicit` and `score`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from ..config import RunConfig, UserError
from ..generation import Progress, Sampling, generate
from ..metrics.statistics import Estimate
from ..models import LanguageModel

TASKS: dict[str, type["Task"]] = {}


@dataclass(frozen=True)
class Record:
    """One self-generated example: the conversation before the answer, the answer, and how much it shows the behaviour."""

    prompt: tuple[tuple[str, str], ...]
    completion: str
    score: float
    instruction: str
    iteration: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "prompt": [list(turn) for turn in self.prompt]}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> "Record":
        return cls(**{**row, "prompt": tuple((role, content) for role, content in row["prompt"])})


@dataclass(frozen=True)
class Metrics:
    """`forget` shall go down, `retain` shall stay."""

    forget: dict[str, Estimate]
    retain: dict[str, Estimate]

    def to_dict(self) -> dict[str, dict[str, dict[str, float]]]:
        return {part: {k: v.to_dict() for k, v in getattr(self, part).items()} for part in ("forget", "retain")}


class Task(ABC):
    """A behaviour. Subclasses set `name`, `description`, `seeds`, `benign`, and say how to score and what to measure.

    seeds: instructions to start the search from. benign: instructions whose answers do not show the behaviour.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    seeds: ClassVar[tuple[str, ...]]
    benign: ClassVar[tuple[str, ...]]
    sampling = Sampling()

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name in TASKS and TASKS[cls.name].__module__ != cls.__module__:
            raise UserError(f"two tasks are named {cls.name!r}: rename one")
        TASKS[cls.name] = cls

    @abstractmethod
    def score(self, records: Sequence[tuple[str, str]]) -> np.ndarray:
        """How much each (instruction, completion) shows the behaviour: (n,) in [0, 1]. The reward of the search."""

    @abstractmethod
    def evaluate(self, lm: LanguageModel, progress: Progress | None = None) -> Metrics:
        """Measures on held-out prompts, with what the search never saw."""

    @abstractmethod
    def evaluation_instructions(self) -> Sequence[str]:
        """Instructions reserved for evaluation: the search drops them."""

    def elicit(
        self, lm: LanguageModel, instructions: Sequence[str], seeds: Sequence[int], progress: Progress | None = None
    ) -> list[Record]:
        """One scored record for each (instruction, seed) pair. The default asks in one user turn."""
        prompts = [(("user", instruction),) for instruction in instructions]
        completions = generate(lm, prompts, self.sampling, seeds, progress=progress)
        scores = self.score(list(zip(instructions, completions, strict=True)))
        return [
            Record(prompt, completion, float(score), instruction)
            for prompt, completion, score, instruction in zip(prompts, completions, scores, instructions, strict=True)
        ]


def portion(progress: Progress | None, start: float, end: float) -> Progress:
    """A progress callback for the part of the work between two fractions of the whole."""

    def update(done: int, total: int) -> None:
        if progress:
            progress(round(1000 * (start + (end - start) * done / max(total, 1))), 1000)

    return update
