"""Lines and tables on the terminal, readable without colour."""

import os
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .words import clean


class LastingConsole(Console):
    """A console that falls silent when its reader, such as `head`, has had enough: the work that it tells of goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def line(console: Console, text: str, style: str = "") -> None:
    """One line as it is: no markup, no emoji codes, not broken, so that commands can be copied."""
    console.print(Text(text, style=style), soft_wrap=True)


def title(results: dict[str, Any], what: str, console: Console) -> None:
    """The first line over results of several seeds."""
    seeds = len(results["seeds"])
    line(console, "")
    line(console, f"{what}: {results['task']}, {clean(results['model'])}, {seeds} seed{'s' if seeds > 1 else ''}; 95 % intervals", "bold")


def blank() -> Table:
    """A table without columns yet."""
    return Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)


def columns(names: Sequence[str]) -> Table:
    """A table whose first column is text, and may be broken; in the others are figures."""
    table = blank()
    for name in names:
        table.add_column(name, justify="left" if name == names[0] else "right", no_wrap=name != names[0])
    return table


def heading(table: Table, text: str) -> None:
    """A row that names those below it."""
    table.add_row(Text(text, style="bold"))
