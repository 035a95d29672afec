"""Negative preference optimisation: DPO's loss with a losing answer and no winning one (Zhang et al. 2024, arXiv 2404.05868)."""

import torch.nn.functional as F
from torch import Tensor

from ..release.rows import Row
from .base import Method


def npo(log_p: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Equation 3: (2/β) E[log(1 + (π/π_ref)^β)]. As β goes to 0 its gradient goes to that of gradient ascent.

    Args:
        log_p, reference: (rows,) log π(y|x) and log π_ref(y|x) of the forget answers.
    """
    return -2 / beta * F.logsigmoid(-beta * (log_p - reference)).mean()


class NPO(Method):
    """The paper's NPO+RT: NPO's loss and the next-token loss of the retain records."""

    name = "npo"
    strengths = (0.1, 0.5)

    def loss(self, forget: list[Row], retain: list[Row]) -> Tensor:
        return npo(self.log_likelihood(forget), self.reference(forget), self.strength) + self.nll(retain)
