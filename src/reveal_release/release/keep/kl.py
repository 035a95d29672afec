"""KL divergence from the starting model on what must not change, all along the line that the search for the scale moves on.

How far the step will go is not known in training. Held at one multiple only, the model strays quickly beyond it; so each batch is held
at another multiple, drawn from all up to `anchor_scale`.
"""

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from ..adapter import RuntimePatch
from ..rows import answer_log_probs, batches
from .base import Keeper, Training


class KL(Keeper):
    """A batch of anchors a step: the mean over their answer tokens of KL(starting model ‖ model with the module)."""

    def __init__(self, weight: float, training: Training) -> None:
        super().__init__(weight, training)
        self._batches = batches(training.anchors, training.config.batch, training.generator) if training.anchors else None
        self._scale = training.config.anchor_scale

    def loss(self) -> Tensor | None:
        if self._batches is None:
            return None
        t, rows = self.training, next(self._batches)
        with torch.no_grad(), _scaled(t.teacher, t.model, 0.0):
            wanted, _ = answer_log_probs(t.model, rows, t.pad)
        multiple = self._scale * (1 - torch.rand((), generator=t.generator).item())
        with _scaled(t.teacher, t.model, multiple):
            found, _ = answer_log_probs(t.model, rows, t.pad)
        return self.weight * F.kl_div(found, wanted, reduction="batchmean", log_target=True)


class KLForget(KL):
    """The same for the forget module, which will be subtracted: at multiples of −forget_scale · ΔW_f."""

    roles = ("forget",)

    def __init__(self, weight: float, training: Training) -> None:
        super().__init__(weight, training)
        self._scale *= -training.config.forget_scale


@contextlib.contextmanager
def _scaled(patch: RuntimePatch | None, model: PeftModel, factor: float) -> Iterator[None]:
    """Both the patch and the module in training at `factor` times their scale; at 0 neither is there, bit for bit."""
    layers = [module.scaling for module in model.modules() if isinstance(module, LoraLayer)]
    before, scale = [dict(scaling) for scaling in layers], patch.scale if patch else 0.0
    without = model.disable_adapter() if factor == 0 else contextlib.nullcontext()
    try:
        if patch:
            patch.scale = factor * scale
        for scaling in layers:
            scaling.update({name: factor * value for name, value in scaling.items()})
        with without:
            yield
    finally:
        if patch:
            patch.scale = scale
        for scaling, old in zip(layers, before, strict=True):
            scaling.update(old)
