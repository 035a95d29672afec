"""The page of results, docs/results.md, from stored result files: nothing on it is typed by hand but the readings.

    python benchmarks/results.py                                  # writes the page again from docs/results
    python benchmarks/results.py --add out/compare/compare.json   # stores the outcome of a `compare` or a `study orthogonality` first

A result is stored as docs/results/KIND-TASK-MODEL.json with the commit of the code that made it (--commit, by default HEAD). What is to be
read in it stands in KIND-TASK-MODEL.md beside it, and is put above its tables.

A method is on the front of forgetting against perplexity, or against the other skills, if no other in its table is at least as good in
both, and better in one. Means decide, so look at the intervals: two methods that cannot be told apart may both, or only one of them, be
on it.
"""

import argparse
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reveal_release.metrics.statistics import Estimate
from reveal_release.report.comparison import NEEDS, broken, entries
from reveal_release.report.console import duration, figure, label, percentage

Results = dict[str, Any]
DOCS = Path(__file__).parents[1] / "docs"
LOCAL = ("output", "environment")
"""What a stored result leaves out: it is of one machine."""
NO_SKILL = ("perplexity", "perplexity_per_byte", "distinct_2", "degenerate", "unparsed_answers", "unparsed_answers_wnut17")
"""Kept metrics that are no skill's score."""
OURS = "reveal-release"


def kind_of(results: Results) -> str:
    return "study" if "forgetting" in results else "compare"


def store(path: Path, commit: str) -> Path:
    results = json.loads(path.read_text(encoding="utf-8"))
    kept = {"commit": commit, **{key: value for key, value in results.items() if key not in LOCAL}}
    name = "-".join([kind_of(results), results["task"], re.sub(r"\W+", "-", Path(results["model"]).name)])
    stored = DOCS / "results" / f"{name}.json"
    stored.parent.mkdir(exist_ok=True)
    stored.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return stored


# -- a comparison ----------------------------------------------------------------------------------------------


def skills(row: Results, original: Results) -> float:
    """Mean change of the other skills' scores, in points."""
    names = [name for name in original["retain"] if name not in NO_SKILL]
    return 100 * sum(row["retain"][name]["value"] - original["retain"][name]["value"] for name in names) / len(names)


