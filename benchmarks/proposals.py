"""What is each proposal source worth? The reward that a search finds with some of them, at equal calls, as one Markdown table.

    python benchmarks/proposals.py --threads 1                                  # three tasks, three seeds: hours
    python benchmarks/proposals.py --task toxicity --seeds 0 --threads 1        # one of each

Rows: all sources, the seeds alone, the seeds with one other source, and all without one. Most sources need something to begin with (what
to rewrite, outputs to guess from), so none stands alone without the seeds. A search is that of a run with default settings, and its
reward is that of its winner on samples that did not choose it. `arms` are different instructions that were offered, `calls` answers that
were drawn; where a search ran out of instructions both say so. `against all` is the mean difference to the row of all sources, with
the same seeds. Intervals are Student's t over seeds: of three, they are wide.

Each search leaves its result in a folder of its own under --output: what is there is only read, and a stopped search goes on.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from reveal_release import RunConfig
from reveal_release.config import RevealConfig
from reveal_release.metrics.statistics import Estimate
from reveal_release.release.patch import Patch
from reveal_release.report.progress import Reporter
from reveal_release.workshop import Workshop

OTHERS = ("rewrite", "user_turn", "induction", "soft_prompt")
ALL = ("seeds", *OTHERS)
ROWS = (
    {"all": ALL, "seeds": ("seeds",)}
    | {f"seeds, {name}": ("seeds", name) for name in OTHERS}
    | {f"all but {name}": tuple(other for other in ALL if other != name) for name in ALL}
)


def searched(task: str, seed: int, row: str, options: argparse.Namespace) -> dict:
    """What a search with the sources of a row found, from the disk where it was done before."""
    folder = Path(options.output) / f"{task}-{seed}" / row.replace(", ", "+").replace(" ", "-")
    settings = replace(RevealConfig(), sources=ROWS[row])
    config = RunConfig(task=task, model=options.model, output=str(folder), seed=seed, threads=options.threads, reveal=settings)
    return Workshop(config, Reporter(), kind="search").search("search", f"{task}, seed {seed}: {row}", Patch(), [])


def line(task: str, row: str, found: list[dict], whole: list[dict]) -> str:
    rewards, reference = (np.array([one["best"]["reward"]["value"] for one in cells]) for cells in (found, whole))
    arms, calls = (np.mean([one[name] for one in found]) for name in ("offered", "calls"))
    against = "" if row == "all" else f"{Estimate.mean(rewards - reference):+.3f}"
    each = " ".join(f"{reward:.2f}" for reward in rewards)
    return f"| {task} | {row} | {Estimate.mean(rewards):.3f} | {each} | {against} | {arms:.0f} | {calls:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", default=["toxicity", "ner", "code"])
    parser.add_argument("--model", default="testbed-llama")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", default="out/proposals")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's default")
    options = parser.parse_args()
    found = {(task, row): [searched(task, seed, row, options) for seed in options.seeds] for task in options.task for row in ROWS}
    print("| task | sources | found reward | by seed | against all | arms | calls |\n|---|---|---|---|---|---|---|")
    for (task, row), cells in found.items():
        print(line(task, row, cells, found[task, "all"]))


if __name__ == "__main__":
    main()
