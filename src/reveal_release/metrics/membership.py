"""Membership inference: can one tell from a model's likelihoods which texts it was trained on?

    membership(members, others)["min_k"]    # of (text, log-probabilities of its tokens) each; AUC with its interval: 0.5 is chance

Of a model that has forgotten the members the AUC should be that of one that was never trained on them: about 0.5 where the two sets are
alike but for that. Below 0.5 forgetting shows too, as text less likely than it ought to be.

Scores, higher for a member, of a text's token log-probabilities:

    loss    mean log p (Yeom et al. 2018, arXiv 1709.01604)
    min_k   mean of the lowest fifth of log p (Min-K%, Shi et al. 2024, arXiv 2310.16789)
    zlib    mean log p / bytes of the text compressed by zlib (Carlini et al. 2021, arXiv 2012.07805)

Not promised: that sets which differ in other ways (topic, date, length) are told apart by membership; the scores see those as well.
"""

import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from ..config import UserError
from .statistics import Estimate

LOWEST = 0.2
"""The share K of Min-K%, as in the paper's main results."""


Scored = tuple[str, np.ndarray]
"""A text and the log-probabilities (tokens,) that the model gives its tokens."""


def membership(members: Sequence[Scored], others: Sequence[Sequence[Scored]]) -> dict[str, Estimate]:
    """The AUC of each score between texts that a model may have been trained on and texts that it was not.

    The interval of an AUC of 0 or 1 is Wilson's, for the bootstrap has none (`Estimate.in_unit`).

    Args:
        members: (n,). others: (n, k), those that go with each member (wrong answers to its question): they are resampled with it.

    Raises:
        UserError: a text has no token, or there are none.
    """
    if not members or not all(others):
        raise UserError(f"membership needs texts of both kinds, got {len(members)} members and {sum(map(len, others))} others")
    rows = [(one, *with_it) for one, with_it in zip(members, others, strict=True)]
    if not all(len(log_probs) for row in rows for _, log_probs in row):
        raise UserError("membership needs texts with at least one token each")

    def told(score: Callable[[str, np.ndarray], float]) -> Estimate:
        scores = np.array([[score(*text) for text in row] for row in rows])
        return Estimate.bootstrap(scores, lambda drawn: mann_whitney(drawn[:, 0], drawn[:, 1:].ravel())).in_unit()

    return {
        "loss": told(lambda _, log_probs: loss(log_probs)),
        "min_k": told(lambda _, log_probs: min_k(log_probs)),
        "zlib": told(lambda text, log_probs: zlib_ratio(log_probs, text)),
    }


def loss(log_probs: ArrayLike) -> float:
    """Mean log-probability of a text's tokens, (tokens,)."""
    return float(np.asarray(log_probs, dtype=float).mean())


def min_k(log_probs: ArrayLike, share: float = LOWEST) -> float:
    """Mean of the lowest `share` of the log-probabilities, of one at least."""
    lowest = np.sort(np.asarray(log_probs, dtype=float))
    return float(lowest[: max(1, int(share * len(lowest)))].mean())


def zlib_ratio(log_probs: ArrayLike, text: str) -> float:
    """Mean log-probability over the size in bytes of the compressed text."""
    return loss(log_probs) / len(zlib.compress(text.encode("utf-8", "replace")))


def auc(scores: ArrayLike, labels: ArrayLike) -> Estimate:
    """Chance that a member scores above a non-member, ties counting half; with a bootstrap interval over the texts of both sides.

    Args:
        scores: (n,). labels: (n,), true for a member.
    """
    rows = np.column_stack([np.asarray(scores, dtype=float), np.asarray(labels, dtype=float)])
    return Estimate.bootstrap(rows, lambda drawn: mann_whitney(drawn[drawn[:, 1] > 0, 0], drawn[drawn[:, 1] <= 0, 0])).in_unit()


def mann_whitney(members: np.ndarray, others: np.ndarray) -> float:
    """The AUC of scores (m,) of members and (n,) of others, by the Mann-Whitney U statistic; NaN without both kinds."""
    m, n = len(members), len(others)
    ranks = rankdata(np.concatenate([members, others]))[:m]
    return float((ranks.sum() - m * (m + 1) / 2) / (m * n)) if m and n else float("nan")
