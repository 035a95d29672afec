"""How figures and texts are written."""

import math

import pytest

from reveal_release.report.words import change, clean, duration, figure, label

from .conftest import estimate


def test_clean_cuts_and_keeps_letters_of_every_script() -> None:
    assert clean("é 漢字 ا") == "é 漢字 ا"
    assert clean("a" * 101) == "a" * 99 + "…" and clean("a" * 100) == "a" * 100
    assert clean("a\r\n\t b\u2028c\u200b\ud800") == "a b c"


def test_figures_without_an_interval_and_from_zero() -> None:
    alone = {"value": 0.5, "n": 1, "low": math.nan, "high": None}
    assert figure(alone, percent=True) == "50.0 %"
    assert figure({**alone, "value": math.nan}, percent=True) == "–"
    assert change(estimate(0.0, 0.03), estimate(0.2, 0.03), percent=True, relative=True) == "–"
    assert change(estimate(0.0, 0.03), estimate(0.2, 0.03), percent=True, relative=False) == "+20.0 pt"


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (266.14, 237.73, 299.27, "266 [238, 299]"),
        (99.94, 95.0, 104.0, "99.9 [95.0, 104.0]"),
        (10.0, 9.456, 10.5, "10.0 [9.5, 10.5]"),
        (9.456, 9.0, 10.0, "9.46 [9.00, 10.00]"),
    ],
)
def test_large_figures_have_fewer_decimals(value: float, low: float, high: float, text: str) -> None:
    assert figure({"value": value, "n": 9, "low": low, "high": high}, percent=False) == text


@pytest.mark.parametrize(("name", "text"), [
    ("code_pass_at_1", "code pass@1"), ("expected_max_toxicity_rtp", "max toxicity RTP"), ("f1_person", "F1 person"),
    ("pass_rate", "pass rate"), ("expected_value", "expected value"),
])  # fmt: skip
def test_labels(name: str, text: str) -> None:
    assert label(name) == text


@pytest.mark.parametrize(("seconds", "text"), [(12.34, "12.3 s"), (59.99, "60.0 s"), (245, "4 min 5 s"), (3725, "1 h 2 min")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
