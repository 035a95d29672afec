"""Against torch's own Muon, bit by bit in bfloat16, and against the singular value decomposition in float32."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.testbed import muon
from reveal_release.testbed.muon import Muon, orthogonalised

SHAPES = [(24, 16), (16, 24), (16, 16)]


def moved(optimiser, **settings):
    """The weights after three steps with the same random gradients."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    untouched = torch.nn.Parameter(torch.ones(2, 2))
    steps = optimiser([*weights, untouched], lr=0.02, weight_decay=0.05, **settings)
    for _ in range(3):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        steps.step()
    assert torch.equal(untouched, torch.ones(2, 2)), "without a gradient a weight stays"
    return torch.cat([weight.detach().flatten() for weight in weights])


def test_in_bfloat16_it_is_torchs(monkeypatch):
    monkeypatch.setattr(muon, "precision", lambda device: torch.bfloat16)
    assert torch.equal(moved(Muon), moved(torch.optim.Muon, adjust_lr_fn="match_rms_adamw"))


def test_in_float32_it_differs_by_rounding(monkeypatch):
    monkeypatch.setattr(muon, "precision", lambda device: torch.float32)
    ours, theirs = moved(Muon), moved(torch.optim.Muon, adjust_lr_fn="match_rms_adamw")
    assert not torch.equal(ours, theirs)
    assert torch.allclose(ours, theirs, atol=2e-3), "a step is of 0.02 * 0.2 = 0.004 in the root mean square"


@pytest.mark.parametrize("shape", SHAPES)
@given(seed=st.integers(0, 2**31))
def test_singular_values_come_near_one_and_vectors_stay(shape, seed):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    U, S, Vt = torch.linalg.svd(matrix, full_matrices=False)
    inside = U.T @ orthogonalised(matrix, torch.float64) @ Vt.T
    a, b, c = muon.COEFFICIENTS
    expected = S / matrix.norm()
    for _ in range(5):
        expected = a * expected + b * expected**3 + c * expected**5
    assert torch.allclose(inside, torch.diag(expected), atol=1e-9), "a polynomial of the singular values, nothing else"
    large = S / matrix.norm() > 0.02
    assert ((expected[large] > 0.6) & (expected[large] < 1.3)).all()


def test_zero_stays_zero():
    assert not orthogonalised(torch.zeros(3, 4), torch.float32).any()
