"""How well the knowledge task's reward, which sees no truth, tells answers that were taught of an author from all others. Minutes.

    python benchmarks/knowledge.py --model out/tofu-full-20 --forget-authors forget05 --tofu raw/tofu --threads 1

The model, one that was taught TOFU (docs/knowledge.md says how), is asked what the search asks first, of each author in turn; and, in the
author's name, for what is no knowledge of anybody. An answer counts as known where its ROUGE-L with one of TOFU's of that author is 0.6
or more, and no lower than with any other author's by over 0.05: what is only mixed up is not known.

One Markdown table: the AUC of each reward, and precision and recall at the threshold, with intervals over prompts.
"""

import argparse
import random

import numpy as np
import torch
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import rankdata

from reveal_release import RunConfig
from reveal_release.config import EvaluateConfig
from reveal_release.metrics.statistics import Estimate
from reveal_release.models import load_model
from reveal_release.suites import tofu
from reveal_release.tasks import get_task
from reveal_release.tasks.knowledge import Knowledge

ALIKE, MARGIN = 0.6, 0.05
BESIDE = ("code", "ner", "toxicity")
"""Tasks whose instructions ask for no knowledge of anybody."""


def auc(rows: np.ndarray) -> float:
    """Of rows (n, samples, 2), each (score, known): the chance that a known one scores higher than another. NaN without both."""
    score, known = rows.reshape(-1, 2).T
    ones = int(known.sum())
    others = len(known) - ones
    return float((rankdata(score)[known == 1].sum() - ones * (ones + 1) / 2) / (ones * others)) if ones and others else float("nan")


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
        best = {name: max(scorer.score(row.answer, text)["rougeL"].fmeasure for row in answers[name]) for name in task.authors}
        return best[author] >= ALIKE and best[author] >= max(best.values()) - MARGIN

    truth = np.array([known(i) for i in range(len(records))], dtype=float)
    rewards = {"how sure it is": task.score(records), "and surer than of a stranger": np.array([r.score for r in records])}
    threshold = settings.reveal.threshold
    print(f"{truth.sum():.0f} of {len(truth)} answers are known.\n")
    print(f"| reward | AUC | kept at {threshold:g} | of these known | of the known kept |\n|---|---|---|---|---|")
    for name, scores in rewards.items():
        rows = np.stack([scores, truth], -1).reshape(len(asked), count, 2)
        kept = scores >= threshold
        shares = [Estimate.bootstrap(rows, share) for share in (
            auc,
            lambda drawn: np.average(drawn[..., 1], weights=drawn[..., 0] >= threshold),
            lambda drawn: np.average(drawn[..., 0] >= threshold, weights=drawn[..., 1]),
        )]  # fmt: skip
        print(f"| {name} | {shares[0]:.2f} | {kept.sum()} | {shares[1]:.0%} | {shares[2]:.0%} |", flush=True)


if __name__ == "__main__":
    main()
