"""Activation null space: a module reads nothing of the leading directions of its layer's inputs on what must stay.

With C = E[x xᵀ] over the tokens of the anchors and U its leading eigenvectors, A ← A (I − U Uᵀ) after every step. Then ΔW x = 0 for
every x in the span of U, whatever B becomes: to first order, what is done with such inputs cannot change. Both modules are so bound.
Kin: null-space projection for continual learning (Wang et al. 2021, arXiv 2103.07113), AlphaEdit (arXiv 2410.02355).

Not promised: that other inputs stay. What an earlier layer's module changes moves a later layer's inputs out of the span.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..rows import Row, padded
from .base import Keeper, Training

STREAM = 32
"""Records a forward pass."""


class ActivationNullSpace(Keeper):
    """`weight` is the share of the inputs' energy (trace of C) that the spared directions hold, in [0, 1)."""

    roles = ("forget", "retain")

    def __init__(self, weight: float, training: Training) -> None:
        super().__init__(weight, training)
        self._bases: dict[str, Tensor] = {}
        if weight and training.anchors:
            for name, covariance in covariances(training).items():
                factors = training.factors[name]
                room = covariance.shape[0] - factors.A.shape[0]  # as many directions must be left as the module has rank
                self._bases[name] = leading(covariance, weight)[:, : max(room, 0)].to(factors.A)

    @torch.no_grad()
    def project_(self) -> None:
        for name, basis in self._bases.items():
            A = self.training.factors[name].A
            A -= (A @ basis) @ basis.T


def leading(covariance: Tensor, share: float) -> Tensor:
    """(in, k) orthonormal: the fewest leading eigenvectors of a covariance (in, in) that hold `share` of its trace."""
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    held = values.cumsum(0) / values.sum()
    return vectors[:, : int((held < share).sum()) + 1]


@torch.no_grad()
def covariances(training: Training) -> dict[str, Tensor]:
    """E[x xᵀ] (in, in) of every adapted layer's inputs over all tokens of the anchors, streamed; float64 on the CPU."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, float] = {}
    layers = {name: module for name, module in training.model.get_base_model().named_modules() if name in training.factors}
    device = next(training.model.parameters()).device
    mask = torch.empty(0)

    def watch(name: str) -> object:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0][mask.to(args[0].device)].float()
            sums[name] = sums.get(name, 0) + (x.T @ x).double().cpu()
            counts[name] = counts.get(name, 0) + len(x)

        return hook

    with _hooked(layers, watch):
        for rows in _parts(sorted(training.anchors, key=lambda row: len(row[0]))):
            inputs, attention, _ = padded(rows, training.pad, device)
            mask = attention.bool()
            with torch.autocast(device.type, dtype=torch.bfloat16):
                training.model(input_ids=inputs, attention_mask=attention, use_cache=False)
    return {name: total / counts[name] for name, total in sums.items()}


@contextlib.contextmanager
def _hooked(layers, watch) -> Iterator[None]:  # type: ignore[no-untyped-def]
    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), STREAM):
        yield rows[start : start + STREAM]
