"""The tables of the page of results, each from what one or more stored files hold; `results.py` reads these and writes the page."""

import math
from collections.abc import Sequence
from typing import Any

from reveal_release.ablations import CONFIGURED, OTHER_DATA
from reveal_release.comparison import OURS
from reveal_release.metrics.statistics import Estimate
from reveal_release.release.front import Point, pareto
from reveal_release.report.comparison import broken, entries, labelled
from reveal_release.report.study import FIGURES, value
from reveal_release.report.tables import table_lines
from reveal_release.report.words import duration, figure, label, percentage

Results = dict[str, Any]
NO_SKILL = ("perplexity", "distinct_2", "degenerate", "unparsed_answers")
"""How the names of kept metrics begin that are no skill's score."""


# -- a comparison ----------------------------------------------------------------------------------------------


def skills(row: Results, original: Results) -> float:
    """Mean change of the other skills' scores, in points; NaN where none is measured."""
    changes = list(changed(row, original).values())
    return sum(changes) / len(changes) if changes else math.nan


def changed(row: Results, original: Results) -> dict[str, float]:
    """Of each other skill's score the change, in points. TOFU's model utility stands for its parts."""
    names = [name for name in original["retain"] if not name.startswith(NO_SKILL)]
    if "model_utility" in names:
        names = ["model_utility"]
    change = {name: row["retain"][name]["value"] - original["retain"][name]["value"] for name in names}
    return {name: round(100 * one, 6) for name, one in change.items()}  # 0.90 to 0.88 are 2 points, and no more


def points(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.1f}"


