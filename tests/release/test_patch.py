"""Every operation of patch arithmetic against the dense product B A, computed in float64."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reveal_release.config import UserError
from reveal_release.release.patch import LowRank, Patch

OUT, IN = 9, 7
SHAPES = {"a": (OUT, IN), "b": (IN, OUT), "c": (4, 5)}


def make_patch(seed: int, ranks: dict[str, int], size: float = 1.0) -> Patch:
    generator = torch.Generator().manual_seed(seed)
    return Patch(
        {
            name: LowRank(
                torch.randn(r, SHAPES[name][1], generator=generator) * size,
                torch.randn(SHAPES[name][0], r, generator=generator),
            )
            for name, r in ranks.items()
        }
    )


def dense(patch: Patch, name: str) -> torch.Tensor:
    """ΔW in float64; zero where the patch has no such module."""
    if name not in patch:
        return torch.zeros(SHAPES[name], dtype=torch.float64)
    return patch[name].B.double() @ patch[name].A.double()


def assert_near(actual: torch.Tensor, expected: torch.Tensor, scale: float, tolerance: float = 1e-6) -> None:
    """‖actual - expected‖ within `tolerance` of `scale`, the size of what went into the computation."""
    assert float((actual.double() - expected).norm()) <= tolerance * scale + 1e-30


patches = st.builds(
    make_patch,
    seed=st.integers(0, 2**31),
    # Ranks may exceed the width (a redundant sum) or be 0, and modules may be missing.
    ranks=st.dictionaries(st.sampled_from(sorted(SHAPES)), st.integers(0, 12), min_size=1),
    size=st.sampled_from([1e-3, 1.0, 1e3]),
)
quick = settings(max_examples=40)


def total_norm(*patches_: Patch) -> float:
    return sum(float(dense(p, n).norm()) for p in patches_ for n in SHAPES)


@quick
@given(patches, st.floats(-4, 4))
def test_scale_and_negate(patch, c):
    for name in patch:
        assert torch.equal(patch.negate().delta(name), -patch.delta(name))  # exact, not approximate
        assert torch.equal(patch.negate()[name].A, patch[name].A)
        assert_near(dense(patch.scale(c), name), c * dense(patch, name), total_norm(patch) * abs(c))


@quick
@given(patches, patches)
def test_sum_holds_modules_of_either_side(p, q):
    total = p + q
    assert set(total) == set(p) | set(q)
    for name in total:
        # Concatenation adds no rounding at all: in float64 the two differ by float64's own.
        assert_near(dense(total, name), dense(p, name) + dense(q, name), total_norm(p, q), 1e-14)
        assert_near(total.delta(name), dense(p, name) + dense(q, name), total_norm(p, q))
        assert total[name].rank == sum(x[name].rank for x in (p, q) if name in x)


@quick
@given(patches, patches)
def test_inner_and_norm(p, q):
    expected = sum(float((dense(p, n) * dense(q, n)).sum()) for n in SHAPES)
    assert p.inner(q) == pytest.approx(expected, rel=1e-9, abs=1e-12 * total_norm(p) * total_norm(q))
    assert p.inner(q) == pytest.approx(q.inner(p), rel=1e-9, abs=1e-12 * total_norm(p) * total_norm(q))
    squares = sum(float(dense(p, n).square().sum()) for n in SHAPES)
    assert p.norm() == pytest.approx(squares**0.5, rel=1e-9, abs=1e-30)


@quick
@given(patches, st.integers(1, 13))
def test_truncate_is_the_best_approximation_and_reports_its_error(patch, rank):
    small, errors = patch.truncate(rank)
    for name in patch:
        full = dense(patch, name)
        s = torch.linalg.svdvals(full)
        best = float(s[rank:].norm())
        assert small[name].rank <= rank
        left = float((dense(small, name) - full).norm())
        assert left == pytest.approx(best, rel=1e-5, abs=1e-6 * float(s.norm()) + 1e-30)
        assert errors[name] == pytest.approx(best / float(s.norm()) if s.norm() > 0 else 0.0, abs=1e-7)


@quick
@given(patches, patches)
@example(make_patch(0, {"b": 3}, 0.001), make_patch(4, {"b": 1}, 1000.0))  # two singular values at the mark, together above it
def test_compress_loses_nothing_and_finds_the_rank(p, q):
    total = p + q + p.scale(0.5)
    small = total.compress()
    for name in total:
        assert_near(dense(small, name), dense(total, name), total_norm(p, q))
        ranks = sum(x[name].rank for x in (p, q) if name in x)
        assert small[name].rank <= min(ranks, *SHAPES[name])


def test_compress_of_a_patch_minus_itself_is_rank_zero():
    patch = make_patch(0, {"a": 3, "c": 2})
    nothing = (patch + patch.negate()).compress()
    assert nothing.rank == 0 and set(nothing) == {"a", "c"}
    assert torch.equal(nothing.delta("a"), torch.zeros(OUT, IN))
    assert patch.compress().rank == 3


@quick
@given(patches, st.integers(0, 4))
def test_pad_changes_ranks_only(patch, extra):
    padded = patch.pad(patch.rank + extra)
    for name in patch:
        assert padded[name].rank == patch.rank + extra
        assert_near(dense(padded, name), dense(patch, name), total_norm(patch), 1e-14)
    if patch.rank:
        with pytest.raises(ValueError, match="cannot be padded"):
            patch.pad(patch.rank - 1)


def test_a_sum_of_sums_is_not_what_a_patch_computes():
    """Adding A's and B's separately leaves cross terms: the mistake that `+` is there to avoid."""
    p, q = make_patch(1, {"a": 2}), make_patch(2, {"a": 2})
    wrong = (p["a"].B + q["a"].B) @ (p["a"].A + q["a"].A)
    right = p.delta("a") + q.delta("a")
    assert float((wrong - right).norm() / right.norm()) > 0.5
    torch.testing.assert_close((p + q).delta("a"), right)


def test_a_patch_does_not_follow_the_tensors_it_was_made_from():
    A, B = torch.ones(2, IN, requires_grad=True), torch.ones(OUT, 2, dtype=torch.bfloat16)
    m = LowRank(A, B)
    with torch.no_grad():
        A.mul_(3)
        B.mul_(3)
    assert torch.equal(m.delta(), torch.full((OUT, IN), 2.0))
    assert m.A.dtype == m.B.dtype == torch.float32 and not m.A.requires_grad


def test_digest_tells_patches_apart():
    patch = make_patch(0, {"a": 2, "b": 3})
    others = [make_patch(1, {"a": 2, "b": 3}), make_patch(0, {"a": 2}), patch.scale(0.5), patch.negate(), patch + patch, Patch()]
    renamed = Patch({"a": patch["a"], "z": patch["b"]})
    assert len({p.digest() for p in (patch, renamed, *others)}) == 8
    assert Patch({name: patch[name] for name in ("b", "a")}).digest() == patch.digest()


def test_empty_patch():
    empty = Patch()
    assert empty.rank == 0 and empty.norm() == 0.0 and len(empty + empty) == 0
    patch = make_patch(0, {"a": 2})
    assert torch.equal((empty + patch).delta("a"), patch.delta("a"))


def test_errors_name_the_cause():
    with pytest.raises(ValueError, match="A must be"):
        LowRank(torch.zeros(2, IN), torch.zeros(OUT, 3))
    other = Patch({"a": LowRank(torch.zeros(1, IN + 1), torch.zeros(OUT, 1))})
    with pytest.raises(UserError, match="module a is .* same base model"):
        make_patch(0, {"a": 1}) + other
    with pytest.raises(UserError, match="at least 1"):
        make_patch(0, {"a": 1}).truncate(0)


def test_the_error_is_of_the_whole_patch() -> None:
    patch = Patch({name: LowRank(torch.randn(5, 12), torch.randn(9, 5) * size) for name, size in (("a", 1.0), ("b", 7.0))})
    for rank in (1, 3, 5):
        cut, errors = patch.truncate(rank)
        error = patch.lost(errors)
        whole = torch.cat([patch.delta(name).flatten() for name in patch])
        rest = whole - torch.cat([cut.delta(name).flatten() for name in patch])
        assert error == pytest.approx(float(rest.norm() / whole.norm()), abs=1e-5) and cut.rank == rank
    assert error == pytest.approx(0, abs=1e-6)
    nothing = patch.scale(0.0)
    assert nothing.lost(nothing.truncate(1)[1]) == 0
