"""Figures, from results alone, as files: matplotlib without a display.

    forgetting_against_utility(results, Path("out/compare/compare.svg"))
    study_picture(results, Path("out/study/study.svg"))
"""

import math
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ..release.front import Point, pareto
from .comparison import entries
from .study import FIGURES
from .words import label

MARKERS = {"": "*", "own": "D", "self": "o", "real": "s", "name": "^"}
LEFT_OUT = ("perplexity_per_byte",)  # says what perplexity says
COLUMNS = 4


def front(iterations: list[dict[str, Any]], path: Path) -> None:
    """What every iteration's step could have been: the behaviour that is left, up, against the loss of utility, across.

    A line for each iteration through the Pareto front of the scales that were measured; hollow what another scale is better than in
    both; a star at the scale that was chosen.
    """
    figure = Figure(figsize=(5.0, 3.6), layout="constrained")
    panel = figure.subplots()
    for number, iteration in enumerate(one for one in iterations if one.get("front")):
        points = [Point(**point) for point in iteration["front"]]
        best, colour = pareto(points), f"C{number % 10}"
        panel.plot(_percent(best, "cost"), _percent(best, "shown"), "o-", color=colour, label=f"iteration {iteration['iteration']}")
        others = [point for point in points if point not in best]
        panel.plot(_percent(others, "cost"), _percent(others, "shown"), "o", color=colour, fillstyle="none")
        chosen = [point for point in points if point.scale == iteration["scale"] and point.scale]
        panel.plot(_percent(chosen, "cost"), _percent(chosen, "shown"), "*", color=colour, markersize=14)
    panel.set_xlabel("loss of utility, %")
    panel.set_ylabel("answers that show the behaviour, %")
    panel.legend(frameon=False)
    _save(figure, path)


def _percent(points: list[Point], name: str) -> list[float]:
    return [100 * getattr(point, name) for point in points]


def forgetting_against_utility(results: dict[str, Any], path: Path) -> None:
    """One panel for each kept metric: that metric across, the first measure of forgetting up, a point with its 95 % intervals a method.

    The colour tells the method, the marker where its forget data came from. The kind of file is that of the path's ending.
    """
    forgotten = next(iter(results["original"]["metrics"]["forget"]))
    kept = [name for name in results["original"]["metrics"]["retain"] if name not in LEFT_OUT]
    rows = list(entries(results))
    names = list(dict.fromkeys(method for method, _, _ in rows))
    colours = {name: "black" if name == "original" else "grey" if name == "oracle" else f"C{i % 10}" for i, name in enumerate(names)}
    across = min(COLUMNS, len(kept))
    down = math.ceil(len(kept) / across)
    figure = Figure(figsize=(3.1 * across, 2.7 * down + 0.8), layout="constrained")
    panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for panel, name in zip(panels, kept, strict=False):
        for method, source, row in rows:
            x, y = row["retain"][name], row["forget"][forgotten]
            text = f"{method}, {source} data" if source not in ("", "own") else method
            _point(panel, x, y, marker=MARKERS[source], color=colours[method], label=text)
        panel.set_xlabel(label(name))
    for panel in panels[len(kept) :]:
        panel.set_visible(False)
    for panel in panels[::across]:
        panel.set_ylabel(label(forgotten))
    _save_with_legend(figure, panels[0], path)


def study_picture(results: dict[str, Any], path: Path) -> None:
    """What equal forgetting costs of prose and of the model's own records, and interference against overlap: a point a variant.

    Of forgetting the first measure on held-out prompts is drawn, which is not what is made equal. The original is at no cost.
    """
    forgotten = next(iter(results["original"]["forget"]))
    rows = [row for row in results["rows"] if row["seeds"]]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 3)
    nothing = {"value": 0.0, "low": math.nan, "high": math.nan}
    for panel, name in zip(panels, ("prose_rise", "records_rise"), strict=False):
        _point(panel, nothing, results["original"]["forget"][forgotten], marker="*", color="black", label="original")
        panel.set(xlabel=FIGURES[name], ylabel=label(forgotten))
        for i, row in enumerate(rows):
            _point(panel, row["figures"][name], row["forget"][forgotten], **_look(i), label=row["variant"])
    for i, row in enumerate(rows):
        _point(panels[2], row["figures"]["subspace_cosine"], row["figures"]["retain_change"], **_look(i), label=row["variant"])
    panels[2].set(xlabel=FIGURES["subspace_cosine"], ylabel=FIGURES["retain_change"])
    _save_with_legend(figure, panels[0], path)


def _look(number: int) -> dict[str, str]:
    """Colour and marker of the n-th point: more pairs than there are colours."""
    return {"color": f"C{number % 10}", "marker": "osD^v"[number // 10 % 5]}


def _point(panel: Any, x: dict[str, float], y: dict[str, float], **look: str) -> None:
    panel.errorbar(x["value"], y["value"], xerr=_bar(x), yerr=_bar(y), elinewidth=0.7, linestyle="none", markersize=5, **look)


def _save_with_legend(figure: Figure, panel: Any, path: Path) -> None:
    """The legend of one panel, which is that of all."""
    handles, texts = panel.get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """The same figure gives the same bytes."""
    with matplotlib.rc_context({"svg.hashsalt": "reveal-release"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _bar(estimate: dict[str, float]) -> list[list[float]] | None:
    """The two arms of an interval, as errorbar takes them; none where there is no interval."""
    low, value, high = (estimate[key] for key in ("low", "value", "high"))
    return None if math.isnan(low) or math.isnan(high) else [[max(value - low, 0.0)], [max(high - value, 0.0)]]
