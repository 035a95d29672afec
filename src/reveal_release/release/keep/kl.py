"""KL divergence from the starting model on what must not change."""

import torch.nn.functional as F
from torch import Tensor

from .base import Training
from .line import AlongTheLine


class KL(AlongTheLine):
    """A batch of anchors a step: the mean over their answer tokens of KL(starting model ‖ model with the module)."""

    def distance(self, found: Tensor, wanted: Tensor) -> Tensor:
        return F.kl_div(found, wanted, reduction="batchmean", log_target=True)


class KLForget(KL):
    """The same for the forget module, which will be subtracted: at multiples of −forget_scale · ΔW_f."""

    roles = ("forget",)

    def __init__(self, weight: float, training: Training) -> None:
        super().__init__(weight, training)
        self._scale *= -training.config.forget_scale
