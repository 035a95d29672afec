"""The trade-off along a step: the Pareto front against its definition, the points against a model that carries the step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.models import LanguageModel
from reveal_release.release.front import REACH, Point, pareto, trade_off
from reveal_release.release.patch import LowRank, Patch
from reveal_release.release.runtime import applied

POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12)


@given(POINTS)
def test_the_front_is_what_nothing_dominates(pairs: list[tuple[int, int]]) -> None:
    points = [Point(float(i), cost / 10, shown / 5) for i, (cost, shown) in enumerate(pairs)]

    def dominated(p: Point) -> bool:
        return any(q.cost <= p.cost and q.shown <= p.shown and (q.cost, q.shown) != (p.cost, p.shown) for q in points)

    found = pareto(points)
    assert {(p.cost, p.shown) for p in found} == {(p.cost, p.shown) for p in points if not dominated(p)}
    assert [p.cost for p in found] == sorted({p.cost for p in found}), "one point each, by rising cost"


def test_points_are_measured_at_the_scales_whose_cost_is_known(lm: LanguageModel) -> None:
    name, weight = next((n, p) for n, p in lm.model.named_parameters() if n.endswith("q_proj.weight"))
    name = name.removesuffix(".weight")
    generator = torch.Generator().manual_seed(0)
    rows, columns = weight.shape
    step = Patch({name: LowRank(torch.randn(2, columns, generator=generator), torch.randn(rows, 2, generator=generator))})
    ids = torch.arange(5, 25)[None]

    def shown() -> float:
        with torch.no_grad():
            return float(lm.model(ids).logits[0, -1, :10].softmax(0)[0])

    found = trade_off(lm, step, [(1.0, 0.05), (0.0, 0.0), (2.0, 2 * REACH), (0.5, 0.01), (1.0, 0.05)], 0.02, shown)
    assert [(p.scale, p.cost) for p in found] == [(0.0, 0.0), (0.5, 0.01), (1.0, 0.05)], "each once, none beyond reach"
    for point in found:
        with applied(lm.model, step.scale(point.scale)) if point.scale else applied(lm.model, Patch()):
            assert shown() == pytest.approx(point.shown, rel=1e-4)
    assert len({p.shown for p in found}) == 3
