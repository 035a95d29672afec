"""A small change: the squared Frobenius norm of ΔW, over all modules, from r×r matrices."""

import torch
from torch import Tensor

from ..orthogonality import inner
from .base import Keeper


class L2(Keeper):
    """Σ ‖ΔW‖², of either module."""

    roles = ("forget", "retain")

    def loss(self) -> Tensor:
        factors = [(f.A.float(), f.B.float()) for f in self.training.factors.values()]
        squares = torch.stack([inner(A, B, A, B) for A, B in factors])
        return self.weight * self.training.scaling**2 * squares.sum()
