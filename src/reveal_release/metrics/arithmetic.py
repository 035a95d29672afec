"""Exact match of the final number of worked solutions, in GSM8K's convention.

    extract_answer("3 + 4 = 7 apples.\\n#### 7")          # "7"
    exact_match(completions, ["7", 12, "#### 1,200"])      # an Estimate

A solution ends in `#### N` (Cobbe et al., 2021, arXiv:2110.14168). Only that number counts: not the steps, and not a
right number elsewhere in the text. As in GSM8K's own script the *first* `####` with a number behind it counts, so a model that
goes on with another problem is judged by the first, and headings (`#### Step one`) are passed over.
"""

import re
from collections.abc import Sequence

from ..config import UserError
from .statistics import Estimate

_SIGN = "[-\u2212]"  # ASCII and typographic minus
_NUMBER = re.compile(rf"({_SIGN}?)[ \t]*\$?[ \t]*({_SIGN}?)([0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)")
_MARK = re.compile(r"####[ \t]*")


def extract_answer(text: str) -> str | None:
    """The first number that follows a `####`, in canonical form, or None if none does. Never raises.

    Canonical: no dollar sign, thousands commas, leading or trailing zeros; "-0" is "0". "$1,200.50." is "1200.5".
    """
    numbers = (_NUMBER.match(text, mark.end()) for mark in _MARK.finditer(text))
    return next((_canonical(number) for number in numbers if number), None)


def exact_match(completions: Sequence[str], answers: Sequence[str | int]) -> Estimate:
    """Share of n completions whose `#### N` is the right number; one without a number is wrong.

    answers: n numbers, or gold solutions that hold `#### N`.
    Raises UserError if the lengths differ, there are none, or an answer is no number.
    """
    if len(completions) != len(answers):
        raise UserError(f"{len(completions)} completions and {len(answers)} answers: give one answer for each")
    right = 0
    for completion, answer in zip(completions, answers, strict=True):
        right += extract_answer(completion) == _gold(answer)
    return Estimate.proportion(right, len(answers))


def _gold(answer: str | int) -> str:
    text = str(answer)
    if "####" in text:
        found = extract_answer(text)
    else:
        number = _NUMBER.fullmatch(text.strip())
        found = _canonical(number) if number else None
    if found is None:
        raise UserError(f"the gold answer {text[:60]!r} is no number: give a number, or a solution with '#### N'")
    return found


def _canonical(number: re.Match[str]) -> str:
    whole, _, fraction = number[3].replace(",", "").partition(".")
    value = ".".join(filter(None, (whole.lstrip("0") or "0", fraction.rstrip("0"))))
    return "-" + value if (number[1] or number[2]) and value != "0" else value
