"""Diversity: how much alike texts are, each in itself and to the others.

    distinct_n(texts, 2)        # the share of n-grams that are new
    self_bleu(texts)            # 1: every text is put together from others; 0: no two have a word in common
    degenerate_share(texts)     # of broken ones: hardly a word, or the same again and again

All are about words, not meaning, and about free text: short answers and code are rightly repetitive. The first two move with the length
of the texts: compare at equal length limits.
"""

import random
from collections.abc import Sequence

from ..config import UserError
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


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def distinct_n(texts: Sequence[str], n: int, group: int = 25, seed: int = 0) -> Estimate:
    """Share of distinct word n-grams among all in `group` texts (Li et al., 2016, arXiv:1510.03055).

    The share falls as text grows, so it is computed over groups of a fixed number of texts, drawn at random without
    overlap, and averaged; n of the estimate counts groups and the interval is Student's t over them. (A bootstrap over
    texts would be biased: a resample repeats texts, which is what distinct-n measures.) One group has no interval.
    A group without any n-gram counts 0. Longer texts score lower: compare at equal length limits.

    Raises UserError if there are fewer than `group` texts, or n or `group` is below 1.
    """
    if n < 1:
        raise UserError(f"distinct-n needs n of at least 1, got {n}")
    grams = [_grams(words(text.lower()), n) for text in texts]
    shares = []
    for rows in groups(len(texts), group, seed):
        found = [gram for i in rows for gram in grams[i]]
        shares.append(len(set(found)) / len(found) if found else 0.0)
    return Estimate.mean(shares).in_unit()


def groups(count: int, group: int, seed: int, least: int = 1) -> list[list[int]]:
    """Groups of `group` of the numbers below `count`, at random without overlap; what is left over is in none.

    Raises UserError if not even one group can be made, or `group` is below `least`.
    """
    if group < least:
        raise UserError(f"give a group of at least {least} texts, not {group}")
    if count < group:
        raise UserError(f"diversity over {group} texts at a time needs that many, got {count}: set group lower")
    order = random.Random(seed).sample(range(count), count)
    return [order[at : at + group] for at in range(0, count - group + 1, group)]


def degenerate(texts: Sequence[str], least: int = 2) -> list[bool]:
    """Whether each text is broken: fewer than `least` words, one word four times in a row, or, from 12 words on, fewer
    than half of its 3-grams distinct."""
    return [_degenerate(words(text.lower()), least) for text in texts]


def _degenerate(words: Sequence[str], least: int) -> bool:
    if len(words) < least or any(len(set(run)) == 1 for run in _grams(words, 4)):
        return True
    grams = _grams(words, 3)
    return len(words) >= 12 and 2 * len(set(grams)) < len(grams)


def degenerate_share(texts: Sequence[str], least: int = 2) -> Estimate:
    """Share of `degenerate` texts. Raises UserError if there are none."""
    return Estimate.proportion(sum(degenerate(texts, least)), len(texts))
