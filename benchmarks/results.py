"""The page of results, docs/results.md, from stored result files: nothing on it is typed by hand but the readings.

    python benchmarks/results.py                                  # writes the page again from docs/results
    python benchmarks/results.py --add out/compare/compare.json --commit COMMIT   # stores the outcome of a `compare` or a study first
    python benchmarks/results.py --join --add A/compare.json B/compare.json --commit COMMIT   # whose seeds or methods were made apart

A result is stored as docs/results/KIND-TASK-MODEL[-SUFFIX].json with the commit of the code that made it. What is to be read in it stands
in a .md of that name beside it, and is put above its tables. The page says what a front is, and what it does not tell.
"""

import argparse
import json
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from reveal_release import RunConfig
from reveal_release.ablations import CONFIGURED, REAL
from reveal_release.ablations import rows_of as rows_of_ablations
from reveal_release.comparison import OURS
from reveal_release.comparison import rows_of as rows_of_comparison
from reveal_release.config import UserError
from reveal_release.files import write_results
from reveal_release.metrics.statistics import Estimate
from reveal_release.release.front import Point, pareto
from reveal_release.report.comparison import NEEDS, broken, entries
from reveal_release.report.study import FIGURES, value
from reveal_release.report.tables import table_lines
from reveal_release.report.words import duration, figure, label, percentage
from reveal_release.study import rows_of as rows_of_study

Results = dict[str, Any]
DOCS = Path(__file__).parents[1] / "docs"
LOCAL = ("output", "environment")
"""What a stored result leaves out: it is of one machine."""
NO_SKILL = ("perplexity", "distinct_2", "degenerate", "unparsed_answers")
"""How the names of kept metrics begin that are no skill's score."""


def kind_of(results: Results, path: Path | str = "it") -> str:
    """Raises UserError for what is neither a comparison nor one of the studies."""
    for kind, key in (("study", "published"), ("compare", "utility_budget"), ("ablations", "config")):
        if results.keys() >= {key, "cells", "rows", "seeds"}:
            return kind
    raise UserError(f"{path} is not the compare.json of `compare`, nor the study.json or ablations.json of `study`")


def store(path: Path, commit: str, *suffix: str) -> Path:
    """`suffix`: what tells it from another of its kind, task and model. Raises UserError for another file; nothing is changed then."""
    results = json.loads(path.read_text(encoding="utf-8"))
    kept = {"commit": commit, **{key: value for key, value in results.items() if key not in (*LOCAL, "commit")}}  # its own if stored before
    own = Path(results["task"])  # a task of one's own is a file
    parts = [kind_of(results, path), own.stem, re.sub(r"\W+", "-", Path(results["model"]).name), *suffix]
    name = "-".join(parts)
    stored = DOCS / "results" / f"{name}.json"
    stored.parent.mkdir(exist_ok=True)
    stored.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return stored


def joined(paths: Sequence[Path]) -> Results:
    """One comparison of several, which have other seeds, methods or data; of a cell that several have, the last.

    Raises:
        UserError: they are not of one task, model and settings.
    """
    parts = [json.loads(path.read_text(encoding="utf-8"), object_hook=_numbers) for path in paths]
    first = parts[0]
    for path, part in zip(paths, parts, strict=True):
        if kind_of(part, path) != "compare":
            raise UserError(f"{path} is no comparison")
        for key in ("task", "task_identity", "model", "config_hash", "utility_budget"):
            if part.get(key) != first.get(key):
                raise UserError(f"{path} has {key} {part.get(key)}, and {paths[0]} {first.get(key)}: they are no parts of one comparison")
        if (part["oracle"] or {}).get("model") != (first["oracle"] or {}).get("model"):
            raise UserError(f"{path} and {paths[0]} have not the same oracle, or only one of them has one: measure both beside it")
        for name, estimate in part["original"]["metrics"]["forget"].items():
            if not math.isclose(estimate["value"], first["original"]["metrics"]["forget"][name]["value"], abs_tol=0.01):
                raise UserError(f"{path} and {paths[0]} have other figures of the original: they are no parts of one comparison")
    cells = {(cell["method"], cell["source"], cell["seed"]): cell for part in parts for cell in part["cells"]}
    ordered = sorted(cells.values(), key=lambda cell: cell["seed"])
    return {**first, "seeds": sorted({cell["seed"] for cell in ordered}), "cells": ordered, "rows": rows_of_comparison(ordered)}


def _numbers(row: Results) -> Results:
    """With NaN for the bounds that an estimate has not, which JSON has no word for."""
    return {key: math.nan if value is None else value for key, value in row.items()} if row.keys() >= {"value", "low", "high"} else row


# -- a comparison ----------------------------------------------------------------------------------------------


def skills(row: Results, original: Results) -> float:
    """Mean change of the other skills' scores, in points; NaN where none is measured. TOFU's model utility stands for its parts."""
    names = [name for name in original["retain"] if not name.startswith(NO_SKILL)]
    if "model_utility" in names:
        names = ["model_utility"]
    changes = [row["retain"][name]["value"] - original["retain"][name]["value"] for name in names]
    return 100 * sum(changes) / len(changes) if changes else math.nan


def points(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.1f}"


