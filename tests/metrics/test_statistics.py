"""Intervals against published values and against scipy."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from reveal_release.config import UserError
from reveal_release.metrics.statistics import Estimate


@pytest.mark.parametrize(
    "successes, n, low, high",
    [
        # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_matches_newcombe(successes, n, low, high):
    found = Estimate.proportion(successes, n)
    assert found.value == successes / n and found.n == n
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


@pytest.mark.parametrize("successes", [0, 3, 10])
def test_wilson_bounds_are_where_the_score_test_just_accepts(successes):
    """Its definition: shares p for which the observed one is no farther from p than 1.96 of p's own standard errors."""
    found = Estimate.proportion(successes, 10)
    assert 0 <= found.low <= found.value <= found.high <= 1
    for bound in (found.low, found.high):
        if 0 < bound < 1:
            assert abs(found.value - bound) == pytest.approx(stats.norm.ppf(0.975) * math.sqrt(bound * (1 - bound) / 10))


def test_what_numpy_counted_can_be_written():
    right = np.array([True, False, True])
    kept = json.loads(json.dumps(Estimate.proportion(right.sum(), np.int64(3)).to_dict()))
    assert Estimate.proportion(right.astype(float).sum(), 3) == Estimate.proportion(2, 3)
    assert kept == Estimate.proportion(2, 3).to_dict() and type(kept["n"]) is int
    assert json.dumps(Estimate(np.float32(0.5), 3, np.float32(0.25), np.float32(1)).to_dict())


@pytest.mark.parametrize("successes, n", [(0, 0), (3, 2), (-1, 5), (1.5, 5)])
def test_impossible_proportions_are_user_errors(successes, n):
    with pytest.raises(UserError, match="successes"):
        Estimate.proportion(successes, n)


def test_mean_is_the_t_interval():
    values = np.random.default_rng(0).normal(size=17)
    low, high = stats.t.interval(0.95, 16, loc=values.mean(), scale=values.std(ddof=1) / math.sqrt(17))
    found = Estimate.mean(values)
    assert (found.value, found.n) == (pytest.approx(values.mean()), 17)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_mean_of_one_value_has_no_interval():
    found = Estimate.mean([0.3])
    assert found.value == 0.3 and math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize("values, word", [([], "no values"), ([1.0, math.nan], "finite")])
def test_mean_refuses_nothing_and_nan(values, word):
    with pytest.raises(UserError, match=word):
        Estimate.mean(values)


def test_bootstrap_agrees_with_t_and_is_deterministic():
    values = np.random.default_rng(1).normal(size=400)
    found, again = (Estimate.bootstrap(values, np.mean) for _ in range(2))
    exact = Estimate.mean(values)
    assert found == again
    assert found.value == exact.value
    assert found.low == pytest.approx(exact.low, abs=0.02)
    assert found.high == pytest.approx(exact.high, abs=0.02)
    assert Estimate.bootstrap(values, np.mean, seed=1) != found


def test_bootstrap_of_one_row_has_no_interval():
    found = Estimate.bootstrap([[0.2, 0.4]], np.mean)
    assert found.value == pytest.approx(0.3) and found.n == 1 and math.isnan(found.low) and math.isnan(found.high)
    assert math.isnan(found.in_unit().low)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(2)
    samples = generator.exponential(size=(200, 60))
    intervals = [Estimate.bootstrap(sample, np.mean, resamples=300) for sample in samples]
    assert 0.88 <= np.mean([one.low <= 1 <= one.high for one in intervals]) <= 0.99


def test_bootstrap_keeps_rows_together():
    rows = np.column_stack([np.arange(50.0), 2 * np.arange(50.0)])
    found = Estimate.bootstrap(rows, lambda x: float((x[:, 1] / np.maximum(x[:, 0], 1)).max()))
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)
    assert found.n == 50


def test_bootstrap_passes_over_resamples_without_a_value():
    values = np.array([0.0, 0.0, 0.0, 1.0])  # about a third of the resamples hold no 1
    found = Estimate.bootstrap(values, lambda x: float(x.sum()) if x.any() else math.nan)
    assert found.low >= 1.0 and found.high <= 4.0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_rows_that_all_agree_are_no_certainty(value):
    """Student's t and the bootstrap have no interval there; n trials without a success have Wilson's."""
    rows = np.full((40, 4), value)
    for estimate in (Estimate.mean(rows[:, 0]), Estimate.bootstrap(rows, np.mean)):
        assert (estimate.low, estimate.high) == (value, value)
        assert estimate.in_unit() == Estimate.proportion(40 * int(value), 40)
    few, wilson = Estimate.bootstrap(rows, np.mean).in_unit(10), Estimate.proportion(10 * int(value), 10)
    assert (few.n, few.low, few.high) == (40, wilson.low, wilson.high)


@pytest.mark.parametrize("value", [0.25, 0.1])
def test_scores_that_are_all_the_same_are_no_certainty_either(value):
    """The share of others is within Wilson's interval of 0 in n, and they are 0 or 1 at worst."""
    others = Estimate.proportion(0, 30).high
    for estimate in (Estimate.mean([value] * 30), Estimate.bootstrap(np.full(30, value), np.mean)):
        found = estimate.in_unit()
        assert found.value == pytest.approx(value) and found.n == 30
        assert (found.low, found.high) == pytest.approx((value * (1 - others), value * (1 - others) + others))


def test_an_interval_of_scores_stays_among_scores():
    near = Estimate.mean([0.0, 0.0, 0.0, 0.9])
    assert near.low < 0 and near.in_unit() == Estimate(near.value, 4, 0.0, near.high)
    inner = Estimate.mean([0.4, 0.5, 0.6])
    assert inner.in_unit() == inner
    one = Estimate.mean([0.4]).in_unit()
    assert math.isnan(one.low) and math.isnan(one.high)


def test_to_dict():
    assert Estimate(0.5, 2, 0.1, 0.9).to_dict() == {"value": 0.5, "n": 2, "low": 0.1, "high": 0.9}


def test_an_estimate_is_written_with_its_interval_if_it_has_one():
    assert f"{Estimate(0.5, 4, 0.25, 0.75)}" == "0.500 [0.250, 0.750] (n=4)"
    assert f"{Estimate(0.5, 4, 0.25, 0.75):+.3f}" == "+0.500 [+0.250, +0.750]"
    assert f"{Estimate.mean([0.5]):.2f}" == "0.50"
