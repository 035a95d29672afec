"""A scale of its own for each layer (block) of the model: what forgets more for what it costs goes further.

    step, chosen, weights = choose(lm, step, chosen, go, utility.loss, lambda: mean_nll(lm, forget), shown)

Taking a layer back by a part tells, to first order, what it is worth: the forgetting that it gives per utility that it costs, relative
to all layers together. A layer is weighed by the square root of that, and how far the weighed step may go is found anew.

Not promised: that layers add up. They do nearly for a small part, and not for whole layers.
"""

import math
from collections.abc import Callable, Mapping

from ..models import LanguageModel
from .patch import LowRank, Patch
from .pem import block_of
from .runtime import applied
from .scale import ScaleSearch

PART = 0.3
"""How much of a layer is taken back to tell its worth: enough to be measured, little enough for the others' worth to stay."""
WEIGHTS = (0.5, 2.0)
"""The least and the most that a layer is weighed by."""


def rescaled(patch: Patch, scales: Mapping[int | None, float]) -> Patch:
    """The patch with the modules of each block multiplied by its scale; blocks without one stay."""
    return Patch({name: LowRank(m.A, m.B * scales.get(block_of(name), 1.0)) for name, m in patch.items()})


def choose(
    lm: LanguageModel,
    step: Patch,
    chosen: ScaleSearch,
    go: Callable[[Patch], ScaleSearch],
    cost: Callable[[], float],
    forgotten: Callable[[], float],
    shown: Callable[[], float],
) -> tuple[Patch, ScaleSearch, dict[str, float]]:
    """The step weighed by layer, how far it goes, and the weights by block; or the step as it is, without weights, where that does better.

    Args:
        chosen: how far the step goes as it is. go: how far another goes within the same budget.
        cost, forgotten: as of `weighed`. shown: share of answers that show the behaviour. What leaves less does better, and best what
            leaves nothing.
    """

    def left(patch: Patch, found: ScaleSearch) -> tuple[bool, float, float]:
        with applied(lm.model, patch, found.scale):
            return not found.gone, shown(), found.cost

    other, weights = weighed(lm, step, chosen.scale, cost, forgotten)
    found = go(other)
    if not found.scale or left(step, chosen) <= left(other, found):
        return step, chosen, {}
    return other, found, {str(block): weight for block, weight in weights.items()}


def weighed(
    lm: LanguageModel, step: Patch, scale: float, cost: Callable[[], float], forgotten: Callable[[], float]
) -> tuple[Patch, dict[int | None, float]]:
    """The step with each layer weighed by its worth at `scale`, and the weights.

    Args:
        cost, forgotten: utility lost and forgetting gained (any unit, more is better) of the model as it then is.
    """

    def measure(patch: Patch) -> tuple[float, float]:
        with applied(lm.model, patch, scale):
            return cost(), forgotten()

    whole = measure(step)
    blocks = list(dict.fromkeys(map(block_of, step)))
    less = [measure(rescaled(step, {block: 1 - PART})) for block in blocks]
    prices, gains = ([all_layers - one for one in part] for all_layers, part in zip(whole, zip(*less, strict=True), strict=True))
    weights = dict(zip(blocks, worth(prices, gains), strict=True))
    return rescaled(step, weights), weights


def worth(prices: list[float], gains: list[float]) -> list[float]:
    """The root of each gain's share of all gains over its price's share of all prices, within `WEIGHTS`.

    What gains nothing gets the least, and what gains something at no price the most.
    """
    low, high = WEIGHTS
    paid, gained = (sum(max(one, 0.0) for one in part) for part in (prices, gains))

    def weight(price: float, gain: float) -> float:
        if gain <= 0:
            return low
        return high if price <= 0 else min(max(math.sqrt(gain / gained * paid / price), low), high)

    return [weight(price, gain) for price, gain in zip(prices, gains, strict=True)]
