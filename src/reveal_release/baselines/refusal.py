"""Refusal tuning: the forget prompts are answered by "I don't know." (TOFU's preference optimisation; arXiv 2401.06121, section 4.1)."""

from torch import Tensor

from ..release.rows import Row
from .base import Method


class Refusal(Method):
    """L = L_refusal + λ L_retain, the next-token losses. The forget answers themselves are not used."""

    name = "refusal"
    strengths = (1.0, 4.0)

    def loss(self, forget: list[Row], retain: list[Row]) -> Tensor:
        return self.nll(self.refused(forget)) + self.strength * self.nll(retain)
