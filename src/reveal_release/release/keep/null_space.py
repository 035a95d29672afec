"""Hard orthogonality: the rows of A_r stay in the null space of A_f, by QR; no loss, so any weight above 0 is the same."""

from collections.abc import Mapping

from torch import Tensor

from .base import Keeper


class HardNullSpace(Keeper):
    """ΔW_r reads nothing of what ΔW_f reads: A_f A_rᵀ = 0 after every step."""

    def forbidden(self) -> Mapping[str, Tensor]:
        return {name: module.A for name, module in self.training.frozen.items()}
