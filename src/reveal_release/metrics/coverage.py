"""How one set of texts compares with another: can they be told apart, and does the one cover the other?

    separability(real, generated)             # ROC AUC of a classifier: 0.5 alike, 1 told apart without a mistake
    density, covered = density_and_coverage(real, generated)

A low separability with a high coverage says that the generated set is like the real one; a high separability says only that there is some
difference, be it of style alone. All three depend on the sizes of the sets: compare with one half of the real set against the other
half, at the same sizes. Words are seen, not meaning.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from ..config import UserError
from .membership import auc
from .statistics import Estimate

TOKEN = r"\w+|[^\w\s]"
FOLDS = 5
ROUNDING = 1e-9


def separability(one: Sequence[str], other: Sequence[str], seed: int = 0) -> Estimate:
    """ROC AUC, cross-validated, of a classifier that parts two sets of texts (Lopez-Paz and Oquab 2017, arXiv 1610.06545).

    Logistic regression on hashed 1-2-grams of words and signs; the AUC is over the scores of all folds, with a bootstrap interval over
    texts that leaves out how much the classifiers themselves would vary. Equal texts are in one fold: a text of both sets would
    otherwise be learnt under one label and tested under the other, which gives less than 0.5. With a few dozen texts
    alike sets still come out a little below 0.5, as held-out texts are missing from their own side of the training.

    Raises:
        UserError: a set has fewer different texts than there are folds.
    """
    if (least := min(len(set(one)), len(set(other)))) < FOLDS:
        raise UserError(f"telling two sets of texts apart needs {FOLDS} different ones in each, got {least}")
    texts = [*one, *other]
    labels = np.array([1] * len(one) + [0] * len(other))
    number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    features = HashingVectorizer(n_features=2**16, ngram_range=(1, 2), token_pattern=TOKEN).transform(texts)
    scores = cross_val_predict(
        LogisticRegression(class_weight="balanced", max_iter=1000),
        features,
        labels,
        groups=[number[text] for text in texts],
        cv=StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed),
        method="decision_function",
    )
    return auc(scores, labels)


def density_and_coverage(real: Sequence[str], generated: Sequence[str], k: int = 5) -> tuple[Estimate, Estimate]:
    """Density and coverage of Naeem et al. 2020 (arXiv 2002.09797, equations 3 and 4) in TF-IDF space, by cosine distance.

    A real text's ball reaches to its k-th nearest real neighbour. Coverage is the share of real texts with a generated one in their ball;
    of two large sets of one size and source it is about 1 - 2^-k. Density is how many balls a generated text is in, over k: about 1 for
    such sets, and more where generated texts crowd in where real ones are dense. What is on a ball's edge is not in it, as in the authors'
    code, so a text that shares no word with another is near to none, and a real text with k copies of itself is covered by none.

    Returns:
        Density, with Student's t interval over the generated texts, and coverage, with Wilson's over the real ones. Both take the other
        set as it is: another draw of the two may differ by more.

    Raises:
        UserError: no more than k real texts, or no generated one.
    """
    if len(real) <= k or not generated:
        raise UserError(f"coverage with k = {k} needs more than {k} real texts and a generated one, got {len(real)} and {len(generated)}")
    features = TfidfVectorizer(token_pattern=TOKEN).fit_transform([*real, *generated])  # rows of norm 1
    ours, theirs = features[: len(real)], features[len(real) :]
    among = 1 - (ours @ ours.T).toarray()
    np.fill_diagonal(among, np.inf)
    radii = np.partition(among, k - 1, axis=1)[:, k - 1]
    inside = 1 - (ours @ theirs.T).toarray() < radii[:, None] - ROUNDING  # (real, generated)
    return Estimate.mean(inside.sum(0) / k), Estimate.proportion(int(inside.any(1).sum()), len(real))
