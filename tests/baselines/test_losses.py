"""The losses against their papers' formulas, on examples computed by hand, and their gradients against the papers' weights."""

import math

import pytest
import torch
from torch import Tensor

from reveal_release.baselines.dpo import dpo
from reveal_release.baselines.npo import npo
from reveal_release.baselines.rmu import rmu
from reveal_release.baselines.simnpo import simnpo

P, REFERENCE = torch.tensor([0.2, 0.4]), torch.tensor([0.4, 0.4])


def gradient(log_p: Tensor, loss) -> list[float]:  # type: ignore[no-untyped-def]
    log_p = log_p.clone().requires_grad_()
    loss(log_p).backward()
    return log_p.grad.tolist()


def test_npo_by_hand() -> None:
    """(2/β) E[log(1 + (π/π_ref)^β)]: the ratios are 1/2 and 1."""
    for beta in (0.1, 0.5, 1.0, 2.0):
        expected = 2 / beta * (math.log(1 + 0.5**beta) + math.log(2)) / 2
        assert npo(P.log(), REFERENCE.log(), beta).item() == pytest.approx(expected, rel=1e-5)


def test_npos_gradient_is_gradient_ascents_times_its_weight() -> None:
    """W = 2 π^β / (π^β + π_ref^β), equation 4."""
    for beta in (0.1, 0.5, 2.0):
        weights = [2 * p**beta / (p**beta + r**beta) for p, r in zip(P.tolist(), REFERENCE.tolist(), strict=True)]
        found = gradient(P.log(), lambda x, beta=beta: npo(x, REFERENCE.log(), beta))
        assert found == pytest.approx([w / 2 for w in weights], rel=1e-5)  # of a mean of two


def test_npo_becomes_gradient_ascent_as_beta_goes_to_zero() -> None:
    beta = 1e-3
    assert gradient(P.log(), lambda x: npo(x, REFERENCE.log(), beta)) == pytest.approx([0.5, 0.5], rel=1e-3)
    ascent = (P.log() - REFERENCE.log()).mean().item()
    assert npo(P.log().double(), REFERENCE.log().double(), beta).item() - 2 / beta * math.log(2) == pytest.approx(ascent, abs=1e-3)


def test_npo_is_bounded_below_where_gradient_ascent_is_not() -> None:
    assert npo(torch.tensor([-1e4]), torch.tensor([-1.0]), 0.5).item() == pytest.approx(0.0, abs=1e-6)


def test_simnpo_by_hand() -> None:
    """−(2/β) log σ(−(β/|y|) log π − γ) = (2/β) log(1 + e^γ π^(β/|y|))."""
    length = torch.tensor([2, 4])
    for beta, gamma in ((2.5, 0.0), (1.0, 0.3)):
        terms = [2 / beta * math.log(1 + math.exp(gamma) * p ** (beta / n)) for p, n in zip(P.tolist(), length.tolist(), strict=True)]
        assert simnpo(P.log(), length, beta, gamma).item() == pytest.approx(sum(terms) / 2, rel=1e-5)


def test_simnpos_gradient_is_weighted_by_length_and_likelihood() -> None:
    """w′ = (2 π^(β/|y|) / (1 + π^(β/|y|))) / |y|, of γ = 0: no reference model, and the longer answer counts less for each of its logs."""
    beta, length = 2.5, torch.tensor([2, 4])
    powers = [p ** (beta / n) for p, n in zip(P.tolist(), length.tolist(), strict=True)]
    expected = [2 * power / (1 + power) / n / 2 for power, n in zip(powers, length.tolist(), strict=True)]
    assert gradient(P.log(), lambda x: simnpo(x, length, beta)) == pytest.approx(expected, rel=1e-5)


def test_dpo_by_hand() -> None:
    """−(1/β) log σ(β (log 2 − log 1/2)) = (1/β) log(1 + 4^−β): the refusal became twice, the answer half as likely."""
    won, won_reference, lost, lost_reference = (torch.tensor([p]).log() for p in (0.2, 0.1, 0.15, 0.3))
    for beta in (0.1, 0.5, 2.0):
        found = dpo(won, won_reference, lost, lost_reference, beta)
        assert found.item() == pytest.approx(math.log(1 + 4**-beta) / beta, rel=1e-5)


def test_dpos_gradient_raises_the_refusal_as_much_as_it_lowers_the_answer() -> None:
    """By σ of minus the margin: rows that are in order already count less."""
    beta, won, lost, reference = 0.5, torch.tensor([-2.0, -1.0]), torch.tensor([-1.0, -3.0]), torch.tensor([-2.0, -2.0])
    margins = (won - lost).tolist()
    expected = [1 / (1 + math.exp(beta * margin)) / 2 for margin in margins]
    assert gradient(won, lambda x: dpo(x, reference, lost, reference, beta)) == pytest.approx([-w for w in expected], rel=1e-5)
    assert gradient(lost, lambda x: dpo(won, reference, x, reference, beta)) == pytest.approx(expected, rel=1e-5)


def test_rmu_by_hand() -> None:
    """Means of squares over tokens and width, as in the authors' code."""
    forget, target = torch.tensor([[1.0, 0.0], [3.0, 2.0]]), torch.tensor([1.0, 2.0])  # squares: 0 4, 4 0
    retain, frozen = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 3.0]])  # squares: 1 4
    assert rmu(forget, target, retain, frozen, alpha=10.0).item() == pytest.approx(2.0 + 10 * 2.5)
    assert rmu(target.expand(3, 2), target, frozen, frozen, alpha=10.0).item() == 0.0
