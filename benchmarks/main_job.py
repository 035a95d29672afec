"""A task's main job on three seeds: every figure of the tables in the README, as Markdown.

    python benchmarks/main_job.py --task toxicity --output out/main_job        # runs what is not there yet, then prints

Each run is an ordinary `reveal-release run` with default settings, but for those that are given as that takes them
(`--forget-authors forget01`); a run that is there is only read.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from reveal_release import run
from reveal_release.config import UserError
from reveal_release.metrics.statistics import Estimate
from reveal_release.parsers import build_parser, dashed, run_config
from reveal_release.report.progress import Reporter
from reveal_release.report.words import falls


def table(results: list[dict]) -> str:
    """One row a metric: before, after for each seed, and the mean change (relative for perplexity and what should fall, else points).

    Before, all seeds have the same figures but for elicitation, of which it is the mean, with Student's t over the seeds.
    """
    seeds = " | ".join(f"after, seed {r['seed']}" for r in results)
    lines = [f"| metric | before | {seeds} | mean change |", "|---|---|" + "---|" * (len(results) + 1)]
    for part in ("forget", "retain"):
        for name in results[0]["before"][part]:
            before, after = ([r[when][part][name] for r in results] for when in ("before", "after"))
            relative = name.startswith("perplexity") or falls(part, name)
            lines.append(_row(name, before, after, relative=relative))
    elicited = [(r["elicitation"]["before"], r["elicitation"]["after"]) for r in results]
    lines.append(_row("strongest_elicitation", [b for b, _ in elicited], [a for _, a in elicited], relative=True))
    for label, values in (
        ("seconds", [sum(r["seconds"].values()) for r in results]),
        ("peak memory, MiB", [r["peak_memory_mib"] for r in results]),
        ("iterations", [len(r["iterations"]) for r in results]),
    ):
        lines.append(f"| {label} |  | {' | '.join(f'{v:.0f}' for v in values)} |  |")
    return "\n".join(lines)


def _row(name: str, before: list[dict], after: list[dict], relative: bool) -> str:
    old, new = np.array([e["value"] for e in before]), np.array([e["value"] for e in after])
    change = f"{100 * ((new - old) / old).mean():+.1f} %" if relative else f"{100 * (new - old).mean():+.1f} points"
    cells = " | ".join(_figure(e) for e in after)
    first = before[0] if len(set(old)) == 1 else asdict(Estimate.mean(old).in_unit())
    return f"| {name} | {_figure(first)} | {cells} | {change} |"


def _figure(e: dict) -> str:
    return f"{e['value']:.3g} [{e['low']:.3g}, {e['high']:.3g}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--task", default="toxicity")
    parser.add_argument("--model", default="testbed-llama")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", default="out/main_job")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of each run; 0 leaves torch's default")
    options, more = parser.parse_known_args()
    results = []
    for seed in options.seeds:
        folder = Path(options.output) / f"{options.task}-{Path(options.model).name}-{seed}"
        given = {"task": options.task, "model": options.model, "output": folder, "seed": seed}
        arguments = ["run", *map(dashed, more), "--threads", str(options.threads), *(f"--{name}={value}" for name, value in given.items())]
        config = run_config(build_parser().parse_args(arguments).run)
        results.append(run(config, Reporter()))  # a finished run of the same settings and model is only read; another is refused
    print(table(results))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
