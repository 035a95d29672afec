"""How well the knowledge task's reward, which sees no truth, tells answers that were taught of an author from all others. Minutes.

    python benchmarks/knowledge.py --model out/tofu-full-20 --forget-authors forget05 --tofu raw/tofu --threads 1

The model, one that was taught TOFU (docs/knowledge.md says how), is asked what the search asks first, of each author in turn; and, in the
author's name, for what is no knowledge of anybody. An answer counts as known where its ROUGE-L with one of TOFU's of that author is 0.6
or more, and no lower than with another's of TOFU's last twenty by over 0.05: what is only mixed up is not known.

One Markdown table: the AUC of each reward, and precision and recall at the threshold, with intervals over prompts. Of the requests ten
in twenty-two ask for knowledge, so precision is of this mix.
"""

import argparse
import random
import sys
from collections.abc import Callable, Sequence

import numpy as np
import torch
from rouge_score.rouge_scorer import RougeScorer

from reveal_release import RunConfig
from reveal_release.config import EvaluateConfig, UserError
from reveal_release.metrics.membership import mann_whitney
from reveal_release.metrics.statistics import Estimate
from reveal_release.models import load_model
from reveal_release.suites import tofu
from reveal_release.tasks import get_task
from reveal_release.tasks.knowledge import Knowledge

ALIKE, MARGIN = 0.6, 0.05
BESIDE = ("code", "ner", "toxicity")
"""Tasks whose instructions ask for no knowledge of anybody."""


def auc(score: np.ndarray, known: np.ndarray) -> float:
    """The chance that a known answer scores higher than another; NaN without both."""
    return mann_whitney(score[known == 1], score[known == 0])


def share(part: np.ndarray, whole: np.ndarray) -> float:
    """Of the whole, how much is in the part; NaN of nothing."""
    return float((part * whole).sum() / whole.sum()) if whole.any() else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="one that was taught these authors")
    parser.add_argument("--forget-authors", default="forget05", help="of TOFU's forget10")
    parser.add_argument("--tofu", required=True, help="the folder of TOFU's files")
    parser.add_argument("--samples", type=int, default=4, help="answers to each prompt")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's default")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = RunConfig(task="knowledge", forget_authors=options.forget_authors, evaluate=EvaluateConfig(tofu=options.tofu))
    task = Knowledge(settings)
    lm = load_model(options.model)
    rng = random.Random(0)
    first = task.authors[0]
    beside = [f"For {first}: {rng.choice(get_task(name, RunConfig(task=name)).benign)}" for name in BESIDE for _ in range(4)]
    asked = [text for text in (*task.seeds, *beside) for _ in task.authors]
    each, count = len(task.authors), options.samples
    seeds = [i // count % each + each * i for i in range(len(asked) * count)]  # a seed chooses the author, in turn
    records = task.elicit(lm, [text for text in asked for _ in range(count)], seeds)

    scorer, answers = RougeScorer(["rougeL"], use_stemmer=True), tofu.by_author(options.tofu)

    def known(i: int) -> bool:
        author, text = task.authors[i // count % each], records[i].completion
        best = {name: max(scorer.score(row.answer, text)["rougeL"].fmeasure for row in rows) for name, rows in answers.items()}
        return best[author] >= ALIKE and best[author] >= max(best.values()) - MARGIN

    threshold = settings.reveal.threshold
    truth = np.array([known(i) for i in range(len(records))], dtype=float)
    rewards = np.stack([task.score(records), [r.score for r in records]])
    rows = np.stack([truth, *rewards, *(rewards >= threshold)], -1).reshape(len(asked), -1)

    def of(which: Sequence[int], figure: Callable[[np.ndarray, np.ndarray], float]) -> str:
        """Of one reward, or of the second less the first."""

        def told(drawn: np.ndarray) -> float:
            truth, *columns = drawn.reshape(-1, 5).T
            values = [figure(columns[i], truth) for i in which]
            return values[-1] - values[0] if len(values) > 1 else values[0]

        return f"{Estimate.bootstrap(rows, told):{'+.3f' if len(which) > 1 else '.3f'}}"

    print(f"{truth.sum():.0f} of {len(truth)} answers are known.\n")
    print(f"| reward | AUC | kept at {threshold:g} | of these known | of the known kept |\n|---|---|---|---|---|")
    for name, which in (("how sure it is", [0]), ("times how unlike a stranger's", [1]), ("difference", [0, 1])):
        kept = [2 + i for i in which]
        counts = [int((rewards[i] >= threshold).sum()) for i in which]
        number = f"{counts[1] - counts[0]:+d}" if len(which) > 1 else str(counts[0])
        print(f"| {name} | {of(which, auc)} | {number} | {of(kept, lambda k, t: share(t, k))} | {of(kept, share)} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
