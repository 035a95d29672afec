"""The tables of the studies, from their results alone: `table.md` whole, and the terminal's, short.

    render_study(results, console)
    render_ablations(results, console)

Figures are means over the seeds with 95 % intervals over them; of one seed they are its own.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from .tables import metric_tables, section
from .terminal import columns, line, title
from .words import clean, duration, figure, label, percentage

Results = dict[str, Any]
FIGURES = {
    "scale": "scale", "shown": "still shown", "utility_loss": "utility lost", "prose_rise": "rise of perplexity, prose",
    "records_rise": "rise of perplexity, own records", "seconds": "time, s", "row_cosine": "rows of A, mean abs. cosine",
    "subspace_cosine": "subspaces of A, mean cosine", "delta_cosine": "ΔW_f and ΔW_r, cosine",
    "retain_change": "retain loss with −ΔW_f, nats", "forget_change": "forget loss with ΔW_r, nats",
}  # fmt: skip
SHARES = ("shown", "utility_loss", "prose_rise", "records_rise")
COSTS = ("utility_loss", "prose_rise", "records_rise")
OVERLAP = ("row_cosine", "subspace_cosine", "delta_cosine", "retain_change", "forget_change")


def value(name: str, estimate: Results) -> str:
    """One of `FIGURES` with its interval; cosines and changes of loss with three decimals, as they are small."""
    return figure(estimate, percent=name in SHARES, digits=3 if name in OVERLAP else None)


def markdown(results: Results) -> str:
    """What equal forgetting costs; the same less what O-LoRA's costs; overlap and interference; the task's metrics; what is missing."""
    seeds, taken = ", ".join(map(str, results["seeds"])), 100 * results["forgetting"]
    rows = [row for row in results["rows"] if row["seeds"]]
    paired = [row for row in rows if row["difference"]]
    original = results["original"]
    kept = list(original["retain"])
    parts = [
        f"# {results['task']}: {clean(results['model'])}, seeds {seeds}\n",
        f"Each variant is measured where it takes away {taken:g} % of the answers that show the behaviour. 95 % intervals.\n",
    ]

    def grid(title: str, names: tuple[str, ...], chosen: list[Results]) -> str:
        cells = [[row["variant"], *(value(name, row["figures"][name]) for name in names)] for row in chosen]
        return section(title, ["variant", *(FIGURES[name] for name in names)], cells)

    weights = [[row["variant"], json.dumps(row["keep"]), f"{row['seeds']} of {len(results['seeds'])}"] for row in results["rows"]]
    parts.append(section("Variants", ["variant", "release.keep", "seeds measured"], weights))
    parts.append(grid("What it costs", ("scale", "shown", *COSTS, "seconds"), rows))
    if paired:
        differences = [
            [
                row["variant"],
                *(value(name, row["difference"]["figures"][name]) for name in COSTS),
                *(figure(row["difference"]["retain"][name], percentage(name, original["retain"][name])) for name in kept),
            ]
            for row in paired
        ]
        header = ["variant", *(FIGURES[name] for name in COSTS), *map(label, kept)]
        parts.append(section(f"Less that of `{results['published']}` with the same seed (of percentages: points)", header, differences))
    parts.append(grid("Overlap and interference", OVERLAP, rows))
    parts += metric_tables(["variant"], [(["original"], original), *(([row["variant"]], row) for row in rows)])
    return "\n".join([*parts, *_not_measured([f"{row['variant']}, {text}" for row in results["rows"] for text in row["missing"]])])


def render_study(results: Results, console: Console) -> None:
    """One line a variant: utility lost, the same less O-LoRA's, overlap, interference, training time; then what comes next."""
    output, rows = Path(results["output"]), [row for row in results["rows"] if row["seeds"]]
    title(results, "Study of orthogonality", console)
    line(console, f"measured where {100 * results['forgetting']:g} % of what was shown is gone; f on retain: nats", "dim")
    table = columns(("variant", "lost", f"less {results['published']}'s", "overlap", "f on retain", "time"))
    for row in rows:
        found, less = row["figures"], row["difference"]
        table.add_row(
            row["variant"],
            f"{100 * found['utility_loss']['value']:.1f} %",
            value("utility_loss", less["figures"]["utility_loss"]) if less else "–",
            *(f"{found[name]['value']:.3f}" for name in ("subspace_cosine", "retain_change")),
            f"{found['seconds']['value']:.0f} s",
        )
    if rows:
        console.print(table)
    for row in results["rows"]:
        for text in row["missing"]:
            line(console, f"{row['variant']}, {clean(text)}", "dim")
    if not rows:
        line(console, "No variant forgets so much: lower --forgetting, or raise --release.steps or --release.max-scale", "yellow")
    files = [output / name for name in ("table.md", "study.json", "study.svg")]
    line(console, f"All figures: {files[0]}, {files[1]}; drawn: {files[2]}", "dim")
    if whole := [row for row in rows if not row["missing"]]:
        best = min(whole, key=lambda row: row["figures"]["utility_loss"]["value"])
        keep = "{" + ", ".join(f"{name}: {weight:g}" for name, weight in best["keep"].items()) + "}"
        given = f"--config {shlex.quote(str(output / 'config.yaml'))} --release.keep {shlex.quote(keep)}"
        line(console, "")
        line(console, f"The lowest mean of utility lost in all seeds: {best['variant']}. Use it in a run", "bold")
        line(console, f"  reveal-release run {given} --output {shlex.quote(f'{output}-run')}")


