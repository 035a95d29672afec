"""What a baseline is: a loss on forget and retain records, by which a LoRA is trained, which is then the patch.

    patch = train(get_method("npo"), lm, forget, retain, config.release, Setting(7e-4, 0.1), steps=140, seed=0)

All have the same LoRA, optimiser and batches, those of `release.pem`. A method is one subclass of `Method`; its loss is a pure function
of log-probabilities or hidden states beside it, as its paper writes it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor

from ..config import ReleaseConfig, Unfit, UserError
from ..generation import Progress
from ..models import LanguageModel, answered_ids
from ..registry import register
from ..release.lora import from_peft
from ..release.patch import Patch
from ..release.pem import descend, fresh_lora
from ..release.rows import Row, answer_log_probs, batches, lengths

METHODS: dict[str, type["Method"]] = {}
RATES = (1 / 27, 1 / 9, 1 / 81, 1 / 3)
"""Multiples of the release's learning rate that are tried, in this order, as many as make `TRIALS` with the method's strengths.

They are low because the scale is chosen afterwards: most methods forget at the least cost where training changes little, and far along
that line.
"""
TRIALS = 4
BEYOND = 2
"""Further learning rates, at most, where the best is an outermost."""
REFUSAL = "I don't know."


class Method(ABC):
    """A baseline. Subclasses set `name` and give a loss; one that sets no name is abstract and not registered.

    strengths: the values that are tried of what it has to choose of its own, 1, 2 or 4 of them. sign: what multiple of the trained module
    is the patch.
    """

    name: ClassVar[str]
    strengths: ClassVar[tuple[float, ...]] = (1.0,)
    sign: ClassVar[float] = 1.0

    def __init__(self, model: PeftModel, lm: LanguageModel, strength: float) -> None:
        self.model, self.lm, self.strength = model, lm, strength

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if TRIALS % len(cls.strengths):
            raise UserError(f"{cls.__name__} has {len(cls.strengths)} strengths: give 1, 2 or {TRIALS}, so that each is tried as often")
        register(cls, METHODS, "methods")

    @abstractmethod
    def loss(self, forget: list[Row], retain: list[Row]) -> Tensor:
        """What is brought down, of a batch of either kind of record: a scalar, differentiable in the LoRA."""

    def nll(self, rows: list[Row]) -> Tensor:
        """Mean negative log-likelihood of the answer tokens."""
        return F.nll_loss(*answer_log_probs(self.model, rows, self.lm.tokenizer.pad_token_id))

    def log_likelihood(self, rows: list[Row]) -> Tensor:
        """(rows,) log π(y|x): the sum over each answer's tokens."""
        log_probs, targets = answer_log_probs(self.model, rows, self.lm.tokenizer.pad_token_id)
        tokens = log_probs.gather(1, targets[:, None])[:, 0]
        return torch.stack([answer.sum() for answer in tokens.split(lengths(rows))])

    @torch.no_grad()
    def reference(self, rows: list[Row]) -> Tensor:
        """(rows,) log π_ref(y|x): of the model without the LoRA."""
        with self.model.disable_adapter():
            return self.log_likelihood(rows)

    def refused(self, rows: list[Row]) -> list[Row]:
        """The same prompts, each answered by `REFUSAL`, within the model's context."""
        _, answer = answered_ids(self.lm, (("user", "?"),), REFUSAL)  # as it is tokenised after a turn
        return [((ids[:prompt] + answer + self.lm.end)[: self.lm.context], prompt) for ids, prompt in rows]


@dataclass(frozen=True)
class Setting:
    """What the search for hyperparameters tries: a peak learning rate and the method's own strength."""

    learning_rate: float
    strength: float


def settings(method: type[Method], config: ReleaseConfig) -> list[Setting]:
    """`TRIALS` settings, for every method as many: its strengths with the first of `RATES`."""
    rates = RATES[: TRIALS // len(method.strengths)]
    return [Setting(config.learning_rate * rate, strength) for rate in rates for strength in method.strengths]


def beyond(best: dict[str, Any], tried: Sequence[dict[str, Any]]) -> list[Setting]:
    """The settings with the next rate beyond the best's, where that is an outermost of those tried with its strength.

    Where all diverged, the best of them too, it is the next below all.

    Args:
        best, tried: outcomes, which have the fields of a `Setting`; `best` is one of them.
    """
    rates = [one["learning_rate"] for one in tried if one["strength"] == best["strength"]]
    if "failed" in best:
        return [Setting(min(rates) / 3, best["strength"])]
    rate = best["learning_rate"]
    edges = ((max(rates), 3.0), (min(rates), 1 / 3))  # of one rate both
    return [Setting(rate * step, best["strength"]) for edge, step in edges if rate == edge]


def train(
    method: type[Method],
    lm: LanguageModel,
    forget: Sequence[Row],
    retain: Sequence[Row],
    config: ReleaseConfig,
    setting: Setting,
    steps: int,
    seed: int,
    progress: Progress | None = None,
) -> Patch:
    """Trains a LoRA of the release's shape by the method's loss and returns what the method adds to the weights.

    Raises:
        Unfit: there are no forget or no retain records, or the training diverged.
    """
    if not forget or not retain:
        raise Unfit(f"{method.name} needs forget and retain records, got {len(forget)} and {len(retain)}")
    generator = torch.Generator().manual_seed(seed)
    unwanted, kept = batches(forget, config.batch, generator), batches(retain, config.batch, generator)
    with fresh_lora(lm, config, seed) as model:
        learner = method(model, lm, setting.strength)
        descend(model, lambda: [learner.loss(next(unwanted), next(kept))], setting.learning_rate, steps, progress)
        return from_peft(model).scale(method.sign)
