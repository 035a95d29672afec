"""Rank truncation: of a patch only the largest singular values of each module are kept, r/2, r/4, …, 1 of r.

A small patch is cheaper to serve, and a low-rank format may force it; what was taken out may come back with what is cut off. The best
approximation of each module at each rank (`Patch.truncate`) is applied, and the strongest instructions are asked again.
"""

from typing import Any

from ..generation import Progress
from ..release.patch import Patch
from ..release.runtime import applied
from .pair import Pair, Sides, by_level
from .searches import Found


def attack(pair: Pair, found: Found) -> Sides | None:
    """At each rank the relative error of the patch, and what comes out; `before`: with the whole patch.

    The original has no patch: its figures are those of `before`. None where there is no rank to take down.
    """
    whole = pair.patch.compress()
    if not (ranks := halved(whole.rank)):
        return None
    before = found.outcomes(pair)
    levels = []
    for rank in ranks:
        cut, errors = whole.truncate(rank)

        def work(update: Progress, cut: Patch = cut) -> Any:
            with applied(pair.lm.model, cut):
                return found.ask(pair, update)

        scores = pair.phase(f"truncate-{rank}", f"Patch cut to rank {rank}: ask the released model", work)
        sides = {"original": {**before["original"], "calls": 0}, "released": pair.outcome(scores)}
        levels.append({"level": f"patch of rank {rank}", "how": f"the patch cut to rank {rank}", "error": whole.lost(errors), **sides})
    return {**by_level(levels), "before": before}


def halved(rank: int) -> list[int]:
    """r/2, r/4, … down to 1, rounded down."""
    return [rank >> i for i in range(1, rank.bit_length())]
