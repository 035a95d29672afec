"""Cross-entropy of a linear head without the full logits.

With 8,192 entries the logits of a batch are 200 MB, written and read several times; a chunk of 256 rows stays in the cache. The
gradients are formed chunk by chunk in the forward pass (the idea of Liger's fused linear cross-entropy, arXiv 2410.10989).
`tests/testbed/test_fused_loss.py` compares it with torch's own.
"""

import torch
from torch import Tensor

CHUNK = 256


class _FusedLinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:  # type: ignore[no-untyped-def]
        count = (targets >= 0).sum().clamp(min=1)
        rows, head = hidden.to(dtype), weight.to(dtype)
        d_rows = torch.empty_like(rows)
        d_head = torch.zeros_like(weight, dtype=torch.float32)
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(targets), CHUNK):
            part, target = rows[start : start + CHUNK], targets[start : start + CHUNK]
            kept = (target >= 0).float()
            target = target.clamp(min=0)[:, None]
            log_p = torch.log_softmax((part @ head.T).float(), dim=-1)
            total -= (log_p.gather(1, target)[:, 0] * kept).sum()
            gradient = log_p.exp_()
            gradient.scatter_add_(1, target, -torch.ones_like(target, dtype=gradient.dtype))
            gradient.mul_((kept / count)[:, None])
            low = gradient.to(dtype)
            d_rows[start : start + CHUNK] = low @ head
            d_head += (low.T @ part).float()
        ctx.save_for_backward(d_rows.to(hidden.dtype), d_head.to(weight.dtype))
        return total / count

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        d_rows, d_head = ctx.saved_tensors
        return d_rows * grad, d_head * grad, None, None


def fused_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Mean of -log softmax(hidden Wᵀ)[target] over targets >= 0.

    Args:
        hidden: (N, d), the last layer's output; weight: (V, d), the head; targets: (N,) ids, negative where there is none.
        dtype: what the products are computed in; softmax and sums are float32.
    """
    return _FusedLinearCrossEntropy.apply(hidden, weight, targets, dtype)
