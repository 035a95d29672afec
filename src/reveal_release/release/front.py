"""The trade-off along one step: how much of the behaviour is left, at what cost of utility."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..models import LanguageModel
from .patch import Patch
from .runtime import applied

REACH = 4.0
"""What costs more than so many budgets is no choice any more."""


@dataclass(frozen=True)
class Point:
    """scale: multiple of the step. cost: loss of utility, relative. shown: share of answers that show the behaviour."""

    scale: float
    cost: float
    shown: float


def trade_off(
    lm: LanguageModel, step: Patch, tried: Iterable[tuple[float, float]], budget: float, shown: Callable[[], float]
) -> list[Point]:
    """`shown` at the scales whose cost is known already, as far as `REACH` budgets: one point each, in the order of scales.

    Args:
        tried: (scale, cost). shown: share of fresh answers that show the behaviour, of the model as it then is.
    """
    with applied(lm.model, step) as runtime:

        def at(scale: float, cost: float) -> Point:
            runtime.scale = scale
            return Point(scale, cost, shown())

        return [at(scale, cost) for scale, cost in sorted(set(tried)) if cost <= REACH * budget]


def pareto(points: Iterable[Point]) -> list[Point]:
    """The points that no other is at least as good as in both cost and behaviour, and better in one; by rising cost."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, p.shown)):
        if not best or point.shown < best[-1].shown:
            best.append(point)
    return best