def on_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of points that are better the lower both figures are: whether no other dominates each."""
    best = {(point.cost, point.shown) for point in pareto(Point(0.0, *point) for point in points)}
    return [point in best for point in points]


def fronts(results: Results) -> list[str]:
    """On which fronts each measured row is, in words; empty where on none."""
    original = results["original"]["metrics"]
    forgotten = next(iter(original["forget"]))
    rows = [row for row in results["rows"] if row["seeds"]]
    left = [row["forget"][forgotten]["value"] for row in rows]
    fluent = on_front([(x, row["retain"]["perplexity"]["value"]) for x, row in zip(left, rows, strict=True)])
    lost = [-change if (change := skills(row, original)) == change else 0.0 for row in rows]  # where none is measured, none is lost
    able = on_front(list(zip(left, lost, strict=True)))
    return [
        " and ".join(name for name, there in (("perplexity", one), ("skills", other)) if there)
        for one, other in zip(fluent, able, strict=True)
    ]


def comparison(results: Results) -> list[str]:
    original = results["original"]["metrics"]
    forgotten = next(iter(original["forget"]))
    rows = [row for row in results["rows"] if row["seeds"]]
    percent = percentage(forgotten, *(row["forget"][forgotten] for _, _, row in entries(results)))
    on = fronts(results)
    header = [
        "method", "forget data", "labelled examples", "seeds", label(forgotten), "perplexity", "other skills, points", "broken",
        *["from the oracle, nats"] * bool(results["oracle"]), "time", "on the front",
    ]  # fmt: skip
    table = []
    for method, source, row in entries(results):
        bad = broken(row)
        cells = [
            figure(row["forget"][forgotten], percent), figure(row["retain"]["perplexity"], percent=False),
            points(skills(row, original)) if method != "original" else "", figure(bad, percent=True) if bad else "",
        ]  # fmt: skip
        if results["oracle"]:
            cells.append(figure(row["divergence"], percent=False, digits=3) if "divergence" in row else "")
        if row in rows:
            table.append([method, source, labelled(row), str(row["seeds"]), *cells, duration(row["seconds"]), on[rows.index(row)] or "no"])
        else:
            table.append([method, source, "", "", *cells, "", ""])
    missing = [f"{row['method']} on {row['source']} data, {why}" for row in results["rows"] for why in row["missing"]]
    note = [f"Not measured: {'; '.join(missing)}.", ""] if missing else []
    return [*table_lines(header, table), "", *note, *against_ours(results, forgotten, percent)]


def against_ours(results: Results, forgotten: str, percent: bool) -> list[str]:
    """Each other method less ours with the same seed."""
    cells = {(cell["method"], cell["source"], cell["seed"]): cell["metrics"] for cell in results["cells"] if cell["metrics"]}
    ours = {seed: metrics for (method, _, seed), metrics in cells.items() if method == OURS}
    pairs: dict[tuple[str, ...], list[tuple[Results, Results]]] = {}
    for (method, source, seed), metrics in cells.items():
        if method != OURS and seed in ours:
            pairs.setdefault((method, source), []).append((metrics, ours[seed]))
    names = (f"less {OURS} with the same seed", "forget data")
    return differences(names, pairs, results["original"]["metrics"], forgotten, percent)


def differences(
    names: tuple[str, ...],
    pairs: dict[tuple[str, ...], list[tuple[Results, Results]]],
    original: Results,
    forgotten: str,
    percent: bool,
) -> list[str]:
    """Of each group's pairs of metrics with the same seed, the first less the second, in the mean; `names` are of what names a group.

    The interval is over the pairs alone, and where all say the same there is none.
    """
    if not pairs:
        return []

    def told(values: Sequence[float]) -> str:
        if math.isnan(values[0]):
            return "–"
        mean = Estimate.mean(values)
        return f"{mean:+.1f}" if f"{mean.low:.1f}" != f"{mean.high:.1f}" else f"{mean.value:+.1f}"

    unit = ", points" if percent else ""
    table = []
    for group, both in pairs.items():
        less = (
            [(100 if percent else 1) * (one["forget"][forgotten]["value"] - other["forget"][forgotten]["value"]) for one, other in both],
            [one["retain"]["perplexity"]["value"] - other["retain"]["perplexity"]["value"] for one, other in both],
            [skills(one, original) - skills(other, original) for one, other in both],
        )
        table.append([*group, str(len(both)), *map(told, less)])
    return [*table_lines([*names, "seeds", label(forgotten) + unit, "perplexity", "other skills, points"], table), ""]


def at_a_glance(compared: Sequence[Results]) -> list[str]:
    """Comparisons of one model in one table, a column a task: what each method leaves, in bold where it is on a front."""
    header = ["method", "forget data", "labelled examples"]
    left: dict[tuple[str, str], dict[int, str]] = {("original", ""): {}, ("oracle", ""): {}, (OURS, "own"): {}}
    needs: dict[tuple[str, str], set[str]] = {}
    for number, results in enumerate(compared):
        forgotten = next(iter(results["original"]["metrics"]["forget"]))
        header.append(f"{results['task']}: {label(forgotten)}")
        measured = [(row["method"], row["source"]) for row in results["rows"] if row["seeds"]]
        best = {who for who, front in zip(measured, fronts(results), strict=True) if front}
        percent = percentage(forgotten, *(row["forget"][forgotten] for _, _, row in entries(results)))
        for method, source, row in entries(results):
            text = figure(row["forget"][forgotten], percent)
            left.setdefault((method, source), {})[number] = f"**{text}**" if (method, source) in best else text
            needs.setdefault((method, source), set()).add(labelled(row) if source else "")
    columns = range(len(compared))
    rows = [[*who, " or ".join(sorted(needs[who])), *(found.get(i, "") for i in columns)] for who, found in left.items() if found]
    return [*table_lines(header, rows), ""]


def run_by_run(compared: Sequence[Results], mark: float = 2.0) -> list[str]:
    """What each run of ours left and cost, the seeds side by side, and how many lost more than `mark` (per cent, or points)."""
    table, costs, losses = [], [], []
    for results in compared:
        original = results["original"]["metrics"]
        forgotten = next(iter(original["forget"]))
        runs = [cell["metrics"] for cell in results["cells"] if cell["method"] == OURS and cell["metrics"]]
        if not runs:
            continue
        left = [run["forget"][forgotten]["value"] for run in runs]
        percent = percentage(forgotten, *(run["forget"][forgotten] for run in runs))
        prose = original["retain"]["perplexity"]["value"]
        cost = [round(100 * (run["retain"]["perplexity"]["value"] / prose - 1), 6) for run in runs]
        changes = [changed(run, original) for run in runs]
        lost = [min(change.items(), key=lambda one: one[1]) for change in changes if change]
        table.append([
            results["task"], results["model"], label(forgotten) + ", %" * percent,
            ", ".join(f"{100 * one:.1f}" if percent else f"{one:.3g}" for one in left),
            ", ".join(f"{one:+.1f}" for one in cost), ", ".join(f"{one:+.1f} {label(name)}" for name, one in lost),
        ])  # fmt: skip
        costs, losses = costs + cost, losses + [-one for _, one in lost]
    header = ["task", "model", "metric", "left, by seed", "perplexity, %", "the skill that lost most, points"]
    dearer, poorer = ([one for one in all_runs if one > mark] for all_runs in (costs, losses))
    told = (
        f"Of {len(costs)} runs {len(dearer)} raised perplexity by more than {mark:g} %{_most(dearer)}, and {len(poorer)} took more than "
        f"{mark:g} points of a skill{_most(poorer)}."
    )
    return [*table_lines(header, table), "", told, ""]


def _most(figures: Sequence[float]) -> str:
    return f", at most {max(figures):.1f}" if figures else ""


# -- a study ---------------------------------------------------------------------------------------------------


def study(results: Results) -> list[str]:
    forgotten = next(iter(results["original"]["forget"]))
    percent = percentage(forgotten, *(row["forget"][forgotten] for row in (results["original"], *results["rows"]) if "forget" in row))
    published, names = results["published"], ("subspace_cosine", "retain_change", "forget_change", "seconds")
    header = [
        "variant", "seeds", FIGURES["shown"], label(forgotten), FIGURES["utility_loss"], f"less that of {published}, points", "by seed",
        *(FIGURES[name] for name in names),
    ]  # fmt: skip
    table = []
    done = [cell for cell in results["cells"] if not cell["failed"]]
    lost = {(cell["variant"], cell["seed"]): 100 * cell["figures"]["utility_loss"]["value"] for cell in done}
    for row in results["rows"]:
        if not row["seeds"]:
            table.append([row["variant"], "0", *[""] * (len(header) - 2)])
            continue
        found = row["figures"]
        pairs = [(one, lost.get((published, seed))) for (name, seed), one in lost.items() if name == row["variant"] != published]
        less = [one - other for one, other in pairs if other is not None]
        table.append([
            row["variant"], str(row["seeds"]), value("shown", found["shown"]), figure(row["forget"][forgotten], percent),
            value("utility_loss", found["utility_loss"]), f"{Estimate.mean(less):+.1f}" if less else "",
            ", ".join(f"{one:+.1f}" for one in less), *(value(name, found[name]) for name in names),
        ])  # fmt: skip
    return [*table_lines(header, table), ""]


# -- ablations -------------------------------------------------------------------------------------------------


def ablation(results: Results) -> list[str]:
    original, rows = results["original"], results["rows"]
    forgotten = next(iter(original["forget"]))
    percent = percentage(forgotten, *(row["forget"][forgotten] for row in (original, *rows)))
    header = [
        "variant", label(forgotten), "strongest elicitation", "perplexity", "other skills, points", "broken", "records", "rank", "time",
    ]  # fmt: skip
    table = []
    for row in ({"variant": "original", **original}, *rows):
        bad = broken(row)
        table.append([
            row["variant"], figure(row["forget"][forgotten], percent), figure(row["forget"]["strongest_elicitation"], percent=False),
            figure(row["retain"]["perplexity"], percent=False), points(skills(row, original)) if row["figures"] else "",
            figure(bad, percent=True) if bad else "", *took(row),
        ])  # fmt: skip
    cells = {(cell["variant"], cell["seed"]): cell for cell in results["cells"]}
    pairs: dict[tuple[str, ...], list[tuple[Results, Results]]] = {}
    for (variant, seed), cell in cells.items():
        other = "iterations 1" if variant in OTHER_DATA and ("iterations 1", seed) in cells else CONFIGURED
        if variant != other and (other, seed) in cells:
            pairs.setdefault((variant, other), []).append((cell, cells[other, seed]))
    names = ("difference with the same seed", "less that of")
    missing = [f"Not measured: {'; '.join(results['missing'])}.", ""] if results.get("missing") else []  # an older file has none
    return [*table_lines(header, table), "", *missing, *differences(names, pairs, original, forgotten, percent)]


def took(row: Results) -> list[str]:
    if not row["figures"]:  # the original's
        return [""] * 3
    records, rank, seconds = (row["figures"][name]["value"] for name in ("records", "rank", "seconds"))
    return [f"{records:.0f}", f"{rank:.0f}", duration(seconds)]
