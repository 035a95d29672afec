"""DPO: the refusal is preferred to the forget answer (Rafailov et al. 2023, arXiv 2305.18290; for unlearning, arXiv 2404.05868)."""

import torch.nn.functional as F
from torch import Tensor

from ..release.rows import Row
from .base import Method


def dpo(won: Tensor, won_reference: Tensor, lost: Tensor, lost_reference: Tensor, beta: float) -> Tensor:
    """NPO's equation 2: −(1/β) E[log σ(β log(π/π_ref)(y_w|x) − β log(π/π_ref)(y_l|x))]. DPO's own has no 1/β.

    Args:
        won, lost: (rows,) log π of the preferred and of the other answer; won_reference, lost_reference: log π_ref of the same.
    """
    return -1 / beta * F.logsigmoid(beta * ((won - won_reference) - (lost - lost_reference))).mean()


class DPO(Method):
    """DPO's loss with `REFUSAL` as the preferred answer, and the next-token loss of the retain records."""

    name = "dpo"
    strengths = (0.1, 0.5)

    def loss(self, forget: list[Row], retain: list[Row]) -> Tensor:
        won, lost = self.refused(forget), forget
        preference = dpo(self.log_likelihood(won), self.reference(won), self.log_likelihood(lost), self.reference(lost), self.strength)
        return preference + self.nll(retain)
