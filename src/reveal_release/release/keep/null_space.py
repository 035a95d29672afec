"""Hard orthogonality: the rows of A_r stay in the null space of A_f, by QR; no loss, so the weight does not matter unless it is 0."""

from ..orthogonality import NullSpace
from .base import Keeper, Training


class HardNullSpace(Keeper):
    """ΔW_r reads nothing of what ΔW_f reads: A_f A_rᵀ = 0 after every step."""

    def __init__(self, weight: float, training: Training) -> None:
        super().__init__(weight, training)
        self._space = NullSpace(training.frozen)

    def project_(self) -> None:
        if self.weight:
            self._space.project_(self.training.factors)
