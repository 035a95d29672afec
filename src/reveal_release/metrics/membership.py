"""Membership inference: can one tell from a model's likelihoods which texts it was trained on?

    membership(members, others)["min_k"]          # of (text, log-probabilities of its tokens); AUC with its interval: 0.5 is chance

Of a model that has forgotten the members the AUC should be that of one that was never trained on them: about 0.5 where the two sets are
alike but for that. Below 0.5 forgetting shows too, as text less likely than it ought to be.

Scores, higher for a member, of a text's token log-probabilities:

    loss    mean log p (Yeom et al. 2018, arXiv 1709.01604)
    min_k   mean of the lowest fifth of log p (Min-K%, Shi et al. 2024, arXiv 2310.16789)
    zlib    mean log p / bytes of the text compressed by zlib (Carlini et al. 2021, arXiv 2012.07805)

Not promised: that sets which differ in other ways (topic, date, length) are told apart by membership; the scores see those as well.
"""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from ..config import UserError
from .statistics import Estimate

LOWEST = 0.2
"""The share K of Min-K%, as in the paper's main results."""


def membership(members: Sequence[tuple[str, np.ndarray]], others: Sequence[tuple[str, np.ndarray]]) -> dict[str, Estimate]:
    """The AUC of each score between texts that a model may have been trained on and texts that it was not.

    Args:
        members, others: texts, and the log-probabilities (tokens,) that the model gives their tokens.

    Raises:
        UserError: a side has no text with at least one token.
    """
    kept = [(member, text, row) for member, side in ((True, members), (False, others)) for text, row in side if len(row)]
    labels = [member for member, _, _ in kept]
    for member, name in ((True, "members"), (False, "non-members")):
        if member not in labels:
            raise UserError(f"membership needs texts of {name}: none has a token to score")
    scores = {
        "loss": [loss(row) for _, _, row in kept],
        "min_k": [min_k(row) for _, _, row in kept],
        "zlib": [zlib_ratio(row, text) for _, text, row in kept],
    }
    return {name: auc(values, labels) for name, values in scores.items()}


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
    return Estimate.bootstrap(np.column_stack([np.asarray(scores, dtype=float), np.asarray(labels, dtype=float)]), _auc)


def _auc(rows: np.ndarray) -> float:
    """By the Mann-Whitney U statistic; NaN without both kinds."""
    member = rows[:, 1] > 0
    m, n = int(member.sum()), int((~member).sum())
    return float((rankdata(rows[:, 0])[member].sum() - m * (m + 1) / 2) / (m * n)) if m and n else float("nan")
