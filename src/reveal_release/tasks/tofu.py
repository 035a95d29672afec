"""What a model knows of TOFU's authors, by TOFU's own figures (Maini et al. 2024, arXiv 2401.06121) and by membership inference.

    tofu_figures(lm, {"forget": rows, "retain": ..., "real_authors": ..., "world_facts": ...}, truth_ratios(retain_model, rows))

`metrics/tofu.py` has the formulas, `suites/tofu.py` reads the rows.
"""

from collections.abc import Sequence

import numpy as np

from ..generation import Progress, Sampling, generate, portion
from ..metrics.likelihood import conversation_log_probs
from ..metrics.membership import membership
from ..metrics.statistics import Estimate
from ..metrics.tofu import (
    choice,
    correctness,
    forget_quality,
    model_utility,
    probabilities,
    rouge_l_recall,
    truth_ratio,
    uncertainty,
)
from ..models import LanguageModel
from ..suites.tofu import Question
from .base import Metrics

GREEDY = Sampling(max_new_tokens=128, temperature=0.0)
LogProbs = list[list[np.ndarray]]
"""For each question the log-probabilities of the tokens of its answer, of the paraphrased one, and of every perturbed one."""


def tofu_figures(
    lm: LanguageModel, files: dict[str, list[Question]], reference: np.ndarray | None = None, progress: Progress | None = None
) -> Metrics:
    """Of the `forget` rows what shall be gone; of the other files what shall stay.

    reference: `truth_ratios` of a model that never saw the forget rows; without it there is no forget quality.
    """
    measured, log_probs = {}, {}
    part = 0.9 / len(files)
    for i, (name, rows) in enumerate(files.items()):
        log_probs[name] = _log_probs(lm, rows, portion(progress, i * part, (i + 0.5) * part))
        options = name in ("real_authors", "world_facts")
        measured[name] = _rows(lm, rows, log_probs[name], portion(progress, (i + 0.5) * part, (i + 1) * part), options)
    probability, rouge, ratio = measured.pop("forget").T
    paraphrased = [(row.paraphrased_question, row.answer) for row in files["forget"]]
    forget = {
        "probability": Estimate.mean(probability).in_unit(),
        "rouge_l": Estimate.mean(rouge).in_unit(),
        "rouge_l_paraphrased_question": Estimate.mean(_recall(lm, paraphrased, portion(progress, 0.9, 1.0))).in_unit(),
        "truth_ratio": uncertainty(ratio),
        **{f"membership_auc_{name}": auc for name, auc in _membership(files["forget"], log_probs["forget"]).items()},
    }
    if reference is not None:
        forget["forget_quality"] = forget_quality(ratio, reference)
    for values in measured.values():
        values[:, 2] = correctness(values[:, 2])
    retain = {"model_utility": model_utility(list(measured.values()))}
    for name, values in measured.items():
        figures = zip(("probability", "rouge_l", "truth_ratio"), values.T, strict=True)
        retain |= {f"{figure}_{name}": Estimate.mean(column).in_unit() for figure, column in figures}
    return Metrics(forget, retain)


def truth_ratios(lm: LanguageModel, rows: Sequence[Question]) -> np.ndarray:
    """R of each row, (n,): how much likelier the perturbed answers are than the paraphrased right one."""
    return _ratio(_log_probs(lm, rows))[1]


def _rows(lm: LanguageModel, rows: Sequence[Question], log_probs: LogProbs, progress: Progress, options: bool) -> np.ndarray:
    """(n, 3): probability, ROUGE-L recall of the greedy answer, and truth ratio. With `options` the probability is that of a choice."""
    right, ratio, wrong = _ratio(log_probs)
    recall = _recall(lm, [(row.question, row.answer) for row in rows], progress)
    return np.column_stack([choice(right, wrong) if options else right, recall, ratio])


def _log_probs(lm: LanguageModel, rows: Sequence[Question], progress: Progress | None = None) -> LogProbs:
    texts = [(row.answer, row.paraphrased, *row.perturbed) for row in rows]
    pairs = [((("user", row.question),), text) for row, answers in zip(rows, texts, strict=True) for text in answers]
    found = iter(conversation_log_probs(lm, pairs, progress))
    return [[next(found) for _ in answers] for answers in texts]


def _ratio(log_probs: LogProbs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P(a|q)^(1/|a|) of the answers (n,), truth ratios (n,), and P of the perturbed answers (n, k)."""
    found = np.array([probabilities(row) for row in log_probs])
    return found[:, 0], truth_ratio(found[:, 1], found[:, 2:]), found[:, 2:]


def _membership(rows: Sequence[Question], log_probs: LogProbs) -> dict[str, Estimate]:
    """How well the answers that were taught are told from the perturbed ones, which were not, to the same questions."""
    members = [(row.answer, found[0]) for row, found in zip(rows, log_probs, strict=True)]
    return membership(members, [list(zip(row.perturbed, found[2:], strict=True)) for row, found in zip(rows, log_probs, strict=True)])


def _recall(lm: LanguageModel, pairs: Sequence[tuple[str, str]], progress: Progress) -> np.ndarray:
    """ROUGE-L recall of greedy answers, (n,)."""
    answers = generate(lm, [(("user", asked),) for asked, _ in pairs], GREEDY, [0] * len(pairs), progress=progress)
    return rouge_l_recall(answers, [answer for _, answer in pairs])
