"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), with its products in what the hardware multiplies.

`torch.optim.Muon` orthogonalises in bfloat16 on every machine, which a CPU without instructions for it is slow in (`benchmarks/muon.py`
measures how slow). In bfloat16 this is torch's with `adjust_lr_fn="match_rms_adamw"`, to the bit.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..models import precision

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, chosen for the largest slope at 0


def orthogonalised(matrix: Tensor, dtype: torch.dtype, steps: int = 5) -> Tensor:
    """About U Vᵀ of matrix = U S Vᵀ, (m, n) `dtype`: Newton-Schulz, which leaves singular values of 0.7 to 1.2 where they were not tiny."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    X = (matrix.T if tall else matrix).to(dtype)
    X = X / X.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = X @ X.T
        X = torch.addmm(X, torch.addmm(gram, gram, gram, beta=b, alpha=c), X, beta=a)
    return X.T if tall else X


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, at AdamW's root mean square (Liu et al. 2025, arXiv 2502.16982); decoupled weight decay.

    Args:
        params: matrices.
        lr: learning rate, as of an AdamW.
        weight_decay: λ; each step takes lr · λ of a weight away.
        momentum: share of the running mean that stays.
    """

    def __init__(self, params: Iterable[Any], lr: float, weight_decay: float = 0.0, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in (p for p in group["params"] if p.grad is not None):
                state = self.state[weight]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(weight.grad)
                mean = state["momentum_buffer"]
                mean.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonalised(weight.grad.lerp(mean, group["momentum"]), precision(weight.device))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(weight.shape)))
