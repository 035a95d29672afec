"""Ranks that are tried."""

from reveal_release.audit.truncation import halved


def test_ranks_are_halved_down_to_one() -> None:
    assert halved(128) == [64, 32, 16, 8, 4, 2, 1] and halved(6) == [3, 1] and halved(1) == halved(0) == []
