"""PEM negation: a module learns the forget records, and is subtracted from the weights (Zhang et al. 2023, arXiv 2306.14870).

How much of it is subtracted is the patch's scale, which the search under the budget chooses.
"""

from torch import Tensor

from ..release.rows import Row
from .base import Method


class PEMNegation(Method):
    """L = L_forget, the next-token loss; the patch is −ΔW."""

    name = "pem-negation"
    sign = -1.0

    def loss(self, forget: list[Row], retain: list[Row]) -> Tensor:
        return self.nll(forget)
