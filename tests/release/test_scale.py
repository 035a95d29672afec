"""The step's length: within the budget as measured, and as long as bracketing can tell."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reveal_release.release.scale import largest_within, smallest_reaching


@given(crossing=st.floats(0.05, 3.0), power=st.floats(0.1, 100.0), budget=st.floats(0.001, 1.0), highest=st.floats(0.5, 3.0))
@example(crossing=0.25, power=3.794921875, budget=1.0, highest=2.5)  # as interpolation goes, 13 trials
def test_monotone_costs_against_the_solution(crossing: float, power: float, budget: float, highest: float) -> None:
    """The cost rises through the budget at `crossing`: the result is at most that, and within the tolerance of it."""

    def cost(scale: float) -> float:
        return budget * (scale / crossing) ** power

    found = largest_within(cost, budget, highest, tolerance=0.05)
    best = min(crossing, highest)
    assert 0.95 * best <= found.scale * (1 + 1e-9) and found.scale <= best * (1 + 1e-9)
    assert found.cost == cost(found.scale) <= budget
    assert len(found.tried) <= 12 and all(c == cost(s) for s, c in found.tried)


@pytest.mark.parametrize("crossing", [0.4, 1.0, 2.5, 3.8])
def test_a_square_law_takes_few_trials(crossing: float) -> None:
    """What bracketing by halves needs seven measurements for."""
    found = largest_within(lambda s: 0.02 * (s / crossing) ** 2, 0.02, 4.0)
    assert len(found.tried) <= 5 and found.scale >= 0.94 * crossing


@given(st.dictionaries(st.integers(0, 64), st.floats(-1, 1)), st.floats(-0.5, 0.5))
def test_never_over_the_budget_whatever_the_cost(table: dict[int, float], budget: float) -> None:
    found = largest_within(lambda s: table.get(round(s * 32), 0.3), budget, 2.0)
    if found.scale:
        assert found.cost <= budget and (found.scale, found.cost) in found.tried
        assert found.scale == max(s for s, c in found.tried if c <= budget)
    else:
        assert all(c > budget for _, c in found.tried)


def test_the_highest_is_taken_at_once_when_it_fits() -> None:
    found = largest_within(lambda s: 0.01 * s, 0.02, 2.0)
    assert (found.scale, found.cost, found.tried) == (2.0, 0.02, [(2.0, 0.02)])


def test_zero_when_nothing_fits() -> None:
    found = largest_within(lambda s: 1.0, 0.5, 2.0)
    assert (found.scale, found.cost) == (0.0, 0.0)
    assert found.tried[-1][0] <= 2.0 / 64 and len(found.tried) <= 12
    assert largest_within(lambda s: math.inf, 0.5, 2.0).scale == 0.0
    already = largest_within(lambda s: 0.3 + s, 0.2, 2.0, spent=0.3)  # by an earlier step
    assert (already.scale, already.cost) == (0.0, 0.3)


@pytest.mark.parametrize("target", [0.9, 0.5, 0.1, 0.02])
def test_the_smallest_that_reaches_a_target_is_that_of_a_grid(target: float) -> None:
    found = smallest_reaching(lambda scale: math.exp(-scale), target, 12.0)
    mildest = next(scale for i in range(1, 120_001) if math.exp(-(scale := i / 10_000)) <= target)
    assert mildest <= found.scale <= 1.04 * mildest + 1e-4 and found.cost == math.exp(-found.scale) <= target
    assert len(found.tried) <= 12 and max(scale for scale, _ in found.tried) <= max(2 * mildest, 0.75)


def test_a_target_that_is_reached_nowhere_or_everywhere() -> None:
    nowhere = smallest_reaching(lambda scale: 1.0, 0.5, 10.0)
    assert nowhere.scale == 0.0 and nowhere.cost == math.inf and [scale for scale, _ in nowhere.tried] == [0.625, 1.25, 2.5, 5.0, 10.0]
    everywhere = smallest_reaching(lambda scale: 0.0, 0.5, 10.0)
    assert 0 < everywhere.scale < 1e-3 and len(everywhere.tried) == 16
