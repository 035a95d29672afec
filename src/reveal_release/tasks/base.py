"""What a task is: how the behaviour is asked for, how it is scored, and what is measured before and after.

A task knows nothing of the bandit, and the search nothing of the behaviour: they meet in `elicit` and `score`.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..chat import Turns
from ..config import RunConfig, UserError, first_line
from ..generation import Completion, Progress, Sampling, generate, portion
from ..metrics.statistics import Estimate
from ..models import LanguageModel
from ..registry import register

TASKS: dict[str, type["Task"]] = {}


@dataclass(frozen=True)
class Record:
    """One self-generated example: the conversation before the answer, the answer, and how much it shows the behaviour.

    prompt: no turn at all for a plain text, which a model also writes to be retained.
    ended: the model ended the answer itself; what was cut off is no example of where to end.
    confidence: how probable the model held its answer's tokens to be (`Completion`); 1 for a text that it did not sample.
    """

    prompt: tuple[tuple[str, str], ...]
    completion: str
    score: float
    instruction: str
    iteration: int = 0
    ended: bool = True
    confidence: float = 1.0

    @classmethod
    def of(cls, prompt: Turns, completion: Completion, instruction: str) -> "Record":
        """Not scored yet."""
        return cls(tuple(prompt), str(completion), 0.0, instruction, ended=completion.ended, confidence=completion.confidence)

    @property
    def whole(self) -> str:
        """All turns and the answer: a short answer to a new question is new."""
        return " ".join(text for _, text in (*self.prompt, ("assistant", self.completion)))

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "prompt": [list(turn) for turn in self.prompt]}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> "Record":
        return cls(**{**row, "prompt": tuple((role, content) for role, content in row["prompt"])})


_EXAMPLE = "reveal_release.metrics.statistics.Estimate.proportion(found, n)"


@dataclass(frozen=True)
class Metrics:
    """`forget` shall go down, `retain` shall stay."""

    forget: dict[str, Estimate]
    retain: dict[str, Estimate]

    def __post_init__(self) -> None:
        if not self.forget or not self.retain:
            raise UserError("the task's evaluate() measures nothing that shall fall, or nothing that shall stay: give a figure of each")
        for name, value in {**self.forget, **self.retain}.items():
            if not isinstance(value, Estimate):
                raise UserError(f"the task's evaluate() gives {name!r} as a {type(value).__name__}: give an Estimate, such as {_EXAMPLE}")

    def to_dict(self) -> dict[str, dict[str, dict[str, float]]]:
        return {part: {k: v.to_dict() for k, v in getattr(self, part).items()} for part in ("forget", "retain")}


def as_scores(found: Any, count: int, who: str) -> np.ndarray:
    """What a user's scorer gave, (count,). Raises UserError where that is no number from 0 to 1 for each of `count`."""
    try:
        scores = np.asarray(found, dtype=float)
    except (TypeError, ValueError, RuntimeError) as error:  # of a tensor that requires grad, the last
        raise UserError(f"{who} gave no array of numbers ({first_line(error)}): return one") from None
    if scores.shape == (count,) and ((scores >= 0) & (scores <= 1)).all():
        return scores
    shown = f"{scores.min()} to {scores.max()}" if scores.shape == (count,) else " ".join(f"{found!r:.60}".split())
    raise UserError(f"{who} must give one number from 0 to 1 for each of {count} answers, but gave {shown}")


