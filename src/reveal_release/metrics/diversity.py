"""Diversity of a set of texts: how much alike they are to each other.

    self_bleu(texts)        # 1: every text is put together from others; 0: no two have a word in common
    distinct_n(texts, 2)    # of metrics.fluency: the share of n-grams that are new

Both are about words, not meaning, and both move with the length of the texts: compare at equal length limits.
"""

from collections.abc import Sequence

from .fluency import groups
from .statistics import Estimate
from .words import words


def self_bleu(texts: Sequence[str], group: int = 25, seed: int = 0) -> Estimate:
    """Mean BLEU-4 of each text with the others as its references (Zhu et al. 2018, Texygen, arXiv 1802.01886). Lower is more diverse.

    Words are lower-cased and parted by white space; an n-gram order without a match counts as 0.1 matches (Chen and Cherry 2014, method 1),
    so a text of fewer than four words scores low whatever it is. As BLEU rises with the number of references, it is computed within
    groups of a fixed number of texts, drawn as those of `distinct_n`; n of the estimate counts groups, and the interval is Student's t
    over them.

    Raises:
        UserError: fewer than `group` texts, or a group below 2.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu  # slow to import

    smoothing = SmoothingFunction().method1
    split = [words(text.lower()) for text in texts]
    means = []
    for rows in groups(len(texts), group, seed, least=2):
        own = [split[i] for i in rows]
        scores = [sentence_bleu(own[:i] + own[i + 1 :], own[i], smoothing_function=smoothing) for i in range(group)]
        means.append(sum(scores) / group)
    return Estimate.mean(means)
