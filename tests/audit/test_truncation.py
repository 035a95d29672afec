"""Ranks that are tried, and the error against dense matrices."""

import pytest
import torch

from reveal_release.audit.truncation import halved, truncated
from reveal_release.release.patch import LowRank, Patch


def test_ranks_are_halved_down_to_one() -> None:
    assert halved(128) == [64, 32, 16, 8, 4, 2, 1] and halved(6) == [3, 1] and halved(1) == halved(0) == [1]


def test_the_error_is_of_the_whole_patch() -> None:
    patch = Patch({name: LowRank(torch.randn(5, 12), torch.randn(9, 5) * size) for name, size in (("a", 1.0), ("b", 7.0))})
    for rank in (1, 3, 5):
        cut, error = truncated(patch, rank)
        whole = torch.cat([patch.delta(name).flatten() for name in patch])
        rest = whole - torch.cat([cut.delta(name).flatten() for name in patch])
        assert error == pytest.approx(float(rest.norm() / whole.norm()), abs=1e-5) and cut.rank == rank
    assert error == pytest.approx(0, abs=1e-6)
    assert truncated(patch.scale(0.0), 1)[1] == 0
