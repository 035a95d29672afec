"""TOFU's figures of a model, from its likelihoods one by one."""

import math
from pathlib import Path

import numpy as np
import pytest

from reveal_release.chat import Turns
from reveal_release.generation import Completion
from reveal_release.metrics.likelihood import conversation_log_probs
from reveal_release.metrics.tofu import probabilities
from reveal_release.models import LanguageModel
from reveal_release.suites.tofu import Question, read
from reveal_release.tasks import tofu as figures
from reveal_release.tasks.tofu import tofu_figures, truth_ratios


def files(folder: Path) -> dict[str, list[Question]]:
    """Two rows of each, of the forget rows forget01's first."""
    parts = {name: read(folder, f"{name}_perturbed")[:2] for name in ("retain", "real_authors", "world_facts")}
    return {"forget": read(folder, "forget10_perturbed")[360:362], **parts}


def test_figures_of_a_model(tofu: Path, lm: LanguageModel) -> None:
    steps: list[int] = []
    row = files(tofu)["forget"]
    reference = truth_ratios(lm, row)
    found = tofu_figures(lm, files(tofu), reference, lambda done, total: steps.append(done))
    asked = [(("user", one.question),) for one in row]
    def p(turns: Turns, text: str) -> float:
        return float(probabilities(conversation_log_probs(lm, [(turns, text)]))[0])

    right, other = (np.array([p(turns, text(one)) for turns, one in zip(asked, row, strict=True)]) for text in (
        lambda one: one.answer, lambda one: one.paraphrased,
    ))  # fmt: skip
    assert found.forget["probability"].value == pytest.approx(right.mean(), rel=1e-4) and found.forget["probability"].n == 2
    wrong = np.array([[p(asked[i], text) for text in row[i].perturbed] for i in range(2)])
    ratio = np.exp(np.log(wrong).mean(1)) / other
    assert reference == pytest.approx(ratio, rel=1e-3)
    assert found.forget["truth_ratio"].value == pytest.approx(np.minimum(ratio, 1 / ratio).mean(), rel=1e-3)
    told = found.forget["membership_auc_loss"]
    assert told.value == pytest.approx((right[:, None, None] > wrong).mean()) and told.n == 2, "questions"
    assert found.forget["forget_quality"].value == 1.0, "the model is its own reference"
    facts = files(tofu)["world_facts"]
    options = [np.array([p((("user", one.question),), text) for text in (one.answer, *one.perturbed)]) for one in facts]
    assert found.retain["probability_world_facts"].value == pytest.approx(np.mean([one[0] / one.sum() for one in options]), rel=1e-4)
    parts = [found.retain[f"{name}_{part}"].value for part in ("retain", "real_authors", "world_facts")
             for name in ("probability", "rouge_l", "truth_ratio")]  # fmt: skip
    expected = 0.0 if min(parts) == 0 else len(parts) / sum(1 / value for value in parts)
    assert found.retain["model_utility"].value == pytest.approx(expected) and found.retain["model_utility"].n == 6
    assert steps == sorted(steps) and steps[-1] == 1000


def test_a_model_that_recites_has_full_recall(tofu: Path, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {row.question: row.answer for row in read(tofu, "full")}
    monkeypatch.setattr(figures, "generate", lambda lm, prompts, *args, **rest: [Completion(answers.get(p[-1][1], "")) for p in prompts])
    found = tofu_figures(lm, files(tofu))
    assert found.forget["rouge_l"].value == 1.0 == found.retain["rouge_l_retain"].value and "forget_quality" not in found.forget
    assert found.forget["rouge_l_paraphrased_question"].value == 0.0 == found.retain["model_utility"].value
    assert math.isfinite(found.forget["truth_ratio"].value)
