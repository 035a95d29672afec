"""A small change: the squared Frobenius norm of ΔW, over all modules, from r×r matrices."""

import torch
from torch import Tensor

from .base import Keeper


class L2(Keeper):
    """‖B A‖² = Σ (BᵀB) ⊙ (A Aᵀ), of either module."""

    roles = ("forget", "retain")

    def loss(self) -> Tensor:
        squares = [((f.B.float().T @ f.B.float()) * (f.A.float() @ f.A.float().T)).sum() for f in self.training.factors.values()]
        return self.weight * torch.stack(squares).sum()
