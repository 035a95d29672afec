"""Where answers end: that the model does not fall silent in place of the behaviour.

What is broken in a model released from toxicity is mostly answers of a single word. Harmless answers teach where to end with what to
say, and a step that goes several times as far as the module was trained multiplies whatever that changes. Where they end is therefore
not learnt (`train_pem`), and the chance that the answer ends is held, at each of their tokens. What else is said there is left free.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..rows import Row
from .line import AlongTheLine


class Ending(AlongTheLine):
    """Half a batch of learnt rows a step: the mean over their tokens of KL between the two Bernoulli distributions of ending there."""

    def rows(self) -> tuple[Sequence[Row], int]:
        t = self.training
        return (t.learnt if t.ends else ()), max(1, t.config.batch // 2)

    def distance(self, found: Tensor, wanted: Tensor) -> Tensor:
        (end, on), (wanted_end, wanted_on) = (_ends_or_goes_on(x, self.training.ends) for x in (found, wanted))
        return (wanted_end.exp() * (wanted_end - end) + wanted_on.exp() * (wanted_on - on)).mean()


def _ends_or_goes_on(log_probs: Tensor, ends: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(N,) log-probabilities that the next token is one of `ends`, and that it is none: of (N, V)."""
    at = torch.tensor(ends, device=log_probs.device)
    return log_probs[:, at].logsumexp(1), log_probs.index_fill(1, at, -torch.inf).logsumexp(1)
