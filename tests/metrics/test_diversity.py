"""Self-BLEU against BLEU written out, and where it has to lie."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reveal_release.config import UserError
from reveal_release.metrics.diversity import self_bleu

TEXTS = st.lists(st.lists(st.sampled_from("abcd"), max_size=8).map(" ".join), min_size=2, max_size=6)


def bleu(text: str, others: list[str]) -> float:
    """BLEU-4 (Papineni et al. 2002): clipped precisions, their geometric mean, the brevity penalty; no match counts as 0.1 matches."""
    words, references = text.split(), [other.split() for other in others]
    precisions = []
    for n in range(1, 5):
        own, *theirs = (Counter(tuple(row[i : i + n]) for i in range(len(row) - n + 1)) for row in (words, *references))
        matches = sum(min(count, max(counts[gram] for counts in theirs)) for gram, count in own.items())
        if n == 1 and not matches:
            return 0.0
        precisions.append((matches or 0.1) / max(1, own.total()))
    closest = min((abs(len(row) - len(words)), len(row)) for row in references)[1]
    penalty = 1.0 if len(words) > closest else math.exp(1 - closest / len(words))
    return penalty * math.exp(sum(math.log(p) for p in precisions) / 4)


@settings(max_examples=40, deadline=None)
@given(TEXTS)
def test_one_group_is_bleu_of_each_against_the_others(texts: list[str]) -> None:
    found = self_bleu(texts, group=len(texts))
    expected = [bleu(text, texts[:i] + texts[i + 1 :]) for i, text in enumerate(texts)]
    assert found.value == pytest.approx(sum(expected) / len(texts)) and found.n == 1 and math.isnan(found.low)


def test_copies_are_1_and_strangers_0() -> None:
    assert self_bleu(["The river ran by the old town."] * 10, group=5).value == pytest.approx(1)
    assert self_bleu([f"a{i} b{i} c{i} d{i} e{i}" for i in range(10)], group=5).value == 0
    assert self_bleu(["A B c d", "a b C D"], group=2).value == pytest.approx(1), "in lower case"


def test_it_does_not_depend_on_the_number_of_texts() -> None:
    rng = random.Random(0)
    texts = [" ".join(rng.choices("the old river ran by a town".split(), k=8)) for _ in range(200)]
    few, many = self_bleu(texts[:60], group=10), self_bleu(texts, group=10)
    assert (few.n, many.n) == (6, 20) and many.low < few.value < many.high
    assert self_bleu(texts, group=10) == many and self_bleu(texts, group=10, seed=1) != many
    assert self_bleu(texts[:60], group=60).value > few.value, "more references, more matches"


def test_too_few_texts_are_refused() -> None:
    with pytest.raises(UserError, match="needs that many, got 24"):
        self_bleu(["a b"] * 24)
    with pytest.raises(UserError, match="at least 2"):
        self_bleu(["a b"] * 24, group=1)
