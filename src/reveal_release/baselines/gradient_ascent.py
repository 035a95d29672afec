"""Gradient ascent: the forget records are made unlikely, and nothing holds the rest (Jang et al. 2023, arXiv 2210.01504)."""

from torch import Tensor

from ..release.rows import Row
from .base import Method


class GradientAscent(Method):
    """L = −L_forget, the next-token loss. It has no lower bound."""

    name = "gradient-ascent"

    def loss(self, forget: list[Row], retain: list[Row]) -> Tensor:
        return -self.nll(forget)
