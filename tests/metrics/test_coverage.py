"""Density and coverage against TF-IDF and balls written out; the classifier on sets whose answer is known."""

import math
import random
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reveal_release.config import UserError
from reveal_release.metrics.coverage import density_and_coverage, separability
from reveal_release.metrics.statistics import Estimate

WORDS = "the old river ran by a quiet town and they sang of rain all night".split()
TEXT = st.lists(st.sampled_from("abcde!"), min_size=1, max_size=6).map(" ".join)


def drawn(count: int, seed: int, words: list[str] = WORDS, length: int = 7) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=length)) for _ in range(count)]


def distances(texts: list[str]) -> list[list[float]]:
    """1 - cosine of counts times ln((1 + n) / (1 + df)) + 1."""
    counts = [Counter(re.findall(r"\w+|[^\w\s]", text.lower())) for text in texts]
    df = Counter(word for row in counts for word in row)
    rows = [{word: c * (math.log((1 + len(texts)) / (1 + df[word])) + 1) for word, c in row.items()} for row in counts]
    norms = [math.sqrt(sum(v * v for v in row.values())) for row in rows]
    return [
        [1 - sum(v * b.get(word, 0.0) for word, v in a.items()) / (m * n) for b, n in zip(rows, norms, strict=True)]
        for a, m in zip(rows, norms, strict=True)
    ]


@settings(max_examples=40)
@given(st.lists(TEXT, min_size=4, max_size=12), st.lists(TEXT, min_size=1, max_size=8), st.integers(1, 3))
def test_density_and_coverage_by_brute_force(real: list[str], generated: list[str], k: int) -> None:
    table, n = distances([*real, *generated]), len(real)
    radii = [sorted(table[i][j] for j in range(n) if j != i)[k - 1] for i in range(n)]
    inside = [[table[i][n + j] < radii[i] - 1e-9 for j in range(len(generated))] for i in range(n)]
    density, covered = density_and_coverage(real, generated, k)
    assert covered == Estimate.proportion(sum(map(any, inside)), n)
    assert density.value == pytest.approx(sum(map(sum, inside)) / (k * len(generated))) and density.n == len(generated)


def test_two_sets_of_one_source_come_to_what_theory_says() -> None:
    """Naeem et al. 2020, lemma 2: of two sets of N a coverage of 1 - (N-1)...(N-k) / ((2N-1)...(2N-k)), and a density of 1."""
    words = [f"w{i}" for i in range(60)]
    found = [density_and_coverage(drawn(100, seed, words, 20), drawn(100, 100 + seed, words, 20), k=2) for seed in range(40)]
    density, covered = (Estimate.mean([one[i].value for one in found]) for i in (0, 1))
    assert covered.value == pytest.approx(1 - (99 * 98) / (199 * 198), abs=0.03) and covered.high - covered.low < 0.05
    assert density.low < 1 < density.high


def test_a_narrow_set_covers_little_and_a_foreign_one_nothing() -> None:
    real = drawn(100, 0)
    narrow = [real[0] + " rain"] * 100
    assert density_and_coverage(real, narrow)[1].value < 0.3 < density_and_coverage(real, drawn(100, 1))[1].value
    foreign = ["completely other words"] * 100
    assert [one.value for one in density_and_coverage(real, foreign)] == [0, 0]
    assert density_and_coverage(real, ["..."] * 3)[1].value == 0


def test_one_source_is_not_told_apart() -> None:
    found = separability(drawn(150, 0), drawn(150, 1))
    assert found.low < 0.5 < found.high and found.n == 300


def test_other_words_are_told_apart() -> None:
    found = separability(drawn(60, 0), drawn(60, 1, ["completely", "other", "words", "here"]))
    assert found.value == 1.0
    assert separability(drawn(60, 0), [text + " !" for text in drawn(60, 1)]).value > 0.9, "a sign is enough"


def test_order_of_words_is_seen() -> None:
    rows = [sorted(set(text.split())) for text in drawn(100, 0)]
    assert separability([" ".join(row) for row in rows[:50]], [" ".join(row[::-1]) for row in rows[50:]]).value > 0.9


def test_the_same_set_twice_is_one_half() -> None:
    """A text of both sets must not be learnt under the one label and tested under the other."""
    texts = drawn(80, 0)
    assert separability(texts, texts).value == pytest.approx(0.5)
    assert separability(texts, drawn(80, 1)) == separability(texts, drawn(80, 1)), "seeded"


def test_sets_of_unequal_size_are_no_less_alike() -> None:
    found = np.mean([separability(drawn(40, seed), drawn(160, 100 + seed)).value for seed in range(5)])
    assert found == pytest.approx(0.5, abs=0.08)


def test_too_few_texts_are_refused() -> None:
    with pytest.raises(UserError, match="5 different ones in each, got 1"):
        separability(["a b"] * 20, drawn(20, 0))
    with pytest.raises(UserError, match="more than 5 real texts"):
        density_and_coverage(drawn(5, 0), drawn(5, 1))
    with pytest.raises(UserError, match="got 9 and 0"):
        density_and_coverage(drawn(9, 0), [])
