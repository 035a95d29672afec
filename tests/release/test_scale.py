"""The step's length: within the budget as measured, and as long as bracketing can tell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.release.scale import largest_within

TRIALS = 7


@given(crossing=st.floats(0.01, 3.0), power=st.floats(0.5, 4.0), budget=st.floats(0.001, 1.0), highest=st.floats(0.5, 3.0))
def test_monotone_costs_against_a_grid(crossing: float, power: float, budget: float, highest: float) -> None:
    """The cost rises through the budget at `crossing`: the result is the grid's largest that fits, to one division."""

    def cost(scale: float) -> float:
        return budget * (scale / crossing) ** power

    found = largest_within(cost, budget, highest, TRIALS)
    divisions = 2 ** (TRIALS - 1)
    grid = [highest * i / divisions for i in range(1, divisions + 1)]
    best = max((s for s in grid if cost(s) <= budget), default=0.0)
    assert found.scale == pytest.approx(best)
    assert found.cost == (cost(found.scale) if found.scale else 0.0) <= budget
    assert len(found.tried) <= TRIALS and all(c == cost(s) for s, c in found.tried)


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
    found = largest_within(lambda s: 1.0, 0.5, 2.0, trials=4)
    assert (found.scale, found.cost) == (0.0, 0.0)
    assert [s for s, _ in found.tried] == [2.0, 1.0, 0.5, 0.25]
