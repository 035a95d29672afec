"""What long work shows: a progress bar for each phase, one line when it is done, and a log file.

    reporter = Reporter()
    with reporter.phase("Evaluate the original", total=10) as update:
        update(3, 10)

The remaining time is an estimate: the time so far, spread evenly over the work.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.text import Text

from .terminal import LastingConsole
from .words import clean, duration, printable

Update = Callable[[int, int], None]


class Reporting(Protocol):
    """What the loop asks of a reporter."""

    def phase(self, name: str, total: int | None = None) -> AbstractContextManager[Update]: ...
    def skip(self, name: str) -> None: ...
    def note(self, text: str) -> None: ...
    def log_to(self, path: Path) -> None: ...


class SilentReporter:
    """Shows and writes nothing."""

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Update]:
        yield lambda done, total: None

    def skip(self, name: str) -> None: ...
    def note(self, text: str) -> None: ...
    def log_to(self, path: Path) -> None: ...


class Reporter:
    """A progress bar for each phase and one line when it is done; without a terminal, the lines alone."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or LastingConsole()
        self._log: Path | None = None

    def log_to(self, path: Path) -> None:
        """From now on every line is also appended to this file, with the time of day."""
        self._log = Path(path)

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Update]:
        """Yields `update(done, total)`. A phase that fails leaves no line."""
        columns = (TextColumn("{task.description}", markup=False), BarColumn(12), TaskProgressColumn(), _Times())
        started = time.perf_counter()
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(clean(name, 36), total=total)  # fits 80 columns
            yield lambda done, total: progress.update(task, completed=done, total=total)
        self.note(f"{name}  {duration(time.perf_counter() - started)}")

    def skip(self, name: str) -> None:
        self.note(f"{name}  (kept from the earlier run)")

    def note(self, text: str) -> None:
        line = printable(text)
        self.console.print(Text(line), soft_wrap=True)
        if self._log:
            with self._log.open("a", encoding="utf-8") as log:
                log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")


class _Times(ProgressColumn):
    """Elapsed, and about how much is left."""

    def render(self, task: Task) -> Text:
        elapsed = task.elapsed or 0.0
        left = elapsed * (task.total - task.completed) / task.completed if task.total and task.completed else None
        return Text(f"{_clock(elapsed)} elapsed" + ("" if left is None else f", ~{_clock(left)} left"))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
