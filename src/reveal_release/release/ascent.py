"""The ascent module: a LoRA that makes what the model wrote unlikely, apart from the modules that put something in its place.

L = −L_forget + L_retain / 2 + w KL. The first two are the next-token losses of gradient difference (Liu et al. 2022, arXiv 2203.12817).
The third is the divergence that holds the retain module, at multiples of this one; without it no multiple may fit the budget. Whatever
else `release.keep` has for the retain module acts here too, unless it needs harmless answers or a module trained before.

Learning harmless answers and ascent move the model in different directions and break different things. So in the budget that either could
spend alone their sum goes nearly as far as both, as task vectors add up (Ilharco et al. 2023, arXiv 2212.04089).
"""

from collections.abc import Sequence
from dataclasses import replace

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
"""Weight of L_retain, unless `release.keep` has one for `nll`. It makes likelier what the model wrote, at the price of other texts."""


def train_ascent(
    lm: LanguageModel, forget: Sequence[Row], retain: Sequence[Row], config: ReleaseConfig, seed: int, progress: Progress | None = None
) -> Patch:
    """The module, of the model as it is now, trained for as many steps as a pair.

    Args:
        forget: what the revealed instructions drew out. retain: what must not change.
    """
    own = replace(config, learning_rate=RATE * config.learning_rate, keep={"nll": RETAINED} | config.keep)
    steps = config.steps_of_a_pair
    return train_pem(lm, (), own, steps=steps, seed=seed, anchors=retain, unlearnt=forget, unlearning=likelihood, progress=progress)


def likelihood(log_probs: Tensor, targets: Tensor) -> Tensor:
    """Mean log-probability of the targets, which has no lower bound: (N, V) log-probabilities and (N,) ids to a scalar."""
    return -F.nll_loss(log_probs, targets)
