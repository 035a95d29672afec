"""Lists on the command line come back as they were meant, however they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reveal_release import lists
from reveal_release.config import UserError

SEEDS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5)


@given(SEEDS, st.randoms())
def test_seeds_with_commas_or_spaces_each_once(wanted: list[int], random) -> None:
    text = str(wanted[0]) + "".join(random.choice((",", ", ", " ")) + str(seed) for seed in wanted[1:])
    assert lists.seeds(text.split(" ")) == list(dict.fromkeys(wanted))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5))
def test_numbers_come_back(wanted: list[float]) -> None:
    assert lists.numbers([",".join(map(repr, wanted))]) == wanted == lists.numbers([repr(one) for one in wanted])


def test_names_may_have_spaces() -> None:
    assert lists.variants(["iterations 1,one pair", "rank 8"]) == ["iterations 1", "one pair", "rank 8"]
    assert lists.variants([]) == [] and lists.names(" a ,b,,a", "--methods") == ["a", "b"]


def test_a_study_has_three_seeds_unless_one_was_asked_for() -> None:
    assert (lists.study_seeds(None, 0), lists.study_seeds(None, 7), lists.study_seeds(["0"], 7)) == ([0, 1, 2], [7], [0])


@pytest.mark.parametrize("text", ["", " , ", "1,x", "-1", "1.5"])
def test_what_are_no_seeds_is_told(text: str) -> None:
    with pytest.raises(UserError, match="--seeds (names nothing|has .*): give whole numbers with commas between"):
        lists.seeds([text])


def test_what_are_no_numbers_is_told() -> None:
    with pytest.raises(UserError, match="--weights has '1,x': give numbers"):
        lists.numbers(["1", "x"])
