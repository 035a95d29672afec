"""Lists on the command line: `a,b` and `a b` alike."""

from .config import UserError


def study_seeds(given: list[str] | None, seed: int) -> list[int]:
    """One seed is no study, unless it was asked for."""
    return seeds(given) if given else [seed] if seed else [0, 1, 2]


def seeds(given: list[str]) -> list[int]:
    """Whole numbers, each once. Raises UserError for anything else."""
    return list(dict.fromkeys(whole_number(text) for text in names(",".join(given), "--seeds", "whole numbers")))


def variants(given: list[str]) -> list[str]:
    """Names that may have spaces in them, so that only commas part two in one argument."""
    return names(",".join(given), "--variants") if given else []


def numbers(given: list[str]) -> list[float]:
    """Raises UserError for what is no number."""
    parts = [part for text in given for part in text.split(",") if part]
    try:
        return [float(part) for part in parts]
    except ValueError:
        raise UserError(f"--weights has {','.join(parts)!r}: give numbers with commas between, such as 1,0.5") from None


def names(text: str, flag: str, what: str = "names") -> list[str]:
    """`a, b` as a list, without what is empty or there twice. Raises UserError where nothing is left."""
    found = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise UserError(f"{flag} names nothing: give {what} with commas between, or leave it out")
    return found


def whole_number(text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"--seeds has {text!r}: give whole numbers with commas between, such as 0,1,2")
    return int(text)
