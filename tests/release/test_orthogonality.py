"""Penalties and measures against dense matrices and autograd."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reveal_release.config import UserError
from reveal_release.release.orthogonality import (
    NullSpace,
    gauge_free,
    olora,
    olora_normalised,
    overlap,
    row_basis,
)
from reveal_release.release.patch import LowRank, Patch

PENALTIES = {"olora": olora, "olora-normalised": olora_normalised, "gauge-free": gauge_free}
SHAPES = {"q": (12, 10), "v": (6, 10)}


class Live(NamedTuple):
    A: Tensor
    B: Tensor


def live(seed: int, rank: int = 3, b: float = 1.0) -> dict[str, Live]:
    g = torch.Generator().manual_seed(seed)
    return {
        name: Live(
            torch.randn(rank, in_, generator=g).requires_grad_(),
            (b * torch.randn(out, rank, generator=g)).requires_grad_(),
        )
        for name, (out, in_) in SHAPES.items()
    }


def frozen(seed: int, rank: int = 4) -> Patch:
    return Patch({name: LowRank(f.A, f.B) for name, f in live(seed, rank).items()})


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def value_of(name: str, r: dict[str, Live], f: Patch) -> float:
    return PENALTIES[name](r, f).item()


def dense_reference(name: str, r: dict[str, Live], f: Patch) -> Tensor:
    """Each penalty from its definition, entry by entry or from dense ΔW."""
    per_module = []
    for module in SHAPES:
        A_r, B_r, A_f, B_f = r[module].A, r[module].B, f[module].A, f[module].B
        if name == "olora":
            per_module.append(sum((a @ b).abs() for a in A_f for b in A_r))
        elif name == "olora-normalised":
            cosines = [torch.cosine_similarity(a, b, dim=0).abs() for a in A_f for b in A_r]
            per_module.append(torch.stack(cosines).mean())
        elif name == "gauge-free":
            per_module.append(
                torch.cosine_similarity((B_f @ A_f).flatten(), (B_r @ A_r).flatten(), dim=0) ** 2
            )
    return torch.stack(per_module).sum() if name == "olora" else torch.stack(per_module).mean()


@pytest.mark.parametrize("name", ["olora", "olora-normalised", "gauge-free"])
def test_value_and_gradient_match_the_dense_definition(name):
    r, f = live(0), frozen(1)
    value, expected = PENALTIES[name](r, f), dense_reference(name, r, f)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)
    parameters = [p for m in r.values() for p in m]
    got = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    want = torch.autograd.grad(expected, parameters, allow_unused=True)
    for g, w in zip(got, want, strict=True):
        assert (g is None) == (w is None)
        if g is not None:
            assert float(w.norm()) > 0
            torch.testing.assert_close(g, w, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["olora-normalised", "gauge-free"])
def test_normalised_penalties_lie_between_orthogonal_and_equal(name):
    f = frozen(1, rank=1)
    same = {n: Live(m.A.clone(), m.B.clone()) for n, m in f.items()}
    assert value_of(name, same, f) == pytest.approx(1.0, abs=1e-5)
    away = {
        n: Live(off(m.A, torch.randn(2, 10)), torch.randn(m.B.shape[0], 2)) for n, m in f.items()
    }
    assert value_of(name, away, f) == pytest.approx(0.0, abs=1e-6)


def regauged(factors: dict[str, Live]) -> dict[str, Live]:
    g = torch.Generator().manual_seed(7)
    out = {}
    for name, m in factors.items():
        G = torch.randn(m.A.shape[0], m.A.shape[0], generator=g) + 3 * torch.eye(m.A.shape[0])
        out[name] = Live(G @ m.A.detach(), m.B.detach() @ torch.linalg.inv(G))
    return out


def test_gauge_free_does_not_depend_on_the_basis_and_olora_does():
    r, f = live(0), frozen(1)
    for name, invariant in [("gauge-free", True), ("olora", False), ("olora-normalised", False)]:
        before, after = (value_of(name, x, f) for x in (r, regauged(r)))
        assert (abs(after - before) <= 1e-4 * before) == invariant, name


def test_shrinking_A_fools_only_the_published_penalty():
    r, f = live(0), frozen(1)
    shrunk = {n: Live(m.A.detach() / 100, m.B.detach() * 100) for n, m in r.items()}
    ratio = {n: value_of(n, shrunk, f) / value_of(n, r, f) for n in PENALTIES}
    assert ratio["olora"] == pytest.approx(0.01, rel=1e-4)
    assert ratio["olora-normalised"] == pytest.approx(1, rel=1e-4)
    assert ratio["gauge-free"] == pytest.approx(1, rel=1e-4)


def test_gauge_free_is_finite_at_the_start_of_a_lora():
    """B = 0 is where every LoRA starts: the angle is undefined there, the penalty must not be."""
    for b in (0.0, 1e-12, 1e-6):
        r = live(0, b=b)
        value = gauge_free(r, frozen(1))
        value.backward()
        assert 0 <= value.item() <= 1
        assert all(torch.isfinite(p.grad).all() for m in r.values() for p in m)
        if b == 0.0:
            assert value.item() == 0.0 and float(r["q"].B.grad.norm()) == 0.0
    zero = Patch({n: LowRank(m.A, torch.zeros_like(m.B)) for n, m in frozen(1).items()})
    assert value_of("gauge-free", live(0), zero) == 0.0


@pytest.mark.parametrize("name", ["olora", "olora-normalised", "gauge-free"])
def test_a_training_step_on_the_penalty_lowers_it(name):
    r, f = live(0), frozen(1)
    optimizer = torch.optim.Adam([p for m in r.values() for p in m], lr=0.02)
    start = value_of(name, r, f)
    for _ in range(60):
        optimizer.zero_grad()
        PENALTIES[name](r, f).backward()
        optimizer.step()
    assert value_of(name, r, f) < 0.6 * start


def test_modules_of_one_side_only_are_left_out():
    r, f = live(0), frozen(1)
    q_only = Patch({"q": f["q"]})
    only = value_of("olora", {"q": r["q"]}, q_only)
    assert value_of("olora", r, q_only) == pytest.approx(only)
    with pytest.raises(UserError, match="no module in common"):
        olora(r, Patch({"other": f["q"]}))


def test_bfloat16_parameters_get_a_float32_penalty():
    r = {n: Live(m.A.detach().bfloat16(), m.B.detach().bfloat16()) for n, m in live(0).items()}
    for name in ("olora", "olora-normalised", "gauge-free"):
        assert PENALTIES[name](r, frozen(1)).dtype == torch.float32


def off(A_f: Tensor, A_r: Tensor) -> Tensor:
    """A_r as the constraint leaves it."""
    factors = {"m": Live(A_r.detach().clone(), torch.zeros(1, len(A_r)))}
    NullSpace({"m": A_f}).project_(factors)
    return factors["m"].A


def test_null_space_is_the_projection_off_the_rows():
    A_f, A_r = frozen(1)["q"].A, live(0)["q"].A
    got = off(A_f, A_r)
    projector = torch.eye(10, dtype=torch.float64) - torch.linalg.pinv(A_f.double()) @ A_f.double()
    torch.testing.assert_close(got, (A_r.detach().double() @ projector).float(), rtol=1e-5, atol=1e-6)
    assert float((A_f @ got.T).abs().max()) < 1e-5
    # A padded or repeated row must not cost the second PEM a direction.
    padded = torch.cat([A_f, torch.zeros(2, 10), A_f[:1] * 2])
    torch.testing.assert_close(off(padded, A_r), got, rtol=1e-5, atol=1e-6)
    assert row_basis(padded).shape == (10, 4)
    with pytest.raises(UserError, match="no null space"):
        off(torch.eye(10), A_r)


def test_null_space_holds_through_training_with_momentum():
    r, f = live(0), frozen(1)
    null_space = NullSpace({name: m.A for name, m in f.items()})
    null_space.project_(r)
    optimizer = torch.optim.Adam([p for m in r.values() for p in m], lr=0.05)
    goal = torch.randn(12, 10)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (r["q"].B @ r["q"].A - goal).square().mean()
        loss.backward()
        losses.append(loss.item())
        null_space.project_gradients_(r)
        assert float((f["q"].A @ r["q"].A.grad.T).abs().max()) < 1e-4
        optimizer.step()
        null_space.project_(r)
    assert losses[-1] < 0.9 * losses[0]
    assert value_of("olora-normalised", r, f) < 1e-6
    assert float((f.delta("q") @ (r["q"].B @ r["q"].A).detach().T).abs().max()) < 1e-4


@given(st.integers(3, 12), st.integers(0, 4), st.integers(0, 4), st.integers(0, 10_000))
@settings(max_examples=60)
def test_directions_of_several_origins_are_forbidden_together(size, first, second, seed):
    """Against the dense projector off the joint row space, at scales that differ much, with a row in common."""
    g = torch.Generator().manual_seed(seed)
    one, two = 1e-4 * torch.randn(first, size, generator=g), 1e3 * torch.randn(second, size, generator=g)
    both = torch.cat([one * 1e4, two / 1e3])
    two = torch.cat([two, one[:1]])
    r = {"m": Live(torch.randn(3, size, generator=g), torch.zeros(2, 3)), "other": Live(torch.ones(1, size), torch.ones(1, 1))}
    before = r["m"].A.double()
    null_space = NullSpace({"m": one}, {}, {"m": two, "absent": one})
    if torch.linalg.matrix_rank(both) == size:
        with pytest.raises(UserError, match="no null space"):
            null_space.project_(r)
        return
    null_space.project_(r)
    projector = torch.eye(size, dtype=torch.float64) - torch.linalg.pinv(both.double()) @ both.double()
    torch.testing.assert_close(r["m"].A.double(), before @ projector, rtol=1e-4, atol=1e-4)
    assert float((both @ r["m"].A.T).abs().max() if len(both) else 0.0) < 1e-4
    assert torch.equal(r["other"].A, torch.ones(1, size))


def test_overlap_against_dense_matrices():
    f, r = frozen(1), frozen(2, rank=3)
    result = overlap(f, r)
    rows, angles, flat_f, flat_r = [], [], [], []
    for name in SHAPES:
        A_f, A_r = f[name].A.double(), r[name].A.double()
        rows.append(torch.cosine_similarity(A_f[:, None], A_r[None], dim=-1).abs().mean())
        # Principal angles from the product of the two dense projectors: its singular values are their
        # cosines.
        P_f, P_r = (torch.linalg.pinv(A) @ A for A in (A_f, A_r))
        angles.append(torch.linalg.svdvals(P_f @ P_r)[:3].mean())
        flat_f.append(f.delta(name).flatten())
        flat_r.append(r.delta(name).flatten())
    cosine = torch.cosine_similarity(torch.cat(flat_f).double(), torch.cat(flat_r).double(), dim=0)
    assert result["row_cosine"] == pytest.approx(float(sum(rows) / 2), rel=1e-5)
    assert result["subspace_cosine"] == pytest.approx(float(sum(angles) / 2), rel=1e-5)
    assert result["delta_cosine"] == pytest.approx(float(cosine), rel=1e-4)


def test_overlap_at_the_ends():
    f = frozen(1)
    assert overlap(f, f)["subspace_cosine"] == pytest.approx(1.0, abs=1e-6)
    assert overlap(f, f.negate())["delta_cosine"] == pytest.approx(-1.0, abs=1e-9)
    away = Patch({n: LowRank(off(m.A, torch.randn(2, 10)), m.B[:, :2]) for n, m in f.items()})
    assert all(abs(v) < 1e-6 for v in overlap(f, away).values())
    # Padding a patch with zeros must not change what is measured between subspaces.
    assert overlap(f.pad(8), f)["subspace_cosine"] == pytest.approx(1.0, abs=1e-6)
    assert overlap(f, Patch()) == {"row_cosine": 0.0, "subspace_cosine": 0.0, "delta_cosine": 0.0}
