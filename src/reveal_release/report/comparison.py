"""The tables of a comparison, from its results alone: `table.md` whole, and the terminal's, short.

    render_comparison(results, console)

Figures are means over the seeds with 95 % intervals over them; of one seed they are its own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .console import clean, duration, figure, label, percentage

Results = dict[str, Any]
NEEDS = {"real": "{} labelled examples", "self": "none", "name": "none", "own": "none"}
"""What a user has to bring, by the source of the forget data."""
BROKEN = ("degenerate", "unparsed_answers")
"""What tells over-forgetting, the first that a task measures: broken texts, or answers that are no list."""


def broken(row: Results) -> Results | None:
    return next((row["retain"][name] for name in BROKEN if name in row["retain"]), None)


def entries(results: Results) -> Iterator[tuple[str, str, Results]]:
    """(method, source of its data, figures) of the original, the oracle and every row that was measured."""
    original = results["original"]
    yield "original", "", {**original["metrics"], "distance": original["distance"], "divergence": original["divergence"]}
    if results["oracle"]:
        yield "oracle", "", results["oracle"]["metrics"]
    yield from ((row["method"], row["source"], row) for row in results["rows"] if row["seeds"])


def markdown(results: Results) -> str:
    """Four tables: what is forgotten, what is kept, the distance to the oracle, what it took and which settings were chosen."""
    seeds = ", ".join(map(str, results["seeds"]))
    parts = [
        f"# {results['task']}: {clean(results['model'])}, seeds {seeds}\n",
        f"Every method may cost {100 * results['utility_budget']:g} % of utility. 95 % intervals.\n",
    ]
    for part, title in (("forget", "Forgotten (should fall)"), ("retain", "Kept (should stay)")):
        names = list(results["original"]["metrics"][part])
        percent = {name: percentage(name, *(row[part][name] for _, _, row in entries(results))) for name in names}
        rows = [[method, source, *(figure(row[part][name], percent[name]) for name in names)] for method, source, row in entries(results)]
        parts.append(_grid(title, ["method", "data", *map(label, names)], rows))
    if results["oracle"]:
        parts.append(_distances(results))
    parts.append(_costs(results))
    return "\n".join(parts)


def _distances(results: Results) -> str:
    """Absolute differences of the metrics, and the divergence of predictions."""
    rows = []
    names = [(part, name) for part in ("forget", "retain") for name in results["original"]["metrics"][part]]
    for method, source, row in entries(results):
        if method != "oracle":
            rows.append([method, source, nats(row["divergence"]), *(f"{row['distance'][part][name]:.3g}" for part, name in names)])
    return _grid("Distance to the oracle", ["method", "data", "Jensen-Shannon, nats", *(label(name) for _, name in names)], rows)


def nats(divergence: Results) -> str:
    """Three decimals: methods within one budget are close to each other."""
    value, low, high = (f"{divergence[part]:.3f}" for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _costs(results: Results) -> str:
    header = ["method", "data", "needs of the behaviour", "records", "time", "peak memory", "settings by seed", "not measured"]
    rows = []
    for row in results["rows"]:
        records = ", ".join(map(str, row["records"]))
        needs = NEEDS[row["source"]].format(max(row["records"]))
        cost = [duration(row["seconds"]), f"{row['memory_mib'] / 1024:.1f} GiB"] if row["seeds"] else ["–", "–"]
        chosen = "; ".join(_setting(one) for one in row.get("chosen", ()))
        rows.append([row["method"], row["source"], needs, records, *cost, chosen, "; ".join(map(clean, row["missing"]))])
    return _grid("What it took", header, rows)


def _setting(chosen: Results) -> str:
    if isinstance(chosen["scale"], list):
        return "scale " + ", ".join(f"{scale:.2g}" for scale in chosen["scale"])
    return f"rate {chosen['learning_rate']:.2g}, strength {chosen['strength']:g}, scale {chosen['scale']:.2g}, cost {chosen['cost']:.3f}"


def _grid(title: str, header: list[str], rows: list[list[str]]) -> str:
    return "\n".join([f"## {title}\n", *table_lines(header, rows)]) + "\n"


def table_lines(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *("| " + " | ".join(row) + " |" for row in rows)]


def render_comparison(results: Results, console: Console) -> None:
    """One line a method: the first measure of forgetting, perplexity, broken answers, and the divergence from the oracle or, without
    one, the time: 80 columns hold no more."""

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    forgotten = next(iter(results["original"]["metrics"]["forget"]))
    grid = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    for column in ("method", "data", label(forgotten), "perplexity", "broken", "from oracle" if results["oracle"] else "time"):
        grid.add_column(column, justify="left" if column in ("method", "data") else "right", no_wrap=True)
    for method, source, row in entries(results):
        before, after = (one["retain"].get("perplexity") for one in (results["original"]["metrics"], row))
        worse = f"{100 * (after['value'] / before['value'] - 1):+.1f} %" if before and after else "–"
        bad = broken(row)
        cells = [
            method, source, figure(row["forget"][forgotten], percentage(forgotten, row["forget"][forgotten])), worse,
            f"{100 * bad['value']:.1f} %" if bad else "–",
        ]  # fmt: skip
        if results["oracle"]:
            cells.append(f"{row['divergence']['value']:.3f}" if "divergence" in row else "")
        else:
            cells.append(duration(row["seconds"]) if "seconds" in row else "")
        grid.add_row(*cells)
    seeds = len(results["seeds"])
    say("")
    say(f"Comparison: {results['task']}, {clean(results['model'])}, {seeds} seed{'s' if seeds > 1 else ''}; 95 % intervals", "bold")
    console.print(grid)
    for row in results["rows"]:
        for text in row["missing"]:
            say(f"{row['method']} on {row['source']} data, {clean(text)}", "dim")
    output = Path(results["output"])
    say(f"All figures: {output / 'table.md'}, {output / 'compare.json'}; drawn: {output / 'compare.svg'}", "dim")
