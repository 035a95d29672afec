"""Next-token loss on what must not change: what a retain module learns in the paper (arXiv 2509.14624), and GradDiff's retain term.

It makes the records likely, and so moves a model that wrote them itself; KL divergence (`kl`) holds it where it was.
"""

import torch.nn.functional as F
from torch import Tensor

from ..rows import answer_log_probs, batches
from .base import Keeper, Training
from .line import at_scale, readable


class NLL(Keeper):
    """A batch of anchors a step: the mean negative log-likelihood of their answer tokens."""

    def __init__(self, weight: float, training: Training) -> None:
        super().__init__(weight, training)
        self._batches = batches(training.anchors, training.config.batch, training.generator) if training.anchors else None

    def loss(self) -> Tensor | None:
        if self._batches is None:
            return None
        rows = readable(next(self._batches), self.training.generator)
        return self.weight * F.nll_loss(*answer_log_probs(self.training.model, rows, self.training.pad))


class NLLForget(NLL):
    """The same for the forget module, which will be subtracted: of the model with −forget_scale · ΔW_f."""

    roles = ("forget",)

    def loss(self) -> Tensor | None:
        with at_scale(None, self.training.model, -self.training.config.forget_scale):
            return super().loss()
