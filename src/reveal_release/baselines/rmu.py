"""RMU: representations of the forget records are steered to a random direction (Li et al. 2024, arXiv 2403.03218).

The paper tunes three MLP matrices at one layer; here the LoRA does it, as for all. The layer is the middle one of the blocks that the
LoRA is on; later blocks get no gradient and stay as they are. The paper's coefficient c depends on the model's scale: here it is a
multiple of the mean norm of the steered representations, as in Adaptive RMU (arXiv 2408.06223).
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor

from ..models import LanguageModel, autocast
from ..release.lora import trainable_factors
from ..release.pem import block_of
from ..release.rows import Row, batch_of
from .base import Method

ALPHA = 100.0
"""Weight of the retain term. The paper's best differ by model, from 100 to 1,200."""


def rmu(forget: Tensor, target: Tensor, retain: Tensor, frozen: Tensor, alpha: float) -> Tensor:
    """E‖M(x_f) − c·u‖² + α E‖M(x_r) − M_frozen(x_r)‖², each over d, the width (means of squares, as in the authors' code).

    Args:
        forget, retain: (N, d) and (M, d) representations. target: (d,) c·u. frozen: (M, d), of the model without the LoRA.
    """
    return F.mse_loss(forget, target.expand_as(forget)) + alpha * F.mse_loss(retain, frozen)


class RMU(Method):
    """See the module."""

    name = "rmu"
    strengths = (1.0, 4.0)

    def __init__(self, model: PeftModel, lm: LanguageModel, strength: float) -> None:
        super().__init__(model, lm, strength)
        blocks = sorted({block for name in trainable_factors(model) if (block := block_of(name)) is not None})
        layer = blocks[(len(blocks) - 1) // 2]
        self.inner = cast(Any, model.get_base_model())
        modules = self.inner.get_decoder().named_modules()  # of a model that also sees: it has other blocks
        self.block = next(module for name, module in modules if block_of(name) == layer)  # before what is in it
        direction = torch.rand(self.inner.config.get_text_config().hidden_size)  # another for each seed, which `fresh_lora` has set
        self.direction = (direction / direction.norm()).to(model.device)

    def loss(self, forget: list[Row], retain: list[Row]) -> Tensor:
        with torch.no_grad(), self.model.disable_adapter():
            size = self.hidden(forget).norm(dim=1).mean()
            frozen = self.hidden(retain)
        return rmu(self.hidden(forget), self.strength * size * self.direction, self.hidden(retain), frozen, ALPHA)

    def hidden(self, rows: list[Row]) -> Tensor:
        """(N, d) float32 outputs of the block, before any norm, at the positions that predict the answer tokens."""
        inputs, mask, answer = batch_of(rows, self.lm.tokenizer.pad_token_id, self.model.device)
        states: list[Any] = []
        hook = self.block.register_forward_hook(lambda _, __, output: states.append(output))
        try:
            with autocast(inputs.device):
                self.inner.base_model(input_ids=inputs, attention_mask=mask, use_cache=False)
        finally:
            hook.remove()
        output = states[0][0] if isinstance(states[0], tuple) else states[0]
        return output[:, :-1][answer[:, 1:]].float()
