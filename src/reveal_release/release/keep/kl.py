"""KL divergence from the starting model on what must not change, all along the line that the search for the scale moves on.

How far the step will go is not known in training. Held at one multiple only, the model strays quickly beyond it; so each batch is held
at another multiple, drawn from all up to `anchor_scale`.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from ..adapter import RuntimePatch
from ..rows import Row, answer_log_probs, batches
from .base import Keeper, Training


class KL(Keeper):
    """A batch of anchors a step: the mean over their answer tokens of KL(starting model ‖ model with the module)."""

    def __init__(self, weight: float, training: Training) -> None:
        super().__init__(weight, training)
        self._batches = batches(training.anchors, training.batch, training.generator) if weight and training.anchors else None

    def loss(self) -> Tensor | None:
        if self._batches is None:
            return None
        t, rows = self.training, next(self._batches)
        wanted = _without(t.teacher, t.model, rows, t.pad)
        multiple = t.anchor_scale * (1 - torch.rand((), generator=t.generator).item())
        with _stretched(t.teacher, t.model, multiple):
            found, _ = answer_log_probs(t.model, rows, t.pad)
        return self.weight * F.kl_div(found, wanted, reduction="batchmean", log_target=True)


@contextlib.contextmanager
def _stretched(patch: RuntimePatch | None, model: PeftModel, factor: float) -> Iterator[None]:
    """Both the patch and the module in training at `factor` times their scale."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    own = patch.scale if patch else 0.0
    scales = [dict(layer.scaling) for layer in layers]
    try:
        if patch:
            patch.scale = factor * own
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling.update({name: factor * value for name, value in scale.items()})
        yield
    finally:
        if patch:
            patch.scale = own
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling.update(scale)


@torch.no_grad()
def _without(patch: RuntimePatch | None, model: PeftModel, rows: Sequence[Row], pad: int) -> Tensor:
    """The log-probabilities of `answer_log_probs` with neither the patch nor the module in training."""
    scale = patch.scale if patch else 0.0
    try:
        if patch:
            patch.scale = 0.0
        with model.disable_adapter():
            return answer_log_probs(model, rows, pad)[0]
    finally:
        if patch:
            patch.scale = scale
