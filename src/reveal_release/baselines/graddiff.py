"""Gradient difference: ascent on the forget records, descent on the retain records (Liu et al. 2022, arXiv 2203.12817)."""

from torch import Tensor

from ..release.rows import Row
from .base import Method


class GradDiff(Method):
    """L = −L_forget + λ L_retain, the next-token losses. It has no lower bound."""

    name = "graddiff"
    strengths = (1.0, 4.0)

    def loss(self, forget: list[Row], retain: list[Row]) -> Tensor:
        return -self.nll(forget) + self.strength * self.nll(retain)
