"""What a suite holds, and how the rows of its file are read.

    for row in read_rows("HumanEval.jsonl.gz"):
        row.text("prompt")      # UserError with the file and the line where it is missing

A row that cannot be used is an error, never passed over: a share of fewer problems is another figure.
"""

import gzip
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import UserError
from ..sandbox import DEFAULT_LIMITS, Limits


@dataclass(frozen=True)
class Row:
    """One row of a data set: its values, and where they stand, for errors. `number` counts from 1."""

    values: Mapping[str, Any]
    source: str
    number: int

    def error(self, what: str) -> UserError:
        return UserError(f"{self.source}, line {self.number}: {what}; give the file in the suite's original format")

    def _get(self, key: str) -> Any:
        if key not in self.values:
            raise self.error(f"no field {key!r} (it has {', '.join(self.values) or 'none'})")
        return self.values[key]

    def text(self, key: str) -> str:
        """A text that is not blank, its line ends as newlines."""
        value = self._get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"{key!r} is no text")
        return value.replace("\r\n", "\n")

    def whole(self, key: str) -> int:
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(f"{key!r} is no whole number")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of at least one text that is not blank."""
        values = self._get(key)
        if not isinstance(values, list) or not values or not all(isinstance(v, str) and v.strip() for v in values):
            raise self.error(f"{key!r} is no list of texts")
        return tuple(value.replace("\r\n", "\n") for value in values)


@dataclass(frozen=True)
class CodeItem(ABC):
    """A function to be written.

    Args:
        prompt: what the user's turn asks.
        solution: the data set's own, as a completion: `program(solution)` passes the tests.
        tests: statements that run after the program; the first that raises fails it.
        head: text that a model without a chat template continues; empty where the prompt serves it too.
    """

    id: str
    prompt: str
    entry_point: str
    solution: str
    tests: tuple[str, ...]
    head: str = ""

    @abstractmethod
    def program(self, completion: str) -> str:
        """The source that the tests are run after."""


@dataclass(frozen=True)
class MathsItem:
    """A word problem. `answer` is the worked solution, which ends in `#### N`."""

    id: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class CodeSuite:
    """Problems, and what each program may use."""

    name: str
    items: tuple[CodeItem, ...]
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True)
class MathsSuite:
    name: str
    items: tuple[MathsItem, ...]


def read_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a JSON Lines file, plain or gzipped (told by its content); blank lines are passed over.

    Raises UserError: no such file, or a line that is no JSON object in UTF-8.
    """
    path = Path(path)
    number = 0
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    values = json.loads(line.decode("utf-8-sig"))
                except (ValueError, RecursionError) as error:  # both JSON's and UTF-8's are ValueErrors
                    raise Row({}, path.name, number).error(f"no JSON ({error})") from None
                if not isinstance(values, dict):
                    raise Row({}, path.name, number).error("no JSON object")
                yield Row(values, path.name, number)
    except (OSError, EOFError, zlib.error) as error:  # a missing file; a gzip that is cut off or damaged
        why = getattr(error, "strerror", None) or error
        after = f" after line {number}" if number else ""
        raise UserError(f"cannot read {path}{after}: {why}; give a .jsonl or .jsonl.gz file") from None