def on_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of points that are better the lower both figures are: whether no other dominates each."""

    def dominated(point: tuple[float, float]) -> bool:
        return any(other[0] <= point[0] and other[1] <= point[1] and other != point for other in points)

    return [not dominated(point) for point in points]


def comparison(results: Results) -> list[str]:
    original = results["original"]["metrics"]
    forgotten = next(iter(original["forget"]))
    rows = [row for row in results["rows"] if row["seeds"]]
    percent = percentage(forgotten, *(row["forget"][forgotten] for _, _, row in entries(results)))
    left = [row["forget"][forgotten]["value"] for row in rows]
    fluent = on_front([(x, row["retain"]["perplexity"]["value"]) for x, row in zip(left, rows, strict=True)])
    able = on_front([(x, -skills(row, original)) for x, row in zip(left, rows, strict=True)])
    header = ["method", "forget data", "needs", label(forgotten), "perplexity", "other skills, points", "broken", "time", "on the front"]
    table = [header, ["---"] * len(header)]
    for method, source, row in entries(results):
        bad = broken(row)
        cells = [
            figure(row["forget"][forgotten], percent), figure(row["retain"]["perplexity"], percent=False),
            f"{skills(row, original):+.1f}" if method != "original" else "", figure(bad, percent=True) if bad else "",
        ]  # fmt: skip
        if row in rows:
            at = rows.index(row)
            fronts = " and ".join(name for name, there in (("perplexity", fluent[at]), ("skills", able[at])) if there)
            need = NEEDS[source].format(max(row["records"]))
            table.append([method, source, need, *cells, duration(row["seconds"]), fronts or "no"])
        else:
            table.append([method, source, "", *cells, "", ""])
    missing = [f"{row['method']} on {row['source']} data" for row in results["rows"] if not row["seeds"]]
    note = [f"Too few forget records to train on: {', '.join(missing)}.", ""] if missing else []
    return [*_grid(table), "", *note, *against_ours(results, forgotten, percent)]


def against_ours(results: Results, forgotten: str, percent: bool) -> list[str]:
    """Each other method less ours with the same seed."""
    cells = {(cell["method"], cell["source"], cell["seed"]): cell["metrics"] for cell in results["cells"] if cell["metrics"]}
    ours = {seed: metrics for (method, _, seed), metrics in cells.items() if method == OURS}
    groups = dict.fromkeys((method, source) for method, source, seed in cells if method != OURS and seed in ours)
    if not groups:
        return []
    original = results["original"]["metrics"]
    header = [f"less {OURS} with the same seed", "forget data", "seeds", label(forgotten), "perplexity", "other skills, points"]
    table = [header, ["---"] * len(header)]
    for group in groups:
        pairs = [(cells[*group, seed], metrics) for seed, metrics in ours.items() if (*group, seed) in cells]
        differences = (
            _paired([one["forget"][forgotten]["value"] - own["forget"][forgotten]["value"] for one, own in pairs], 100 if percent else 1),
            _paired([one["retain"]["perplexity"]["value"] - own["retain"]["perplexity"]["value"] for one, own in pairs]),
            _paired([skills(one, original) - skills(own, original) for one, own in pairs]),
        )
        table.append([*group, str(len(pairs)), *differences])
    return [*_grid(table), ""]


def _paired(values: Sequence[float], factor: float = 1) -> str:
    scaled = [factor * value for value in values]
    return f"{Estimate.mean(scaled):+.1f}" if len(scaled) > 1 else f"{scaled[0]:+.1f}"


# -- a study ---------------------------------------------------------------------------------------------------


def study(results: Results) -> list[str]:
    forgotten = next(iter(results["original"]["forget"]))
    header = [
        "variant", "seeds", "still shown", label(forgotten), "utility lost", f"less that of {results['published']}", "by seed",
        "subspaces of A", "retain loss with −ΔW_f", "forget loss with ΔW_r", "time, s",
    ]  # fmt: skip
    table = [header, ["---"] * len(header)]
    lost = {(cell["variant"], cell["seed"]): cell["figures"]["utility_loss"] for cell in results["cells"] if not cell["failed"]}
    for row in results["rows"]:
        if not row["seeds"]:
            table.append([row["variant"], "0", *[""] * (len(header) - 2)])
            continue
        found, less = row["figures"], row["difference"]
        pairs = [(one, lost.get((results["published"], seed))) for (name, seed), one in lost.items() if name == row["variant"]]
        by_seed = ", ".join(f"{100 * (one['value'] - other['value']):+.1f}" for one, other in pairs if other) if less else ""
        table.append([
            row["variant"], str(row["seeds"]), figure(found["shown"], percent=True), figure(row["forget"][forgotten], percent=True),
            figure(found["utility_loss"], percent=True), figure(less["figures"]["utility_loss"], percent=True) if less else "", by_seed,
            figure(found["subspace_cosine"], percent=False), figure(found["retain_change"], percent=False),
            figure(found["forget_change"], percent=False), figure(found["seconds"], percent=False),
        ])  # fmt: skip
    return [*_grid(table), ""]


# -- the page --------------------------------------------------------------------------------------------------


def _grid(table: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in table]


def section(stored: Path) -> list[str]:
    results = json.loads(stored.read_text(encoding="utf-8"))
    kind, seeds, model = kind_of(results), results["seeds"], results["model"]
    if kind == "study":
        title = "how to keep what must stay, at equal forgetting"
        names = [row["variant"] for row in results["rows"]]
        command = f"study orthogonality --task {results['task']} --model {model} --variants {' '.join(names)} --seeds {_spaced(seeds)}"
    else:
        title = "beside other methods"
        methods = dict.fromkeys(row["method"] for row in results["rows"])
        sources = dict.fromkeys(row["source"] for row in results["rows"] if row["source"] != "own")
        command = f"compare --task {results['task']} --model {model} --methods {','.join(methods)} --data-from {','.join(sources)}"
        command += f" --seeds {','.join(map(str, seeds))}" + " --data raw" * ("real" in sources)
    reading = stored.with_suffix(".md")
    return [
        f"## {results['task']}, {model}: {title}",
        "",
        f"    reveal-release {command} --output OUT",
        "",
        f"Commit {results['commit']}; seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}.",
        "",
        *([reading.read_text(encoding="utf-8").strip(), ""] if reading.is_file() else []),
        *(study(results) if kind == "study" else comparison(results)),
    ]


def _spaced(values: Sequence[int]) -> str:
    return " ".join(map(str, values))


def page() -> str:
    lines = [
        "# Results",
        "",
        "Built by `python benchmarks/results.py` from the files in [results](results); only the readings are written by hand. Means over",
        "the seeds with 95 % intervals (of one seed its own), on held-out items that no search and no training saw. How each is made,",
        "and how far it is fair: [compare.md](compare.md), [study.md](study.md). On the front: no other method in the table is at least",
        "as good in both forgetting and perplexity (or the mean of the other skills' scores), and better in one, by the means.",
        "",
    ]
    for stored in sorted((DOCS / "results").glob("*.json")):
        lines += section(stored)
    return "\n".join(lines).rstrip("\n") + "\n"


def head() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=DOCS, capture_output=True, text=True, check=True)
    return found.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=Path, nargs="+", default=[], metavar="FILE", help="compare.json or study.json")
    parser.add_argument("--commit", help="of the code that made them; by default HEAD")
    options = parser.parse_args()
    for path in options.add:
        print(f"stored {store(path, options.commit or head())}")
    (DOCS / "results.md").write_text(page(), encoding="utf-8")
    print(f"written {DOCS / 'results.md'}")


if __name__ == "__main__":
    main()
