"""TOFU's metrics of knowledge (Maini et al. 2024, arXiv:2401.06121, section 2.2), as its evaluation code computes them.

    p = probabilities(conversation_log_probs(lm, [((("user", question),), answer), ...]))      # also of paraphrased and perturbed answers
    ratio = truth_ratio(paraphrased, perturbed)                        # (n,), low where the truth is preferred
    uncertainty(ratio), correctness(ratio)                             # its two aggregates: of a forget set, and in model utility
    model_utility([retain, real_authors, world_facts])                 # harmonic mean of nine
    forget_quality(ratio, ratio_of_a_model_never_trained_on_it)        # p-value of a two-sample Kolmogorov-Smirnov test

The paper averages the probabilities of the perturbed answers; its code (github.com/locuslab/tofu, aggregate_eval_stat.py) averages their
losses, a geometric mean. Every published figure is of the code, and so are these. The paper's form is never lower.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import ks_2samp

from ..config import UserError
from .statistics import LEVEL, Estimate


def probabilities(log_probs: Sequence[np.ndarray]) -> np.ndarray:
    """P(a|q)^(1/|a|) of each answer, (n,) in [0, 1], from its tokens' log-probabilities (`likelihood.conversation_log_probs`).

    |a| counts the answer's tokens and the one that ends it, as TOFU's labels do.
    """
    return np.array([math.exp(row.mean()) for row in log_probs])


def rouge_l_recall(answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """(n,) ROUGE-L recall: the longest common subsequence of stemmed words over the reference's words (Lin 2004; `rouge-score`)."""
    from rouge_score.rouge_scorer import RougeScorer  # slow to import

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return np.array([scorer.score(reference, answer)["rougeL"].recall for answer, reference in zip(answers, references, strict=True)])


def truth_ratio(paraphrased: ArrayLike, perturbed: ArrayLike) -> np.ndarray:
    """R = (geometric mean of P(perturbed)) / P(paraphrased), both normalised by length: (n,) and (n, k) to (n,).

    About 1 in a model that does not know the answer, near 0 in one that does.
    """
    wrong = np.log(np.maximum(perturbed, np.finfo(float).tiny)).mean(axis=1)
    return np.exp(wrong - np.log(np.maximum(paraphrased, np.finfo(float).tiny)))


def uncertainty(ratio: np.ndarray) -> Estimate:
    """The truth ratio of a forget set: mean of min(R, 1/R), the higher the less the truth stands out (forget tables of TOFU)."""
    return Estimate.mean(np.minimum(ratio, 1 / ratio)).in_unit()


def correctness(ratio: np.ndarray) -> np.ndarray:
    """(n,) max(0, 1 - R): the truth ratio in model utility, the higher the better known."""
    return np.maximum(0.0, 1.0 - ratio)


def choice(right: ArrayLike, wrong: ArrayLike) -> np.ndarray:
    """(n,) P(a) / (P(a) + sum of P(wrong)): the probability in model utility where the question has options (real authors, facts)."""
    a = np.asarray(right)
    return a / (a + np.asarray(wrong).sum(axis=1))


def model_utility(files: Sequence[np.ndarray], seed: int = 0, resamples: int = 1000) -> Estimate:
    """Harmonic mean of the column means of all files, each (n_i, 3): probability, ROUGE-L and `correctness` of its rows.

    0 where one of the means is 0. The interval is of the percentile bootstrap, in which each file's rows are drawn from that file.
    """
    rng = np.random.default_rng(seed)
    drawn = [_harmonic([part[rng.integers(0, len(part), len(part))] for part in files]) for _ in range(resamples)]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(_harmonic(files), sum(map(len, files)), float(low), float(high))


def _harmonic(files: Sequence[np.ndarray]) -> float:
    means = np.concatenate([part.mean(axis=0) for part in files])
    return float(len(means) / (1 / means).sum()) if (means > 0).all() else 0.0


def forget_quality(ratio: ArrayLike, reference: ArrayLike) -> Estimate:
    """p-value of the two-sample Kolmogorov-Smirnov test between the truth ratios of two models on the same forget set.

    Args:
        reference: of the retain model, which never saw the set. Near 1: not to be told apart; below 0.05: told apart.

    A p-value has no interval: low and high are NaN. With few rows it is high for want of evidence.
    """
    a, b = np.asarray(ratio), np.asarray(reference)
    if len(a) != len(b):
        raise UserError(f"forget quality needs both models' truth ratios on the same rows, got {len(a)} and {len(b)}")
    return Estimate(float(ks_2samp(a, b).pvalue), len(a), math.nan, math.nan)
