"""What keeps what must stay: the contract of a keeper, and what it may see of the training of a module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from peft import PeftModel
from torch import Tensor

from ..adapter import RuntimePatch
from ..orthogonality import Factors
from ..patch import LowRank
from ..rows import Row

Role = Literal["forget", "retain"]


@dataclass(frozen=True)
class Training:
    """One module in training.

    Args:
        model: with the module, a LoRA, on it. factors: the module's live parameters, by name of the base's module.
        frozen: the module that was trained before; empty for the first.
        anchors: records of what must not change. anchor_scale: largest multiple of the step at which they hold.
        teacher: the patch on the model that what must not change is taken without.
        batch: records per step. generator: of the order of the records. pad: id of the padding token.
    """

    model: PeftModel
    factors: Mapping[str, Factors]
    frozen: Mapping[str, LowRank]
    anchors: Sequence[Row]
    anchor_scale: float
    teacher: RuntimePatch | None
    batch: int
    generator: torch.Generator
    pad: int


class Keeper:
    """A way to keep what must stay, for one module in training: a term of its loss, or a constraint on its factors.

    `roles` are the modules that it is for. One that needs anchors, or a module trained before, does nothing where there are none.
    """

    roles: ClassVar[tuple[Role, ...]] = ("retain",)

    def __init__(self, weight: float, training: Training) -> None:
        self.weight, self.training = weight, training

    def loss(self) -> Tensor | None:
        """What this step's loss gains, weighted, differentiable in the factors; None for nothing."""
        return None

    def project_(self) -> None:
        """Brings the factors back to what is allowed, in place: before the first step and after each."""
