"""The answer's extraction by examples and round trips; exact match by hand."""

import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.config import UserError
from reveal_release.metrics.arithmetic import exact_match, extract_answer
from reveal_release.testbed.problems import sample


@pytest.mark.parametrize(
    "text, expected",
    [
        ("She has 3 + 4 = 7 apples.\n#### 7", "7"),
        ("#### 1,234,567", "1234567"),
        ("#### $18", "18"),
        ("#### $ 1,200.50.", "1200.5"),
        ("#### -5", "-5"),
        ("#### -$5", "-5"),
        ("#### $-5", "-5"),
        ("#### \u22125", "-5"),
        ("####7 apples", "7"),
        ("#### 12.", "12"),
        ("#### 12.0", "12"),
        ("#### .5", "0.5"),
        ("#### -0.00", "0"),
        ("#### 007", "7"),
        ("#### 0", "0"),
        ("#### 3\nA new question ... #### 4", "3"),
        ("#### seven #### 7", "7"),
        ("#### Step one: count\n3 + 4 = 7\n#### 7\n#### 8", "7"),
        ("#### seven ####", None),
        ("####\n7", None),
        ("### 7", None),
        ("The answer is 7", None),
        ("#### \u0663", None),
        ("", None),
    ],
)
def test_examples(text, expected):
    assert extract_answer(text) == expected


@given(st.integers(), st.sampled_from(["", "$", " "]), st.sampled_from(["", ".", " dollars", "\nNext"]))
def test_integers_come_back(number, before, after):
    assert extract_answer(f"steps\n#### {before}{number:,}{after}") == str(number)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=4))
def test_decimals_keep_their_value_and_the_form_is_canonical(number):
    found = extract_answer(f"#### {number:,f}")
    assert Decimal(found) == number
    assert extract_answer(f"#### {found}") == found
    assert "." not in found or found[-1] not in "0."


@given(st.text() | st.text(alphabet="#$-., 0129\n").map(lambda text: "#### " + text))
def test_extraction_never_raises_and_gives_numbers(text):
    found = extract_answer(text)
    assert found is None or Decimal(found).is_finite()


def test_exact_match_by_hand():
    completions = ["#### 7", "#### 7.0", "so 7", "#### 8", "#### $1,200"]
    found = exact_match(completions, [7, "7", "7", "7", "steps\n#### 1200"])
    assert (found.value, found.n) == (0.6, 5)
    assert found.low < 0.6 < found.high


def test_generated_solutions_match_their_answers():
    drawn = [sample(random.Random(seed), "test") for seed in range(50)]
    solutions = [problem.solution for problem in drawn]
    assert exact_match(solutions, [problem.answer for problem in drawn]).value == 1
    assert exact_match(solutions, solutions).value == 1
    assert exact_match(solutions, [problem.answer + 1 for problem in drawn]).value == 0


@pytest.mark.parametrize("gold", ["seven", "", "7 apples", "#### ?"])
def test_a_gold_answer_that_is_no_number_is_a_user_error(gold):
    with pytest.raises(UserError, match="no number"):
        exact_match(["#### 7"], [gold])


def test_lengths_must_agree_and_something_be_there():
    with pytest.raises(UserError, match="2 completions and 1 answers"):
        exact_match(["", ""], [1])
    with pytest.raises(UserError):
        exact_match([], [])