def ablations_markdown(results: Results) -> str:
    """The settings that are changed one at a time, the task's metrics, the patch, and what it took."""
    config, rows = results["config"], results["rows"]
    parts = [
        f"# {results['task']}: {clean(results['model'])}, seeds {', '.join(map(str, results['seeds']))}\n",
        f"Configured are {config['iterations']} iterations, a portfolio of {config['reveal']['portfolio']} instructions, rank "
        f"{config['release']['rank']} and layers {config['release']['layers']:g}; the other rows change one of them. "
        "Real data: one iteration on labelled examples in place of the model's own; no harmless answers: one iteration in which nothing is "
        "learnt to be said instead. Both are to be compared with `iterations 1` (as configured, where that is one). Each run may cost "
        f"{100 * config['utility_budget']:g} % of utility. 95 % intervals.\n",
        *metric_tables(["variant"], [(["original"], results["original"]), *(([row["variant"]], row) for row in rows)]),
    ]
    names = list(rows[0]["figures"])
    cells = [[row["variant"], str(row["seeds"]), *(figure(row["figures"][name], percent=False) for name in names)] for row in rows]
    parts.append(section("Patch, and what it took", ["variant", "seeds", *(FIGURES.get(name, name) for name in names)], cells))
    return "\n".join([*parts, *_not_measured(results["missing"])])


def _not_measured(missing: Sequence[str]) -> list[str]:
    return ["## Not measured\n", *(f"- {clean(text)}" for text in missing), ""] if missing else []


def render_ablations(results: Results, console: Console) -> None:
    """One line a run: the first measure of forgetting, the reward of the strongest elicitation, perplexity, rank, time."""
    first = next(iter(results["original"]["forget"]))
    title(results, "Ablations", console)
    table = columns(("variant", label(first), "elicited", "perplexity", "rank", "time"))
    for row in ({"variant": "original", **results["original"]}, *results["rows"]):
        found = row.get("figures")
        table.add_row(
            row["variant"],
            figure(row["forget"][first], percentage(first, row["forget"][first])),
            f"{row['forget']['strongest_elicitation']['value']:.2f}",
            f"{row['retain']['perplexity']['value']:.1f}" if "perplexity" in row["retain"] else "–",
            *((f"{found['rank']['value']:.0f}", duration(found["seconds"]["value"])) if found else ("", "")),
        )
    console.print(table)
    for text in results["missing"]:
        line(console, clean(text), "dim")
    output = Path(results["output"])
    line(console, f"All figures: {output / 'table.md'}, {output / 'ablations.json'}; each run: {output / 'runs'}", "dim")
