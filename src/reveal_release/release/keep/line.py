"""What holds the model's outputs where they were, all along the line that the search for the scale moves on.

How far the step will go is not known in training. Held at one multiple only, the model strays quickly beyond it; so each batch is held
at another multiple, drawn from all up to `anchor_scale`.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from peft import PeftModel
from peft.helpers import rescale_adapter_scale
from torch import Tensor

from ..rows import Row, answer_log_probs, batches, parts
from ..runtime import RuntimePatch
from .base import Keeper, Training


class AlongTheLine(Keeper):
    """A batch of rows a step: how far what is predicted at their answer tokens is from the starting model's predictions.

    Of a batch with more answer tokens than are read at once (`MOST_TOKENS`) one part is taken, at random.
    """

    def __init__(self, weight: float, training: Training) -> None:
        super().__init__(weight, training)
        rows, size = self.rows()
        self._batches = batches(rows, size, training.generator) if rows else None
        self._scale = training.config.anchor_scale

    def rows(self) -> tuple[Sequence[Row], int]:
        """Those to hold the model on, and how many of them a step."""
        return self.training.anchors, self.training.config.batch

    def distance(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Of (N, V) log-probabilities from those of the starting model: a scalar."""
        raise NotImplementedError

    def loss(self) -> Tensor | None:
        if self._batches is None:
            return None
        t = self.training
        rows = readable(next(self._batches), t.generator)
        with torch.no_grad(), at_scale(t.teacher, t.model, 0.0):
            wanted, _ = answer_log_probs(t.model, rows, t.pad)
        multiple = self._scale * (1 - torch.rand((), generator=t.generator).item())
        with at_scale(t.teacher, t.model, multiple):
            found, _ = answer_log_probs(t.model, rows, t.pad)
        return self.weight * self.distance(found, wanted)


def readable(rows: Sequence[Row], generator: torch.Generator) -> Sequence[Row]:
    """The rows of a batch; where they have more answer tokens than are read at once, one of their parts, drawn at random."""
    several = parts(rows)
    return several[0] if len(several) == 1 else several[int(torch.randint(len(several), (), generator=generator))]


@contextlib.contextmanager
def at_scale(patch: RuntimePatch | None, model: PeftModel, factor: float) -> Iterator[None]:
    """Both the patch and the module in training at `factor` times their scale; at 0 neither is there, bit for bit."""
    scale = patch.scale if patch else 0.0
    module = rescale_adapter_scale(model, factor) if factor else model.disable_adapter()
    try:
        if patch:
            patch.scale = factor * scale
        with module:
            yield
    finally:
        if patch:
            patch.scale = scale
