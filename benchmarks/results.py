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
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from result_tables import Results, ablation, at_a_glance, comparison, run_by_run, study

from reveal_release import RunConfig
from reveal_release.ablations import REAL
from reveal_release.ablations import rows_of as rows_of_ablations
from reveal_release.comparison import rows_of as rows_of_comparison
from reveal_release.config import ReleaseConfig, UserError
from reveal_release.files import write_results
from reveal_release.study import rows_of as rows_of_study

DOCS = Path(__file__).parents[1] / "docs"
LOCAL = ("output", "environment")
"""What a stored result leaves out: it is of one machine."""


def kind_of(results: Results, path: Path | str = "it") -> str:
    """Raises UserError for what is neither a comparison nor one of the studies."""
    for kind, key in (("study", "published"), ("compare", "utility_budget"), ("ablations", "config")):
        if results.keys() >= {key, "cells", "rows", "seeds"}:
            return kind
    raise UserError(f"{path} is not the compare.json of `compare`, nor the study.json or ablations.json of `study`")


def with_training(results: Results) -> Results:
    """With the precision that each cell was trained in: it is of the processor, so that seeds may differ by it, and is kept for that."""
    training = results.get("environment", {}).get("training")
    return {**results, "cells": [{"training": training, **cell} for cell in results["cells"]]} if training else results


def store(path: Path, commit: str, *suffix: str) -> Path:
    """`suffix`: what tells it from another of its kind, task and model. Raises UserError for another file; nothing is changed then."""
    results = json.loads(path.read_text(encoding="utf-8"))
    kind = kind_of(results, path)
    results = with_training(results)
    kept = {"commit": commit, **{key: value for key, value in results.items() if key not in (*LOCAL, "commit")}}  # its own if stored before
    if "config" in kept:
        kept["config"] = {**kept["config"], "output": "OUT"}
    own = Path(results["task"])  # a task of one's own is a file
    parts = [kind, own.stem, re.sub(r"\W+", "-", Path(results["model"]).name), *suffix]
    name = "-".join(parts)
    stored = DOCS / "results" / f"{name}.json"
    stored.parent.mkdir(exist_ok=True)
    stored.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return stored


def joined(paths: Sequence[Path]) -> Results:
    """One comparison of several, which have other seeds, methods or data; of a cell that several have, the last.

    The settings are those of all, or of each the default as it then was.

    Raises:
        UserError: they are not of one task, model and settings.
    """
    parts = [json.loads(path.read_text(encoding="utf-8"), object_hook=_numbers) for path in paths]
    first = parts[0]
    for path, part in zip(paths, parts, strict=True):
        if kind_of(part, path) != "compare":
            raise UserError(f"{path} is no comparison")
        for key in ("task", "task_identity", "model", "config_hash", "utility_budget"):
            if part.get(key) != first.get(key) and not (key == "config_hash" and defaults(part).keys() >= {part[key], first[key]}):
                raise UserError(f"{path} has {key} {part.get(key)}, and {paths[0]} {first.get(key)}: they are no parts of one comparison")
        if (part["oracle"] or {}).get("model") != (first["oracle"] or {}).get("model"):
            raise UserError(f"{path} and {paths[0]} have not the same oracle, or only one of them has one: measure both beside it")
        for name, estimate in part["original"]["metrics"]["forget"].items():
            if not math.isclose(estimate["value"], first["original"]["metrics"]["forget"][name]["value"], abs_tol=0.01):
                raise UserError(f"{path} and {paths[0]} have other figures of the original: they are no parts of one comparison")
    cells = {(cell["method"], cell["source"], cell["seed"]): cell for part in parts for cell in with_training(part)["cells"]}
    ordered = sorted(cells.values(), key=lambda cell: cell["seed"])
    seeds, settings = sorted({cell["seed"] for cell in ordered}), parts[-1]["config_hash"]
    whole = {key: value for key, value in first.items() if key != "environment"}  # it is of the first part alone
    return {**whole, "config_hash": settings, "seeds": seeds, "cells": ordered, "rows": rows_of_comparison(ordered)}


def _numbers(row: Results) -> Results:
    """With NaN for the bounds that an estimate has not, which JSON has no word for."""
    return {key: math.nan if value is None else value for key, value in row.items()} if row.keys() >= {"value", "low", "high"} else row


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


BEFORE_ASCENT = ReleaseConfig(ascent=0.0)
"""The default before 3bf9a43: a step was the mean of its pairs alone, as it still is for a skill."""
BEFORE_PAIRS = replace(BEFORE_ASCENT, pairs=1, steps=60, retain_steps=80, max_scale=12.0)
"""The default of 9db9e72, which averaged no pairs of modules."""
BEFORE_ENDING = replace(BEFORE_PAIRS, keep={"kl": 8.0, "olora": 1e-4, "skill-null-space": 0.5})
"""The default before 9db9e72."""


