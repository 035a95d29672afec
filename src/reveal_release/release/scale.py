"""How far to go: the largest step along the patch whose measured loss of utility stays within the budget, or the smallest that forgets
as much as asked for.

The step is the patch's scale at run time, so trying one costs a measurement and no merge.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ScaleSearch:
    """scale: the step chosen, 0 if none fits. tried: (scale, cost) in the order measured. gone: no answer shows the behaviour there."""

    scale: float
    cost: float
    tried: list[tuple[float, float]]
    gone: bool = False


def largest_within(
    cost: Callable[[float], float], budget: float, highest: float, spent: float = 0.0, tolerance: float = 0.06, trials: int = 12
) -> ScaleSearch:
    """The largest scale in [0, highest] with cost(scale) <= budget, to `tolerance` relative, by bracketing.

    A cost that is flat at 0, as a perplexity is at its minimum, grows about as the square of the scale, so the next scale is where
    the line through the bracket's two square roots meets the budget's; where that did not halve the bracket, it is halved. Once no more
    trials are left than bisection of the scale's logarithm needs to reach the tolerance, that is done, whatever the cost is like.

    `cost` is taken to grow with the scale where it crosses the budget, from `spent` at scale 0; what is returned was itself measured
    within the budget, and is 0 where not even highest / 64 fits.
    """
    tried: list[tuple[float, float]] = []

    def measure(scale: float) -> float:
        tried.append((scale, cost(scale)))
        return tried[-1][1]

    low, high = 0.0, highest
    low_cost, high_cost = spent, measure(highest)
    if high_cost <= budget:
        return ScaleSearch(highest, high_cost, tried)
    halve = False
    lowest = highest / 64
    while high - low > tolerance * high and high > lowest and len(tried) < trials:
        width = high - low
        if len(tried) + _bisections(low, high, lowest, tolerance) >= trials:
            middle = math.sqrt(low * high) if low >= lowest else lowest
        else:
            middle = low + width * (0.5 if halve else _crossing(low_cost, high_cost, budget))
            # Not nearer to an end than the tolerance: the crossing may be just beyond that end, and is then bracketed at once.
            middle = min(max(middle, low * (1 + 0.9 * tolerance), 0.05 * high), high * (1 - 0.9 * tolerance))
        found = measure(middle)
        if found <= budget:
            low, low_cost = middle, found
        else:
            high, high_cost = middle, found
        halve = high - low > width / 2
    best = max((s for s in tried if s[1] <= budget), default=(0.0, spent))
    return ScaleSearch(best[0], best[1], tried)


def smallest_reaching(
    share: Callable[[float], float], target: float, highest: float, tolerance: float = 0.03, trials: int = 16
) -> ScaleSearch:
    """The smallest scale in (0, highest] with share(scale) <= target, to `tolerance` relative, by doubling and then bisection.

    Doubling starts at highest / 16: far beyond the crossing a model is broken, and slow to answer. The `cost` of what is returned is
    its share; where no scale tried reaches the target, the scale is 0 and its cost infinite.

    `share` is taken to fall with the scale where it crosses the target; one that rises again within a doubling is not seen.
    """
    tried: list[tuple[float, float]] = []

    def reaches(scale: float) -> bool:
        tried.append((scale, share(scale)))
        return tried[-1][1] <= target

    low, high = 0.0, highest / 16
    while not reaches(high):
        if high >= highest:
            return ScaleSearch(0.0, math.inf, tried)
        low, high = high, min(2 * high, highest)
    while high - low > tolerance * high and len(tried) < trials:
        middle = (low + high) / 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return ScaleSearch(high, dict(tried)[high], tried)


def _bisections(low: float, high: float, lowest: float, tolerance: float) -> int:
    """How many trials a bracket needs to close to the tolerance by bisecting the logarithm; from below `lowest` that is tried first."""
    halvings = math.log2(math.log(high / max(low, lowest)) / -math.log1p(-tolerance))
    return max(0, math.ceil(halvings)) + (low < lowest)


def _crossing(low: float, high: float, budget: float) -> float:
    """Where between the ends of a bracket, in [0, 1], the square root of the cost should meet that of the budget."""
    if not math.isfinite(high):
        return 0.0
    a, b, c = (math.sqrt(max(x, 0.0)) for x in (low, high, budget))
    return (c - a) / (b - a) if b > a else 0.5
