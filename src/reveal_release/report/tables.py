"""Tables in Markdown."""

from collections.abc import Sequence
from typing import Any

from .words import figure, label, percentage


def table_lines(header: list[str], rows: list[list[str]]) -> list[str]:
    """A table."""
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *("| " + " | ".join(row) + " |" for row in rows)]


def section(title: str, header: list[str], rows: list[list[str]]) -> str:
    """A table under a title."""
    return "\n".join([f"## {title}\n", *table_lines(header, rows)]) + "\n"


def metric_tables(header: list[str], entries: Sequence[tuple[list[str], dict[str, Any]]]) -> list[str]:
    """What should fall and what should stay: for each entry the cells that name it, under `header`, and its metrics by part."""
    tables = []
    for part, title in (("forget", "Forgotten (should fall)"), ("retain", "Kept (should stay)")):
        percent = {name: percentage(name, *(found[part][name] for _, found in entries)) for name in entries[0][1][part]}
        rows = [[*cells, *(figure(found[part][name], percent[name]) for name in percent)] for cells, found in entries]
        tables.append(section(title, [*header, *map(label, percent)], rows))
    return tables
