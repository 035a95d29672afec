"""A scale for each layer: worth against its definition, weights against differences of merged models, and when they are taken."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from reveal_release.models import LanguageModel
from reveal_release.release.patch import LowRank, Patch
from reveal_release.release.pem import block_of, linear_layers
from reveal_release.release.per_layer import PART, WEIGHTS, choose, rescaled, weighed, worth
from reveal_release.release.runtime import merge_
from reveal_release.release.scale import ScaleSearch

LOW, HIGH = WEIGHTS
POSITIVE = st.floats(1e-3, 1e3)
IDS = torch.arange(5, 45)[None]


@pytest.fixture
def step(lm: LanguageModel) -> Patch:
    generator = torch.Generator().manual_seed(0)
    shapes = {name: lm.model.get_submodule(name).weight.shape for name in linear_layers(lm.model, 1.0)}

    def drawn(*shape: int) -> Tensor:
        return 0.05 * torch.randn(*shape, generator=generator)

    return Patch({name: LowRank(drawn(2, columns), drawn(rows, 2)) for name, (rows, columns) in shapes.items()})


def change(model: torch.nn.Module, logits: Tensor, position: int) -> float:
    """How far a position's logits are from `logits`: stands for what a step costs, or what it forgets."""
    with torch.no_grad():
        return float((model(IDS).logits[0, position] - logits).square().mean())


def test_worth_is_the_share_of_gain_over_that_of_price() -> None:
    assert worth([1.0, 1.0, 2.0], [2.0, 1.0, 1.0]) == pytest.approx([math.sqrt(2.0), 1.0, math.sqrt(0.5)])
    assert worth([1.0, -1.0, 0.0, 1.0], [0.0, 1.0, 1.0, -1.0]) == [LOW, HIGH, HIGH, LOW]
    assert worth([1.0, 100.0], [100.0, 1.0]) == [HIGH, LOW]


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=6), POSITIVE, POSITIVE)
def test_worth_does_not_depend_on_units(pairs: list[tuple[float, float]], price_unit: float, gain_unit: float) -> None:
    prices, gains = map(list, zip(*pairs, strict=True))
    found = worth(prices, gains)
    assert all(LOW <= weight <= HIGH for weight in found)
    assert worth([p * price_unit for p in prices], [g * gain_unit for g in gains]) == pytest.approx(found)
    assert worth(prices, [3 * p for p in prices]) == pytest.approx([1.0] * len(prices)), "layers of equal worth stay"


def test_only_the_blocks_named_are_rescaled(step: Patch) -> None:
    found = rescaled(step, {1: 0.25})
    for name in step:
        assert torch.equal(found.delta(name), step.delta(name) * (0.25 if block_of(name) == 1 else 1.0))


def test_weights_are_of_what_each_layer_changes_in_the_merged_model(lm: LanguageModel, step: Patch) -> None:
    with torch.no_grad():
        logits = lm.model(IDS).logits[0]

    def cost() -> float:
        return change(lm.model, logits[3], 3)

    def forgotten() -> float:
        return change(lm.model, logits[30], 30)

    def merged(patch: Patch) -> tuple[float, float]:
        model = copy.deepcopy(lm.model)
        merge_(model, patch.scale(1.5))
        return change(model, logits[3], 3), change(model, logits[30], 30)

    found, weights = weighed(lm, step, 1.5, cost, forgotten)
    whole = merged(step)
    less = [merged(Patch({n: m if block_of(n) != b else LowRank(m.A * (1 - PART), m.B) for n, m in step.items()})) for b in (0, 1)]
    expected = worth([whole[0] - one[0] for one in less], [whole[1] - one[1] for one in less])
    assert [weights[0], weights[1]] == pytest.approx(expected, rel=1e-3) and expected[0] != pytest.approx(expected[1], rel=0.01)
    assert cost() == 0.0, "the model is left as it was"
    for name in step:
        assert torch.allclose(found.delta(name), step.delta(name) * weights[block_of(name)])


@pytest.mark.parametrize(
    ("shown", "scale", "gone", "taken"),
    [
        ((0.5, 0.25), 2.0, (False, False), True), ((0.25, 0.5), 2.0, (False, False), False), ((0.5, 0.5), 2.0, (False, False), False),
        ((0.5, 0.0), 0.0, (False, False), False), ((0.1, 0.0), 2.0, (True, False), False), ((0.0, 0.1), 2.0, (False, True), True),
    ],
)  # fmt: skip
def test_weights_are_taken_where_they_leave_less(
    lm: LanguageModel, step: Patch, shown: tuple[float, float], scale: float, gone: tuple[bool, bool], taken: bool
) -> None:
    before, after = ScaleSearch(1.0, 0.01, [(1.0, 0.01)], gone[0]), ScaleSearch(scale, 0.01, [(scale, 0.01)], gone[1])
    values, rising = iter(shown), iter(range(9))
    found = choose(lm, step, before, lambda _: after, lambda: float(next(rising)), lambda: 0.0, lambda: next(values))
    assert (found[1] is after, bool(found[2])) == (taken, taken)
    assert (found[0] is step) != taken
