"""Hand-made figures, and a terminal that is read back."""

import io
from typing import Any

from rich.console import Console


def estimate(value: float, half: float) -> dict[str, Any]:
    return {"value": value, "n": 100, "low": value - half, "high": value + half}


def console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width)


def shown(one: Console) -> str:
    assert isinstance(one.file, io.StringIO)
    return one.file.getvalue()
