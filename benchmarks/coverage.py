"""How does the forget set that a model writes itself compare with real forget data? One Markdown table.

    python benchmarks/coverage.py --data raw --threads 1            # three tasks; `reveal-release testbed sources` lists the files
    python benchmarks/coverage.py --task code --records 128 --threads 1     # functions are generated, and need no file

The model's set is that of a run's first iteration. The real one is drawn as for `reveal-release compare --data-from real`, twice as large:
one half is what both are compared with, and the other half, as a second row, is what data from the same source come to. AUC: of a
classifier that tells a row's set from the real half (0.5: alike). Coverage: of the real half by the row's set, and density, with k = 5.
Distinct-2 and self-BLEU are of the row's set alone. Toxicity is compared by the comments; entities and code by the passage or the
problem and the answer.

Each run leaves its result in a folder of its own under --output: what is there is only read, and a stopped one goes on.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reveal_release import RunConfig
from reveal_release.config import RevealConfig
from reveal_release.metrics.coverage import density_and_coverage, separability
from reveal_release.metrics.diversity import distinct_n, self_bleu
from reveal_release.real_data import real_records
from reveal_release.release.patch import Patch
from reveal_release.report.progress import Reporter
from reveal_release.tasks import Record, Task
from reveal_release.workshop import Workshop

GROUP = 25
"""Texts that distinct-2 and self-BLEU are computed over at a time; all, where a model wrote fewer."""


def sets(task: str, seed: int, options: argparse.Namespace) -> tuple[list[str], list[str], list[str]]:
    """Texts of one size: self-generated, real, and real ones to be compared with."""
    folder = Path(options.output) / f"{task}-{seed}"
    settings = replace(RevealConfig(), records=options.records)
    config = RunConfig(task=task, model=options.model, output=str(folder), seed=seed, threads=options.threads, reveal=settings)
    w = Workshop(config, Reporter(), kind="coverage benchmark")
    own = w.generate_data(1, Patch(), w.reveal(1, Patch())).forget
    real = real_records(w.task, options.data, w.seed("real"), 2 * len(own))
    n = min(len(own), len(real) // 2)
    generated, other, reference = ([text(w.task, r) for r in part] for part in (own[:n], real[:n], real[n : 2 * n]))
    return generated, other, reference


def text(task: Task, record: Record) -> str:
    """What is the record's own: without the turns that are the same for all, and without the prompt where only the answer counts."""
    alone = task.novelty(record) == record.completion
    return record.completion if alone else f"{record.prompt[0][1]}\n{record.completion}"


def line(task: str, seed: int, name: str, texts: Sequence[str], reference: Sequence[str]) -> str:
    group = min(GROUP, len(texts))
    alone = (distinct_n(texts, 2, group), self_bleu(texts, group))
    figures = (*alone, separability(texts, reference), *density_and_coverage(reference, texts))
    return f"| {task} | {seed} | {name} | {len(texts)} | {' | '.join(f'{figure:.3f}' for figure in figures)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", default=["toxicity", "ner", "code"])
    parser.add_argument("--model", default="testbed-llama")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data", help="folder of the raw data sets")
    parser.add_argument("--records", type=int, default=RevealConfig().records, help="self-generated records to aim for")
    parser.add_argument("--output", default="out/coverage")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's default")
    options = parser.parse_args()
    if set(options.task) != {"code"} and not (options.data and Path(options.data).is_dir()):
        parser.error("give the folder of the raw data sets as --data (`reveal-release testbed sources` lists them)")
    rows = []
    for task in options.task:
        for seed in options.seeds:
            generated, real, reference = sets(task, seed, options)
            rows += [line(task, seed, "self-generated", generated, reference), line(task, seed, "real", real, reference)]
    print("| task | seed | set | n | distinct-2 | self-BLEU | AUC | density | coverage |\n|---|---|---|---|---|---|---|---|---|")
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
