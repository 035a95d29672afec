"""What keeps what must stay: the contract of a keeper, and what it may see of the training of a module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from peft import PeftModel
from torch import Tensor

from ...config import ReleaseConfig
from ..orthogonality import Factors
from ..patch import LowRank
from ..rows import Row
from ..runtime import RuntimePatch

Role = Literal["forget", "retain"]


@dataclass(frozen=True)
class Training:
    """One module in training.

    Args:
        model: with the module, a LoRA, on it; at ΔW = 0 when keepers are made.
        factors: the module's live parameters, by name of the base's module: ΔW = scaling · B A.
        frozen: the module that was trained before; empty for the first.
        learnt: records that it learns. anchors: records of what must not change.
        teacher: the patch on the model that what must not change is taken without.
        generator: of the order of the records. pad: id of the padding token. ends: ids of those that end an answer.
    """

    model: PeftModel
    factors: Mapping[str, Factors]
    scaling: float
    frozen: Mapping[str, LowRank]
    learnt: Sequence[Row]
    anchors: Sequence[Row]
    teacher: RuntimePatch | None
    config: ReleaseConfig
    generator: torch.Generator
    pad: int
    ends: Sequence[int]


class Keeper:
    """A way to keep what must stay, for one module in training: a term of its loss, or a constraint on what it reads.

    `roles` are the modules that it is for. One that needs records, or a module trained before, does nothing where there are none.
    """

    roles: ClassVar[tuple[Role, ...]] = ("retain",)

    def __init__(self, weight: float, training: Training) -> None:
        self.weight, self.training = weight, training

    def loss(self) -> Tensor | None:
        """What this step's loss gains, weighted, differentiable in the factors; None for nothing."""
        return None

    def forbidden(self) -> Mapping[str, Tensor]:
        """Input directions that ΔW shall not read, (k, in) rows by module name; asked for once, before the first step.

        Those of all keepers are forbidden together: A is kept off their joint span, which taking turns would not do.
        """
        return {}