def on_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of points that are better the lower both figures are: whether no other dominates each."""
    best = {(point.cost, point.shown) for point in pareto(Point(0.0, *point) for point in points)}
    return [point in best for point in points]


def comparison(results: Results) -> list[str]:
    original = results["original"]["metrics"]
    forgotten = next(iter(original["forget"]))
    rows = [row for row in results["rows"] if row["seeds"]]
    percent = percentage(forgotten, *(row["forget"][forgotten] for _, _, row in entries(results)))
    left = [row["forget"][forgotten]["value"] for row in rows]
    fluent = on_front([(x, row["retain"]["perplexity"]["value"]) for x, row in zip(left, rows, strict=True)])
    lost = [-change if (change := skills(row, original)) == change else 0.0 for row in rows]  # where none is measured, none is lost
    able = on_front(list(zip(left, lost, strict=True)))
    header = [
        "method", "forget data", "needs", "seeds", label(forgotten), "perplexity", "other skills, points", "broken",
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
            at = rows.index(row)
            fronts = " and ".join(name for name, there in (("perplexity", fluent[at]), ("skills", able[at])) if there)
            need = NEEDS[source].format(max(row["records"]))
            table.append([method, source, need, str(row["seeds"]), *cells, duration(row["seconds"]), fronts or "no"])
        else:
            table.append([method, source, "", "", *cells, "", ""])
    missing = [f"{row['method']} on {row['source']} data, {why}" for row in results["rows"] for why in row.get("missing", ())]
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
        other = "iterations 1" if variant in REAL else CONFIGURED
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


# -- the page --------------------------------------------------------------------------------------------------


def command(results: Results) -> str:
    """What makes the result again; settings that are not its command's own are told apart by `configured`."""
    kind = kind_of(results)
    name, _ = KINDS[kind]
    parts = ["reveal-release", name, "--task", results["task"], "--model", results["model"]]
    if kind == "compare":
        sources = dict.fromkeys(row["source"] for row in results["rows"] if row["source"] != "own")
        parts += ["--methods", ",".join(dict.fromkeys(row["method"] for row in results["rows"]))]
        parts += ["--data-from", ",".join(sources)] * bool(sources) + ["--data", "raw"] * ("real" in sources)
        parts += ["--oracle", "ORACLE"] * bool(results["oracle"])
    else:
        variants = [row["variant"] for row in results["rows"]]
        parts += ["--variants", shlex.quote(",".join(variants))] + ["--data", "raw"] * any(one in REAL for one in variants)
        parts += [f"--forgetting {results['forgetting']:g}"] if kind == "study" else []
    return " ".join([*parts, "--seeds", ",".join(map(str, results["seeds"])), "--output", "OUT"])


def configured(results: Results) -> str:
    default = RunConfig(task=results["task"], model=results["model"])
    return "default settings" if default.hash() == results["config_hash"] else "other settings than the default"


KINDS = {
    "ablations": ("study ablations", "one setting changed"),
    "compare": ("compare", "beside other methods"),
    "study": ("study orthogonality", "how to keep what must stay, at equal forgetting"),
}
"""What makes each kind of result, and the title of its section."""
TABLES = {"ablations": ablation, "compare": comparison, "study": study}
ROWS = {"ablations": rows_of_ablations, "compare": rows_of_comparison, "study": rows_of_study}
"""What puts a result's cells together, one a seed: done anew, so that all intervals on the page are reckoned alike."""


def section(stored: Path) -> list[str]:
    results = json.loads(stored.read_text(encoding="utf-8"), object_hook=_numbers)
    kind, seeds = kind_of(results, stored), results["seeds"]
    results["rows"] = ROWS[kind](results["cells"])
    _, title = KINDS[kind]
    reading = stored.with_suffix(".md")
    return [
        f"## {results['task']}, {results['model']}: {title}",
        "",
        f"    {command(results)}",
        "",
        f"Commit {results['commit']}, {configured(results)}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}.",
        "",
        *([reading.read_text(encoding="utf-8").strip(), ""] if reading.is_file() else []),
        *TABLES[kind](results),
    ]


def page() -> str:
    lines = [
        "# Results",
        "",
        "Built by `python benchmarks/results.py` from the files in [results](results); only the readings are written by hand. Metrics are",
        "of held-out items that no search and no training saw, the same for all seeds and methods; means over the seeds with 95 %",
        "intervals, of one seed its own. An interval is over the seeds, but no narrower than the seeds' own, over the items, are in the",
        "mean; that of a difference is over the seeds alone: it holds for these items. How the results are made, what else they measure",
        "(what a study calls still shown and utility lost are of validation data), and how far they are fair: [compare.md](compare.md),",
        "[study.md](study.md).",
        "",
        "A method is on the front if no other in its table is at least as good in both forgetting and perplexity (or forgetting and the",
        "mean change of the other skills' scores), and better in one. Means decide that, so look at the intervals: of two methods that",
        "cannot be told apart one may be on it. And a method that changes next to nothing may be, for it costs little.",
        "",
    ]
    for stored in sorted((DOCS / "results").glob("*.json")):
        lines += section(stored)
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=Path, nargs="+", default=[], metavar="FILE", help="compare.json, study.json or ablations.json")
    parser.add_argument("--commit", help="of the code that made them")
    parser.add_argument("--join", action="store_true", help="the files are parts of one comparison: store them as one")
    parser.add_argument("--suffix", help="of the stored file's name, beside another result of this kind, task and model")
    options = parser.parse_args()
    if options.add and not options.commit:
        parser.error("give the commit of the code that made the results as --commit")
    if options.join and not options.add:
        parser.error("--join is for the files that --add names: give them")
    with TemporaryDirectory() as folder:
        try:
            whole = [write_results(Path(folder) / "compare.json", joined(options.add))] if options.join else options.add
            for path in whole:
                print(f"stored {store(path, options.commit, *filter(None, [options.suffix]))}")
        except UserError as error:
            parser.error(str(error))
    (DOCS / "results.md").write_text(page(), encoding="utf-8")
    print(f"written {DOCS / 'results.md'}")


if __name__ == "__main__":
    main()
