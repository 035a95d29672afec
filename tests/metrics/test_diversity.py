"""Self-BLEU against BLEU written out; distinct n-grams and broken texts by hand."""

import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reveal_release.config import UserError
from reveal_release.metrics.diversity import degenerate, degenerate_share, distinct_n, self_bleu

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


@settings(max_examples=40)
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


def test_distinct_n_by_hand():
    texts = ["a b a b", "A b c"]
    assert distinct_n(texts, 1, group=2).value == pytest.approx(3 / 7)
    assert distinct_n(texts, 2, group=2).value == pytest.approx(3 / 5)  # ab ba ab, ab bc
    assert math.isnan(distinct_n(texts, 2, group=2).low)
    each = distinct_n(texts, 2, group=1)
    assert (each.value, each.n) == (pytest.approx((2 / 3 + 1) / 2), 2)
    assert distinct_n(["", "a"], 2, group=2).value == 0


def test_distinct_n_does_not_depend_on_the_number_of_texts():
    draw = random.Random(0)
    texts = [" ".join(draw.choice("abcdefghijklmnop") for _ in range(20)) for _ in range(800)]
    few, many = distinct_n(texts[:200], 2), distinct_n(texts, 2)
    assert (few.n, many.n) == (8, 32)
    assert few.value == pytest.approx(many.value, abs=0.02)
    assert many.high - many.low < few.high - few.low
    assert len({gram for text in texts for gram in zip(text[::2], text[2::2], strict=False)}) / (800 * 19) < many.value / 5
    assert distinct_n(texts, 2, seed=1) != many and distinct_n(texts, 2) == many


def test_distinct_n_needs_a_group():
    with pytest.raises(UserError, match="over 25 texts at a time"):
        distinct_n(["a b"] * 24, 2)
    with pytest.raises(UserError, match="at least 1"):
        distinct_n(["a b"] * 25, 0)


@pytest.mark.parametrize(
    "text, broken",
    [
        ("", True),
        (" \n", True),
        ("word", True),
        ("two words", False),
        ("very very very good", False),
        ("Very very very very good", True),
        ("a b c " * 3, False),  # 9 words: too few to judge by 3-grams
        ("a b c " * 4, True),  # 12 words: 3 of 10 distinct
        ("a b c d e f " * 2, False),  # 12 words: 6 of 10
        ("a b c d e a b c d e a b", False),  # 5 of 10: half is not fewer than half
        ("one two three four five six seven eight nine ten eleven twelve", False),
    ],
)
def test_degenerate(text, broken):
    assert degenerate([text]) == [broken]


def test_a_word_may_be_enough():
    assert degenerate(["Yes.", "", "好", "你好"], least=1) == [False, True, False, False] and degenerate(["好", "你好"]) == [True, False]


@given(st.lists(st.text(), min_size=1))
def test_share_is_the_mean_of_the_flags(texts):
    assert degenerate_share(texts).value == pytest.approx(np.mean(degenerate(texts)))


def test_no_texts_is_a_user_error():
    with pytest.raises(UserError):
        degenerate_share([])
