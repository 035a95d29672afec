"""How far apart two models' predictions are: the Jensen-Shannon divergence of next-token distributions."""

import math

import torch
from torch import Tensor


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    """JS(p, q) = ½ KL(p ‖ m) + ½ KL(q ‖ m) with m = ½ (p + q), in nats: from 0, where p = q, to log 2 (Lin, 1991).

    Args:
        log_p, log_q: (N, V) log-probabilities.

    Returns:
        (N,) divergences.
    """
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    p, q = (torch.where(x == -math.inf, 0.0, x.exp() * (x - log_m)) for x in (log_p, log_q))  # 0 log 0 is 0; NaN stays NaN
    return (p + q).sum(-1) / 2
