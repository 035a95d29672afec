"""How figures, times and texts are written. What a model wrote loses its control characters, and is never read as markup."""

import math
import re
import unicodedata
from typing import Any

Numbers = dict[str, Any]
"""An `Estimate` as a dictionary: value, n, low, high. In a results file a bound that is no number is None."""

WIDTH = 100
RISING = ("truth_ratio", "forget_quality")
"""What among the figures of forgetting rises as the behaviour goes."""
ELICITED = "strongest_elicitation"
FLOOR = 0.05
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # a terminal's CSI sequences: colours, cursor moves


def duration(seconds: float) -> str:
    """12.3 s, 4 min 5 s or 1 h 2 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def clean(text: str, length: int = WIDTH) -> str:
    """One line of what a model wrote: without control and formatting characters, cut to `length` characters."""
    kept = " ".join(printable(text).split())
    return kept if len(kept) <= length else kept[: length - 1] + "…"


def printable(text: str) -> str:
    """Without escape sequences, control, formatting (so also bidirectional) and surrogate characters; line breaks as spaces."""
    text = _ESCAPE.sub("", text)
    return "".join(c if not unicodedata.category(c).startswith(("C", "Z")) else " " if c.isspace() else "" for c in text)


def figure(estimate: Numbers, percent: bool, digits: int | None = None) -> str:
    """`34.2 % [31.0, 37.5]`, `9.87 [9.51, 10.22]`, `266 [238, 299]`; without the interval where there is none.

    digits: decimals of what is no percentage; by default as many as make three digits.
    """
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    scale, places, unit = (100, 1, " %") if percent else (1, _digits(value) if digits is None else digits, "")
    shown = "–" if _none(value) else f"{scale * value:.{places}f}{unit}"
    return shown if _none(low) or _none(high) else f"{shown} [{scale * low:.{places}f}, {scale * high:.{places}f}]"


def _digits(value: Any) -> int:
    """Decimals of a figure that is no percentage: three digits are shown, so that before and after fit a line."""
    return 2 if _none(value) or abs(value) < 10 else 1 if abs(value) < 100 else 0


def change(before: Numbers, after: Numbers, percent: bool, relative: bool) -> str:
    """Relative change in per cent, or the difference in points of a percentage."""
    a, b = before["value"], after["value"]
    if _none(a) or _none(b) or ((relative or not percent) and a == 0):
        return "–"
    if percent and not relative:
        return f"{100 * (b - a):+.1f} pt"
    return f"{100 * (b - a) / a:+.{0 if relative else 1}f} %"


def _none(value: float | None) -> bool:
    return value is None or math.isnan(value)


def percentage(name: str, *estimates: Numbers) -> bool:
    """Ratios, F1 and pass@1 lie in [0, 1] and are shown as percentages; a perplexity never is, nor an elicitation, a mean score."""
    return "perplexity" not in name and name != ELICITED and all(_none(e["value"]) or 0 <= e["value"] <= 1 for e in estimates)


def at_floor(name: str, estimate: Numbers) -> bool:
    """Whether it is a share of right answers, and next to none was right: what is not there cannot be seen to be kept."""
    right = name.startswith(("f1_", "code_pass", "maths_exact", "answers_kept"))
    return right and not _none(estimate["value"]) and estimate["value"] <= FLOOR


def falls(part: str, name: str) -> bool:
    """Whether a metric should fall to nothing, so that its change is told as a share of what it was."""
    return part == "forget" and name not in RISING  # of a p-value a share could be any power of ten


def label(name: str) -> str:
    words = {"f1": "F1", "rtp": "RTP", "rouge": "ROUGE", "l": "L"}
    name, rising = re.sub(r"pass_at_(\d+)", r"pass@\1", name).replace("expected_max_", "max_"), name in RISING
    return " ".join(words.get(word, word) for word in name.split("_")) + " ↑" * rising
