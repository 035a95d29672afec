"""What a step costs: the rise of perplexity of prose and of the model's own records, which the budget is spent on.

    utility = Utility.of(lm, records, texts)      # the model as it is
    utility.loss()                                # with a patch on: 0.02 is 2 %
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..config import Unfit
from ..metrics.fluency import Perplexity, perplexity
from ..models import LanguageModel
from .rows import Row, answer_log_probs, parts


@torch.no_grad()
def mean_nll(lm: LanguageModel, rows: Sequence[Row], batch: int = 32) -> float:
    """Mean negative log-likelihood of the answer tokens."""
    total, count = 0.0, 0
    for start in range(0, len(rows), batch):
        for part in parts(rows[start : start + batch]):
            log_probs, targets = answer_log_probs(lm.model, part, lm.tokenizer.pad_token_id)
            total -= log_probs.gather(1, targets[:, None]).sum().item()
            count += len(targets)
    return total / count


@dataclass(frozen=True)
class Utility:
    """What the budget is measured on: validation prose, and self-generated retain records that no module is trained on.

    The records cover what the model does, prose what it knows. The records were sampled from the model itself, so that every change,
    a good one too, makes them less likely: their loss counts half.
    """

    lm: LanguageModel
    records: Sequence[Row]
    texts: Sequence[str]
    prose: Perplexity
    nll: float

    @classmethod
    def of(cls, lm: LanguageModel, records: Sequence[Row], texts: Sequence[str]) -> "Utility":
        """The reference: the model as it is now, on these records and texts. Raises Unfit without records."""
        if not records:
            raise Unfit("too few retain records to hold some back: raise release.retain_records or reveal.threshold")
        return cls(lm, records, texts, perplexity(lm.model, lm.tokenizer, texts), mean_nll(lm, records))

    def loss(self) -> float:
        """Of the model as it is now; infinite where what it predicts are no numbers."""
        nll = mean_nll(self.lm, self.records)
        if not math.isfinite(nll):
            return math.inf
        prose = perplexity(self.lm.model, self.lm.tokenizer, self.texts)
        return self.lost(replace(self, prose=prose, nll=nll)) if np.isfinite(prose.nll).all() else math.inf

    def lost(self, now: "Utility") -> float:
        """Relative rise of perplexity since the reference, of prose, or half of that of the records if it is larger: 0.02 is 2 %."""
        prose = now.prose.per_token.value / self.prose.per_token.value - 1.0
        return max(prose, (math.exp(min(now.nll - self.nll, 100.0)) - 1.0) / 2)  # a broken model must not overflow
