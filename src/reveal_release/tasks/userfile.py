"""Files that a user writes for a task of their own: reading them, running the Python ones, and telling what is wrong by line.

    execute(Path("my_task.py")).Questions      # the file is run as Python, with all that it may do
"""

import hashlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ..config import UserError

PREFIX = "reveal_release_task_"
"""Of the names of modules that are a user's files."""


@dataclass(frozen=True)
class Problem:
    """What is wrong on a line (from 1), and how to mend it."""

    line: int
    text: str


class TaskFileError(UserError):
    """Everything that is wrong with a task's file. As a message it is the first problem and the number of others."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.path, self.problems = path, sorted(problems, key=lambda problem: problem.line)
        first, *others = self.lines()
        super().__init__(first + (f" (and {len(others)} more: `reveal-release tasks validate {path}` lists all)" if others else ""))

    def lines(self) -> list[str]:
        """`FILE:LINE: what is wrong: how to mend it`, one a problem, in the order of the file."""
        return [f"{self.path}:{problem.line}: {' '.join(problem.text.split())}" for problem in self.problems]


def source(path: Path) -> str:
    """The text of a file. Raises UserError where it cannot be read, TaskFileError where it is not UTF-8."""
    try:
        raw = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"no task file {str(path)!r} ({reason}): give a .yaml or .py file, or a name that `tasks` lists") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem(raw[: error.start].count(b"\n") + 1, "not UTF-8 text: save the file as UTF-8")
        raise TaskFileError(path, [problem]) from None


def execute(path: Path) -> ModuleType:
    """A Python file as a module of its own, run once for each text that it has; no bytecode is written beside it.

    Not promised: that the file can import others that lie beside it.

    Raises:
        UserError: it cannot be read.
        TaskFileError: it does not compile, or raises; with the line.
    """
    text = source(path)
    name = PREFIX + hashlib.sha256(f"{path.resolve()}\0{text}".encode("utf-8", "replace")).hexdigest()[:16]
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # where dataclasses and pickle look classes up
    try:
        exec(compile(text, str(path.resolve()), "exec"), module.__dict__)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception | SystemExit):
            raise
        raise TaskFileError(path, [raised(error, path)]) from None
    return module


def raised(error: BaseException, path: Path) -> Problem:
    """What a user's code raised, at the innermost line of its file."""
    file = str(path.resolve())
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines.append(error.lineno)
    text = str(error) if isinstance(error, UserError) else f"raises {type(error).__name__} ({error}): mend the Python"
    return Problem((lines[-1] if lines else None) or 1, text)


def of_user(error: BaseException) -> TaskFileError | None:
    """What is told of an exception that a user's file raised, itself or in a library that it called; None of any other."""
    paths = [Path(one.__file__) for name, one in list(sys.modules.items()) if name.startswith(PREFIX) and one.__file__]
    files = {str(path.resolve()): path for path in paths}
    ours = f"{Path(__file__).parents[1]}{os.sep}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if path := files.get(frame.filename):
            return TaskFileError(path, [raised(error, path)])
        if frame.filename.startswith(ours):
            break
    return None
