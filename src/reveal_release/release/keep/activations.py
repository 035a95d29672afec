"""Activation null space: a module reads nothing of the leading directions of its layer's inputs on what must stay.

With C = E[x xᵀ] over the tokens of the anchors and U its leading eigenvectors, A ← A (I − U Uᵀ) after every step. Then ΔW x = 0 for
every x in the span of U, whatever B becomes: to first order, what is done with such inputs cannot change. Both modules are so bound.
Kin: null-space projection for continual learning (Wang et al. 2021, arXiv 2103.07113), AlphaEdit (arXiv 2410.02355).

Not promised: that other inputs stay. What an earlier layer's module changes moves a later layer's inputs out of the span.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...models import autocast
from ..rows import batch_of
from .base import Keeper, Training

STREAM = 32
"""Records a forward pass."""
WIDE = 2048
"""Most inputs of a layer of which all tokens count."""


class ActivationNullSpace(Keeper):
    """`weight` is the share of the inputs' energy (trace of C) that the spared directions hold, in [0, 1).

    As many directions are left as the module has rank, and the frozen one, so that `null-space` fits beside.
    """

    roles = ("forget", "retain")

    def forbidden(self) -> Mapping[str, Tensor]:
        t = self.training
        if not t.anchors:
            return {}
        directions, found = {}, {}
        for name, seen in inputs(t).items():
            if id(seen) not in found:
                reserved = t.factors[name].A.shape[0] + (t.frozen[name].rank if name in t.frozen else 0)
                found[id(seen)] = leading(seen, self.weight)[:, : max(0, seen.shape[1] - reserved)].T
            directions[name] = found[id(seen)].to(t.factors[name].A)
        return directions


def leading(seen: Tensor, share: float) -> Tensor:
    """(in, k) orthonormal: the fewest leading eigenvectors of E[x xᵀ] that hold `share` of its trace; in float64.

    Args:
        seen: E[x xᵀ] (in, in), or fewer samples of x than it has directions, (n, in).
    """
    seen = seen.double() if seen.is_cuda else seen.to("cpu", torch.float64)  # other accelerators have none
    square = seen.shape[0] == seen.shape[1]
    values, vectors = torch.linalg.eigh(seen if square else seen @ seen.T)  # XᵀX and XXᵀ have the same eigenvalues
    energy = values.flip(0).clamp_min(0).cumsum(0)
    kept = vectors.flip(1)[:, : int((energy < share * energy[-1]).sum()) + int(energy[-1] > 0)]
    return kept if square else torch.nn.functional.normalize(seen.T @ kept, dim=0)


@torch.no_grad()
def inputs(training: Training) -> dict[str, Tensor]:
    """What every adapted layer reads over all tokens of the anchors, streamed, in float32 on the layer's device.

    E[x xᵀ] (in, in), or of a layer wider than `WIDE` so many tokens at most, drawn at random, (n, in): eigenvectors are cubic in what is
    decomposed. Layers that read one tensor (queries, keys and values; gate and up) share one matrix.
    """
    part = min(1.0, WIDE / sum(len(ids) for ids, _ in training.anchors))
    generator = torch.Generator().manual_seed(0)  # of its own: that of the training orders the batches
    sums: dict[str, Tensor] = {}
    tokens: dict[str, list[Tensor]] = {}
    counts: dict[str, int] = {}
    owners: dict[str, str] = {}
    last: tuple[Tensor | None, str] = (None, "")
    mask = torch.empty(0)

    def reader(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def read(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            nonlocal last
            x = args[0]
            if x is not last[0]:
                last = x, name
            owners[name] = last[1]
            if owners[name] == name:
                # Experts are given tokens without the batch's shape; padding cannot be told among those.
                x = (x[mask.to(x.device)] if x.shape[:2] == mask.shape else x.flatten(0, -2)).float()
                if x.shape[1] > WIDE:
                    some = torch.randperm(len(x), generator=generator)[: math.ceil(len(x) * part)]
                    tokens.setdefault(name, []).append(x[some.to(x.device)])
                    return
                with torch.autocast(x.device.type, enabled=False):
                    sums[name] = sums.get(name, 0.0) + x.T @ x
                counts[name] = counts.get(name, 0) + len(x)

        return read

    layers = training.model.get_base_model().named_modules()
    handles = [layer.register_forward_pre_hook(reader(name)) for name, layer in layers if name in training.factors]
    device = next(training.model.parameters()).device
    body: Any = training.model.get_base_model().base_model  # what the output layer would make of it is not asked
    ordered = sorted(training.anchors, key=lambda row: len(row[0]))
    try:
        for start in range(0, len(ordered), STREAM):
            ids, attention, _ = batch_of(ordered[start : start + STREAM], training.pad, device)
            mask = attention.bool()
            with autocast(device):
                body(input_ids=ids, attention_mask=attention, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    seen = {name: total / counts[name] for name, total in sums.items()}
    seen |= {name: torch.cat(parts)[:WIDE] for name, parts in tokens.items()}
    return {name: seen[owner] for name, owner in owners.items()}
