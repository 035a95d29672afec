"""Membership inference: can one tell from a model's likelihoods which texts it was trained on?

    membership(lm, members, others)["min_k"]          # AUC with its interval: 0.5 is chance, 1 certain

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
from ..models import LanguageModel
from .likelihood import token_log_probs
from .statistics import Estimate

LOWEST = 0.2
"""The share K of Min-K%, as in the paper's main results."""


def membership(lm: LanguageModel, members: Sequence[str], others: Sequence[str]) -> dict[str, Estimate]:
    """The AUC of each score between texts that the model may have been trained on and texts that it was not.

    Raises:
        UserError: a side has no text with at least one token to score.
    """
    kept: list[tuple[bool, str, np.ndarray]] = []
    for member, texts in ((True, members), (False, others)):
        rows = zip(texts, text_log_probs(lm, texts), strict=True)
        kept += (side := [(member, text, row) for text, row in rows if len(row)])
        if not side:
            raise UserError(f"membership needs texts of {'members' if member else 'non-members'}: none has a token to score")
    labels = [member for member, _, _ in kept]
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


def text_log_probs(lm: LanguageModel, texts: Sequence[str], longest: int = 512, batch_size: int = 16) -> list[np.ndarray]:
    """The log-probability of each token of each text given those before it, (tokens,) each.

    A text is read after BOS; without one its first token is not scored. Longer texts are cut at `longest` tokens, or at the model's
    context length where that is less.
    """
    bos = lm.tokenizer.bos_token_id
    limit = min(longest, lm.context or longest)
    rows = []
    for text in texts:
        ids = list(lm.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        rows.append(((([] if bos is None else [bos]) + ids)[:limit], 1))
    return token_log_probs(lm, rows, batch_size)
