"""The ascent module: a LoRA that makes what the model wrote unlikely, apart from the modules that put something in its place.

L = −L_forget + L_retain / 2 + w KL: the next-token losses of gradient difference (Liu et al. 2022, arXiv 2203.12817), and the divergence
that holds the retain module, at multiples of this one, with the weight of `kl`. Without it hardly a multiple is within the budget.

What harmless answers move and what ascent moves have little in common, and neither has what they break. So their sum goes as far as each
of them alone for about as much of the budget, as sums of task vectors do (Ilharco et al. 2023, arXiv 2212.04089).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..config import ReleaseConfig
from ..generation import Progress
from ..models import LanguageModel
from .patch import Patch
from .pem import train_pem
from .rows import Row

RATE = 1 / 9
"""Of the release's learning rate: ascent has no minimum to settle in."""
RETAINED = 0.5
"""Weight of L_retain. It makes what the model wrote likelier still, which the budget rewards and named entities pay for."""


def train_ascent(
    lm: LanguageModel, forget: Sequence[Row], retain: Sequence[Row], config: ReleaseConfig, seed: int, progress: Progress | None = None
) -> Patch:
    """The module, of the model as it is now, trained for as many steps as a pair.

    Args:
        forget: what the revealed instructions drew out. retain: what must not change.
    """
    own = replace(config, learning_rate=RATE * config.learning_rate, keep={"kl": config.keep.get("kl", 0.0), "nll": RETAINED})
    options: Any = {"steps": config.steps_of_a_pair, "seed": seed, "progress": progress}
    return train_pem(lm, (), own, anchors=retain, unlearnt=forget, unlearning=likelihood, **options)


def likelihood(log_probs: Tensor, targets: Tensor) -> Tensor:
    """Mean log-probability of the targets, which has no lower bound: (N, V) log-probabilities and (N,) ids to a scalar."""
    return -F.nll_loss(log_probs, targets)
