"""Quantisation: the released model, its patch merged, with weights of 8 and 4 bits. Unlearning was seen to be undone by it, where the
change of the weights is smaller than a step of the grid (Zhang et al., arXiv 2410.16454).

Round to nearest, symmetric, simulated (weights are rounded and stored in their own dtype again; no kernels, any device). For the
weights w of one output and one group of its inputs:

    s = max|w| / (2^(bits - 1) - 1),    ŵ = s · round(w / s)

8 bits take all inputs of an output as one group, 4 bits groups of `GROUP` inputs. As usual, the linear layers of the blocks are
quantised; embeddings, norms and the output layer are not.

Not promised: that formats with other grids (NF4) or with calibration (GPTQ, AWQ) do the same; activations stay as they are, and so do
experts that a model stacks in one tensor: `coverage` says how much of the blocks is rounded.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from ..generation import Progress
from ..models import LanguageModel
from ..release.patch import Patch
from ..release.pem import linear_layers
from ..release.runtime import merge_
from .pair import SIDES, Pair, Sides, by_level
from .searches import Found

GROUP = 64
LEVELS: tuple[tuple[int, int | None], ...] = ((8, None), (4, GROUP))
"""Bits, and inputs a group (None: all)."""


def attack(pair: Pair, found: Found) -> Sides:
    """The strongest instructions, asked of both models quantised; `before`: as they are. `rounded`: `coverage`."""
    levels, part = [], coverage(pair.lm.model)
    for bits, group in LEVELS:
        sides: Sides = {"level": f"{bits}-bit weights", "how": f"{bits}-bit weights", "group": group, "rounded": part}
        for side in SIDES:
            patch = pair.patch if side == "released" else Patch()

            def work(update: Progress, patch: Patch = patch, bits: int = bits, group: int | None = group) -> Any:
                with quantised(pair.lm, patch, bits, group):
                    return found.ask(pair, update)

            sides[side] = pair.outcome(pair.phase(f"quantise-{bits}-{side}", f"{bits}-bit weights: ask {SIDES[side]}", work))
        levels.append(sides)
    return {**by_level(levels), "before": found.outcomes(pair)}


def rounded(weight: Tensor, bits: int, group: int | None = None) -> Tensor:
    """Rounds to the nearest of 2^bits - 1 values, as above; float32.

    Args:
        weight: (out, in). bits: at least 2. group: inputs a group; the last may be smaller. None: all inputs of an output.
    """
    out, size = weight.shape
    group = min(group or size, size)
    w = torch.nn.functional.pad(weight.float(), (0, -size % group)).reshape(out, -1, group)
    most = 2 ** (bits - 1) - 1
    step = w.abs().amax(-1, keepdim=True) / most
    step[step == 0] = 1.0  # a group of zeros stays one
    return (step * (w / step).round()).reshape(out, -1)[:, :size]


def coverage(model: torch.nn.Module) -> float:
    """Of the weights of the blocks, norms and biases apart, the share that is rounded."""

    def stack(name: str) -> str:  # what holds the block: `model.layers` of `model.layers.3.mlp.up_proj`; an image encoder has another
        return re.split(r"\.\d+(?:\.|$)", name, maxsplit=1)[0]

    layers = linear_layers(model, 1.0)
    stacks = {stack(name) for name in layers}
    sizes = {name: p.numel() for name, p in model.named_parameters(remove_duplicate=False) if p.ndim > 1 and stack(name) in stacks}
    return sum(sizes[f"{name}.weight"] for name in layers) / sum(sizes.values())


@contextlib.contextmanager
@torch.no_grad()
def quantised(lm: LanguageModel, patch: Patch, bits: int, group: int | None = None) -> Iterator[None]:
    """The model with the patch merged and rounded weights; afterwards as it was, bit for bit. Keeps a copy of what it changes, in main
    memory: beside a model that fits a GPU, most of it once more may not."""
    layers = linear_layers(lm.model, 1.0)
    modules: dict[str, Any] = {name: lm.model.get_submodule(name) for name in {*layers, *patch}}
    kept = {name: module.weight.to("cpu", copy=True) for name, module in modules.items()}
    try:
        merge_(lm.model, patch)
        for name in layers:
            weight, turned = modules[name].weight, isinstance(modules[name], Conv1D)  # which is (in, out)
            new = rounded(weight.T if turned else weight, bits, group)
            weight.copy_(new.T if turned else new)
        yield
    finally:
        for name, module in modules.items():
            module.weight.copy_(kept[name])