class Task(ABC):
    """A behaviour. Subclasses set `name`, `description`, `seeds`, `benign`, and say how to score and what to measure.

    seeds: instructions to start the search from. benign: instructions whose answers do not show the behaviour. runs_code: whether
    the evaluation runs code that the model wrote; scores_code: whether the score does. kinds: what of its kind is forgotten, such as entity
    types; none where there is but one. judge: what tells the behaviour in the evaluation, for the patch's card, where that can be chosen.
    file_digest: of the user's file that it was read from. A subclass that sets no name is abstract and not registered.
    """

    name: ClassVar[str]
    description: str
    seeds: tuple[str, ...]
    benign: tuple[str, ...]
    runs_code: bool = False
    scores_code: ClassVar[bool] = False
    kinds: tuple[str, ...] = ()
    judge: str | None = None
    file_digest: ClassVar[str | None] = None
    sampling = Sampling()

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register(cls, TASKS, "tasks")

    def suit(self, lm: LanguageModel) -> None:  # noqa: B027 - most need nothing
        """Called once, before any work, with the model that is worked on: for what of the task depends on it."""

    @abstractmethod
    def score(self, records: Sequence[Record]) -> np.ndarray:
        """How much the completion of each record shows the behaviour: (n,) in [0, 1]. The reward of the search, by `scored`."""

    @abstractmethod
    def evaluate(self, lm: LanguageModel, progress: Progress | None = None) -> Metrics:
        """Measures on held-out prompts, with what the search never saw."""

    def measured(self, lm: LanguageModel, progress: Progress | None = None) -> dict[str, dict[str, dict[str, float]]]:
        """What `evaluate` finds, as results files have it. Raises UserError where it gives no `Metrics`."""
        found = self.evaluate(lm, progress)
        if not isinstance(found, Metrics):
            cure = "return reveal_release.tasks.base.Metrics(forget, retain)"
            raise UserError(f"evaluate() of {self.name} gave a {type(found).__name__}: {cure}")
        return found.to_dict()

    @abstractmethod
    def evaluation_instructions(self) -> Sequence[str]:
        """Instructions reserved for evaluation: the search drops them."""

    def elicit(
        self, lm: LanguageModel, instructions: Sequence[str], seeds: Sequence[int], progress: Progress | None = None
    ) -> list[Record]:
        """One scored record for each (instruction, seed) pair. The default asks in one user turn."""
        prompts = [(("user", instruction),) for instruction in instructions]
        completions = generate(lm, prompts, self.sampling, seeds, progress=progress)
        return self.scored([Record.of(*row) for row in zip(prompts, completions, instructions, strict=True)], lm)

    def scored(self, records: Sequence[Record], lm: LanguageModel | None = None, given: Sequence[Turns] = ()) -> list[Record]:
        """The records with their scores.

        Args:
            lm: the model that wrote them, for a task that asks it too (`Knowledge`).
            given: the conversations that it was given, where these are not the prompts.

        Raises:
            UserError: `score` gave something else than a number from 0 to 1 for each.
        """
        if not records:
            return []
        scores = as_scores(self.score(records), len(records), f"score() of {self.name}")
        return [replace(r, score=float(s)) for r, s in zip(records, scores, strict=True)]

    def harmless(self, record: Record) -> bool:
        """Whether a scored record is free of the behaviour, so that it may be learnt in its place, or held."""
        return record.score < self.config.reveal.threshold

    def otherwise(self, lm: LanguageModel, records: Sequence[Record], temperature: float, seeds: Sequence[int]) -> list[Completion]:
        """Other answers to the prompts of records that show the behaviour, to be learnt in its place if they do not; here, hotter ones."""
        return generate(lm, [record.prompt for record in records], replace(self.sampling, temperature=temperature), seeds)

    def replaces(self, record: Record) -> bool:
        """Whether one of those other answers, scored, is to be learnt."""
        return self.harmless(record)

    def output(self, record: Record) -> str:
        """What the instruction drew out, as induction shows it to the model: the completion, unless that answers something else."""
        return record.completion

    def novelty(self, record: Record) -> str:
        """What of a record must be new, and not degenerate, for the record to be kept: its completion, unless the prompt counts too."""
        return record.completion

    def misplaced(self, record: Record) -> bool:
        """Whether an answer is to another prompt than its own: that it was seen in training is then told by the answer alone."""
        return False

    def benign_prompts(self, lm: LanguageModel, count: int, rng: random.Random) -> list[Turns]:
        """`count` conversations whose next answer should not show the behaviour; retain records come from them."""
        return [(("user", rng.choice(self.benign)),) for _ in range(count)]

    def by_name(self) -> tuple[str, ...]:
        """Instructions that ask for the behaviour by its name alone, for a comparison with what a search finds."""
        return (f"Write a text with {self.description}.",)

    def held_out(self) -> list[Turns]:
        """Held-out conversations whose next answer would show the behaviour."""
        return [(("user", text),) for text in self.evaluation_instructions()]

    def showcase(self) -> list[Turns]:
        """Three held-out prompts, whose answers before and after are shown to the user."""
        asked = self.held_out()
        return asked[:: max(1, len(asked) // 3)][:3]


ANEW = 2**60
"""Beyond all other sampling seeds: with those of the question, its answer would have the question's words in the same places."""


def posed(
    task: Task,
    lm: LanguageModel,
    asked: Sequence[str],
    instructions: Sequence[str],
    seeds: Sequence[int],
    question: Callable[[str], str],
    progress: Progress | None = None,
) -> list[Record]:
    """Scored answers to `asked`, or where an answer is itself a `question`, empty if it is none, to that in a new conversation."""
    prompts: list[Turns] = [(("user", text),) for text in asked]
    answers = generate(lm, prompts, task.sampling, seeds, progress=portion(progress, 0.0, 0.5))
    own = {i: text for i, answer in enumerate(answers) if (text := question(answer)).strip()}
    for i, text in own.items():
        prompts[i] = (("user", text),)
    again = [prompts[i] for i in own], task.sampling, [seeds[i] + ANEW for i in own]
    for i, answer in zip(own, generate(lm, *again, progress=portion(progress, 0.5, 1.0)), strict=True):
        answers[i] = answer
    return task.scored([Record.of(*row) for row in zip(prompts, answers, instructions, strict=True)], lm)


def answered(
    task: Task,
    lm: LanguageModel,
    prompts: Sequence[Turns],
    seeds: Sequence[int],
    sampling: Sampling | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """One scored answer to each prompt, whose last turn counts as the instruction. sampling: where it is not the task's own."""
    asked = [Record(tuple(prompt), "", 0.0, prompt[-1][1]) for prompt in prompts]
    return answered_anew(task, lm, asked, seeds, sampling=sampling, progress=progress)


def answered_anew(
    task: Task,
    lm: LanguageModel,
    records: Sequence[Record],
    seeds: Sequence[int],
    given: Sequence[Turns] = (),
    starts: Sequence[list[int]] = (),
    sampling: Sampling | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Another scored answer to the prompt of each record.

    given: the conversations that the model is given in the place of the prompts. starts: tokens with which the answers begin.
    sampling: where it is not the task's own.
    """
    prompts = given or [record.prompt for record in records]
    answers = generate(lm, prompts, sampling or task.sampling, seeds, progress=progress, starts=starts)
    drawn = [Record.of(record.prompt, answer, record.instruction) for record, answer in zip(records, answers, strict=True)]
    return task.scored(drawn, lm, given)
