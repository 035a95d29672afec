"""SimNPO: NPO without a reference model, by the length-normalised likelihood (Fan et al. 2024, arXiv 2410.07163)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..release.rows import Row, lengths
from .base import Method


def simnpo(log_p: Tensor, length: Tensor, beta: float, gamma: float = 0.0) -> Tensor:
    """E[−(2/β) log σ(−(β/|y|) log π(y|x) − γ)].

    Args:
        log_p, length: (rows,) log π(y|x) of the forget answers, and |y|, their tokens. gamma: margin.
    """
    return -2 / beta * F.logsigmoid(-beta / length * log_p - gamma).mean()


class SimNPO(Method):
    """SimNPO's loss and the next-token loss of the retain records."""

    name = "simnpo"
    strengths = (2.5, 4.5)

    def loss(self, forget: list[Row], retain: list[Row]) -> Tensor:
        log_p = self.log_likelihood(forget)
        return simnpo(log_p, torch.tensor(lengths(forget), device=log_p.device), self.strength) + self.nll(retain)
