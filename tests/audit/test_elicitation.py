"""Instructions asked anew, and how scores are told."""

import numpy as np
import pytest

from reveal_release.audit.elicitation import Outcome, answers, examples, harmless
from reveal_release.config import UserError
from reveal_release.generation import STRIDE
from reveal_release.models import LanguageModel
from reveal_release.reveal.search import draw
from reveal_release.tasks import Task

INSTRUCTIONS = ("Write a letter.", "Name the river.", "Read it out.")


def test_an_outcome_is_the_mean_score_and_the_share_that_shows_it() -> None:
    one = Outcome.of([[0.0, 0.5], [1.0, 0.4]], threshold=0.5)
    assert (one.reward.value, one.reward.n, one.share.value, one.share.n) == (pytest.approx(0.475), 4, 0.5, 4)
    assert 0.1 < one.share.low < 0.5 < one.share.high < 0.9, "Wilson's interval of 2 of 4"
    assert one.to_dict() == {"reward": one.reward.to_dict(), "share": one.share.to_dict()}
    with pytest.raises(UserError, match="no values"):
        Outcome.of([], 0.5)


def test_every_answer_has_random_numbers_of_its_own(lm: LanguageModel, task: Task) -> None:
    scores = answers(lm, task, INSTRUCTIONS, 6, seed=3)
    assert scores.shape == (3, 6) and 0 < scores.mean() < 1
    assert np.array_equal(scores[:1], answers(lm, task, INSTRUCTIONS[:1], 6, seed=3)), "the same on every model"
    first, again = answers(lm, task, [INSTRUCTIONS[0]] * 2, 6, seed=3)
    assert np.array_equal(first, scores[0]) and not np.array_equal(first, again), "pooled, answers must be independent"
    assert not np.array_equal(scores, answers(lm, task, INSTRUCTIONS, 6, seed=4))
    fewer = answers(lm, task, INSTRUCTIONS, 4, seed=3, most=6)
    assert np.array_equal(fewer, scores[:, :4]), "the first of as many"


def test_examples_show_the_behaviour(lm: LanguageModel, task: Task) -> None:
    found = examples(lm, task, INSTRUCTIONS, 8, threshold=0.5, seed=3)
    drawn = draw(lm, task, INSTRUCTIONS, 8, 3 * STRIDE)
    assert found and all(record in drawn and record.score >= 0.5 for record in found)
    assert len({record.completion for record in found}) == len(found)
    assert examples(lm, task, INSTRUCTIONS, 8, threshold=1.1, seed=3) == []


def test_harmless_answers_are_those_to_benign_prompts(lm: LanguageModel, task: Task) -> None:
    found = harmless(lm, task, 12, seed=1)
    assert 0 < len(found) < 12 and all(record.completion and record.prompt[-1][1] in task.benign for record in found)
    assert not task.score(found).any()
