"""The tables of a comparison, from its results alone: `table.md` whole, and the terminal's, short.

    render_comparison(results, console)

Figures are means over the seeds with 95 % intervals over them; of one seed they are its own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from .tables import metric_tables, section
from .terminal import blank, line, title
from .words import clean, duration, figure, label, percentage

Results = dict[str, Any]
BROKEN = ("degenerate", "unparsed_answers")
"""What tells over-forgetting, the first that a task measures: broken texts, or answers that are no list."""


def labelled(row: Results) -> str:
    """How many labelled examples of the behaviour a user has to bring for a row of the table: the most that a seed was given."""
    return str(max(row["records"])) if row["source"] == "real" else "none"


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
    parts += metric_tables(["method", "data"], [([method, source], row) for method, source, row in entries(results)])
    if results["oracle"]:
        parts.append(_distances(results))
    parts.append(_costs(results))
    return "\n".join(parts)


def _distances(results: Results) -> str:
    """Absolute differences of the metrics, and the divergence of predictions, with three decimals, as methods lie close to each other."""
    rows = []
    names = [(part, name) for part in ("forget", "retain") for name in results["original"]["metrics"][part]]
    for method, source, row in entries(results):
        if method != "oracle":
            far = figure(row["divergence"], percent=False, digits=3)
            rows.append([method, source, far, *(f"{row['distance'][part][name]:.3g}" for part, name in names)])
    header = ["method", "data", "Jensen-Shannon, nats", *(label(name) for _, name in names)]
    return section("Distance to the oracle", header, rows)


def _costs(results: Results) -> str:
    header = ["method", "data", "labelled examples", "records", "time", "peak memory", "settings by seed", "not measured"]
    rows = []
    for row in results["rows"]:
        records = ", ".join(map(str, row["records"]))
        cost = [duration(row["seconds"]), f"{row['memory_mib'] / 1024:.1f} GiB"] if row["seeds"] else ["–", "–"]
        chosen = "; ".join(_setting(one) for one in row.get("chosen", ()))
        rows.append([row["method"], row["source"], labelled(row), records, *cost, chosen, "; ".join(map(clean, row["missing"]))])
    return section("What it took", header, rows)


def _setting(chosen: Results) -> str:
    if isinstance(chosen["scale"], list):
        return "scale " + ", ".join(f"{scale:.2g}" for scale in chosen["scale"])
    return f"rate {chosen['learning_rate']:.2g}, strength {chosen['strength']:g}, scale {chosen['scale']:.2g}, cost {chosen['cost']:.3f}"


def render_comparison(results: Results, console: Console) -> None:
    """One line a method: the first measure of forgetting, perplexity, broken answers, and the divergence from the oracle or, without
    one, the time: 80 columns hold no more."""
    forgotten = next(iter(results["original"]["metrics"]["forget"]))
    grid = blank()
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
    title(results, "Comparison", console)
    console.print(grid)
    for row in results["rows"]:
        for text in row["missing"]:
            line(console, f"{row['method']} on {row['source']} data, {clean(text)}", "dim")
    output = Path(results["output"])
    line(console, f"All figures: {output / 'table.md'}, {output / 'compare.json'}; drawn: {output / 'compare.svg'}", "dim")
