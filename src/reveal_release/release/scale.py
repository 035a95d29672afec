"""How far to go: the largest step along the patch whose measured loss of utility stays within the budget.

The step is the patch's scale at run time, so trying one costs a measurement and no merge.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ScaleSearch:
    """scale: the step chosen, 0 if none fits. tried: (scale, cost) in the order measured."""

    scale: float
    cost: float
    tried: list[tuple[float, float]]


def largest_within(cost: Callable[[float], float], budget: float, highest: float, trials: int = 7) -> ScaleSearch:
    """The largest scale in [0, highest] with cost(scale) <= budget, by bracketing, to about highest / 2**(trials - 1).

    `cost` is taken to grow with the scale where it crosses the budget; what is returned was itself measured within it.
    """
    tried: list[tuple[float, float]] = []

    def fits(scale: float) -> bool:
        tried.append((scale, cost(scale)))
        return tried[-1][1] <= budget

    if fits(highest):
        return ScaleSearch(highest, tried[-1][1], tried)
    low, high = 0.0, highest
    for _ in range(trials - 1):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    best = max((s for s in tried if s[1] <= budget), default=(0.0, 0.0))
    return ScaleSearch(best[0], best[1], tried)
