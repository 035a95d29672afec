"""Penalties on what the retain module shares with the forget module: O-LoRA (arXiv 2310.14152) and two kin of it.

Their formulas, and what else lowers them, stand in `orthogonality`.
"""

from torch import Tensor

from ..orthogonality import gauge_free, olora, olora_normalised
from .base import Keeper


class OLoRA(Keeper):
    """μ Σ |A_f A_rᵀ|, as published."""

    penalty = staticmethod(olora)

    def loss(self) -> Tensor | None:
        return self.weight * self.penalty(self.training.factors, self.training.frozen) if self.training.frozen else None


class OLoRANormalised(OLoRA):
    """μ times the mean |cosine| between rows of A_f and A_r."""

    penalty = staticmethod(olora_normalised)


class GaugeFree(OLoRA):
    """μ times the mean cos² between ΔW_f and ΔW_r."""

    penalty = staticmethod(gauge_free)