def defaults(results: Results) -> dict[str, str]:
    """What is the default for its task and model, and what was: in words, by its hash."""
    default, usual = RunConfig(task=results["task"], model=results["model"]), "default settings"
    earlier = (
        (usual if results["task"] == "code" else "the default settings before 3bf9a43, without the ascent module", BEFORE_ASCENT),
        ("the default settings of 9db9e72, one pair of modules", BEFORE_PAIRS),
        ("the default settings before 9db9e72, without `ending`", BEFORE_ENDING),
    )
    return {default.hash(): usual, **{replace(default, release=one).hash(): words for words, one in earlier}}


def configured(results: Results) -> str:
    return defaults(results).get(results["config_hash"], "other settings than the default")


KINDS = {
    "ablations": ("study ablations", "one setting changed"),
    "compare": ("compare", "beside other methods"),
    "study": ("study orthogonality", "how to keep what must stay, at equal forgetting"),
}
"""What makes each kind of result, and the title of its section."""
TABLES = {"ablations": ablation, "compare": comparison, "study": study}
ROWS = {"ablations": rows_of_ablations, "compare": rows_of_comparison, "study": rows_of_study}
"""What puts a result's cells together, one a seed: done anew, so that all intervals on the page are reckoned alike."""


def read(stored: Path) -> Results:
    results: Results = json.loads(stored.read_text(encoding="utf-8"), object_hook=_numbers)
    results["rows"] = ROWS[kind_of(results, stored)](results["cells"])
    return results


def trained(results: Results) -> str:
    """What the cells were trained in, where it is known: `, 3 of 9 cells trained in bfloat16`."""
    cells = results["cells"]
    known = Counter(cell["training"] for cell in cells if "training" in cell)
    return "".join(f", {n} of {len(cells)} cells trained in {name}" for name, n in sorted(known.items()))


def section(results: Results, reading: Path) -> list[str]:
    kind, seeds = kind_of(results), results["seeds"]
    return [
        f"## {results['task']}, {results['model']}: {KINDS[kind][1]}",
        "",
        f"    {command(results)}",
        "",
        f"Commit {results['commit']}, {configured(results)}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}{trained(results)}.",
        "",
        *([reading.read_text(encoding="utf-8").strip().replace("](../", "]("), ""] if reading.is_file() else []),  # from its folder, below
        *TABLES[kind](results),
    ]


INTRODUCTION = """# Results

`python benchmarks/results.py` builds this page from the files in [results](results); only the readings are written by hand. Metrics
are of held-out items that no search and no training saw, the same for all seeds and methods. [compare.md](compare.md) and
[study.md](study.md) tell how the results are made, how fair they are, and what else they measure. (What a study calls still shown
and utility lost is of validation data.)

- **Figures** are means over the seeds with 95 % intervals; with one seed it is the interval of that seed. An interval of a mean covers
  the spread of the seeds, and is never narrower than the mean width of their own intervals over the items. That of a difference covers
  the seeds alone, so it holds for these items.
- **The front.** A method is on the front if no other in its table is at least as good in both forgetting and perplexity (or forgetting
  and the mean change of the other skills' scores), and better in one of them. Means decide that, so look at the intervals: of two
  methods that cannot be told apart, one may be on the front and the other not. A method that changes next to nothing may be on it, too,
  because it costs little.
- **Precision.** A CPU with AMX trains in bfloat16, any other in float32. Each section says for how many cells (a method with a seed)
  this is known.

First comes one table per model, of all tasks: bold is what is on one of these fronts, empty is what has not been measured. The sections
of each task have the costs, what each method was given, and how to read it.
"""


def page() -> str:
    stored = {path: read(path) for path in sorted((DOCS / "results").glob("*.json"))}
    compared = [results for results in stored.values() if kind_of(results) == "compare"]
    lines = [INTRODUCTION]
    for model in dict.fromkeys(results["model"] for results in compared):
        lines += [f"## {model}: what each method leaves", "", *at_a_glance([one for one in compared if one["model"] == model])]
    lines += ["## reveal-release: each run", "", *run_by_run(compared)]
    for path, results in stored.items():
        lines += section(results, path.with_suffix(".md"))
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
        except (UserError, OSError) as error:
            parser.error(str(error))
    (DOCS / "results.md").write_text(page(), encoding="utf-8")
    print(f"written {DOCS / 'results.md'}")


if __name__ == "__main__":
    main()
