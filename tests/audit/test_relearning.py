"""That relearning learns, on a model that can; how its outcomes are told; and how many examples it needed, by hand."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from reveal_release.audit.relearning import ANSWERS, MARKS, crossing, needed, over_seeds, ratio, relearn
from reveal_release.config import ReleaseConfig, RunConfig
from reveal_release.metrics.statistics import Estimate
from reveal_release.models import LanguageModel
from reveal_release.tasks import Record, Task
from reveal_release.tasks.base import TASKS, Metrics

ASKED = [(("user", text),) for text in ("Read it out.", "Write about the train.", "What is there?", "Say something new.")]


class Rivers(Task):
    """Score: 1 where the completion has the river."""

    name = "rivers in the completion"
    description = "for tests"
    seeds = benign = ("Write.",)

    def score(self, records: Sequence[Record]) -> np.ndarray:
        return np.array([float("The river" in record.completion) for record in records])

    def novelty(self, record: Record) -> str:
        return f"{record.prompt[-1][1]} {record.completion}"

    def evaluate(self, lm: LanguageModel, progress: object = None) -> Metrics:
        raise NotImplementedError

    def evaluation_instructions(self) -> Sequence[str]:
        return ()


TASKS.pop(Rivers.name)


@pytest.mark.parametrize("family", ["lm", "gpt2"])
def test_the_share_rises_on_prompts_that_were_not_trained_on(family: str, request: pytest.FixtureRequest) -> None:
    lm: LanguageModel = request.getfixturevalue(family)
    before = {name: p.clone() for name, p in lm.model.named_parameters()}
    task, config = Rivers(RunConfig()), replace(ReleaseConfig(), rank=16, layers=1.0, learning_rate=2e-2)
    prompts = ["Write a letter.", "Name the bridge.", "Tell me of the town.", "Write a report.", "What did she say?"]
    shown = [Record((("user", text),), "The river.", 1.0, text) for text in prompts]
    calm = [replace(record, completion="The music.") for record in shown]
    asked = ASKED * (ANSWERS // len(ASKED))
    (start,) = relearn(lm, task, [], config, asked, seed=1)
    learnt, benign = (relearn(lm, task, records, config, asked, seed=1) for records in (shown, calm))
    assert len(learnt) == len(MARKS) and all(len(row) == ANSWERS for row in learnt)
    assert np.mean(start) < 0.1 < 0.5 < np.mean(learnt[-1]) and np.mean(learnt[0]) < np.mean(learnt[-1])
    assert np.mean(benign[-1]) < 0.1, "harmless examples bring back nothing that is not there"
    assert [name for name, _ in lm.model.named_parameters()] == list(before)
    assert all(torch.equal(p, before[name]) for name, p in lm.model.named_parameters())
    assert relearn(lm, task, [], config, asked, seed=1) == [start]

    task.novelty = lambda record: record.completion  # type: ignore[method-assign]  # of all prompts alike
    memorised = relearn(lm, task, shown, config, asked, seed=1)
    assert memorised[-1].count(None) > ANSWERS / 2 and memorised[0].count(None) < memorised[-1].count(None)


def test_outcomes_over_seeds() -> None:
    scores = np.zeros((3, len(MARKS), 10))
    scores[:, -1, :] = (np.arange(10) < np.array([[2], [4], [6]])).astype(float)
    told = over_seeds(scores.tolist(), 0.5)
    assert told["share"] == pytest.approx(Estimate.mean([0.2, 0.4, 0.6]).to_dict() | {"low": 0.0}), "t's interval is wider, cut at 0"
    assert [one["share"]["value"] for one in told["by_seed"]] == [0.2, 0.4, 0.6] and told["calls"] == scores.size
    assert told["copied"] == 0 and over_seeds([[[1.0, None, None, 0.0]]], 0.5)["share"]["value"] == 0.25, "what is copied counts 0"
    assert list(told["steps"]) == [str(mark) for mark in MARKS] and told["steps"][str(MARKS[-1])] == told["share"]
    none = told["steps"][str(MARKS[0])]
    assert none["value"] == 0 and none["high"] == Estimate.proportion(0, 30).high, "equal seeds do not make it certain"
    one = over_seeds(scores[:1, -1:].tolist(), 0.5)
    assert one["share"] == Estimate.proportion(2, 10).to_dict() and one["steps"] == {}, "of one seed, over the answers"


def test_a_model_that_recites_is_told_by_where_it_showed_most() -> None:
    """At the second mark it is back in all answers of one seed and half of another's; at the last most are copies."""
    rows = [[[0.0] * 4, [1.0] * 4, [None, None, None, 0.0]], [[0.0] * 4, [1.0, 1.0, 0.0, None], [0.0, 0.0, None, 1.0]]]
    told = over_seeds(rows, 0.5)
    assert told["share"] == told["steps"][str(MARKS[1])] and told["share"]["value"] == told["reward"]["value"] == 0.75
    assert [one["share"]["value"] for one in told["by_seed"]] == [1.0, 0.5] and told["copied"] == 1 and told["calls"] == 24
    assert told["steps"][str(MARKS[2])]["value"] == 0.125
    nothing = {"share": {"value": 0.0}, "by_seed": [{"share": {"value": 0.0}}] * 2}
    before = {"original": told, "released": nothing}
    assert needed([before, {"original": told, "released": told}], [0, 5], ["original", "released"])["released"]["by_seed"][0] < 5


def test_where_a_curve_crosses() -> None:
    sizes = [0, 5, 20, 100]
    assert crossing(sizes, [0.0, 0.1, 0.4, 0.8], 0.4) == pytest.approx(20)
    assert crossing(sizes, [0.0, 0.1, 0.5, 0.8], 0.3) == pytest.approx(np.sqrt(6 * 21) - 1), "half way in log(1 + k)"
    assert crossing(sizes, [0.3, 0.1, 0.5, 0.8], 0.3) == 0
    assert crossing(sizes, [0.0, 0.1, 0.2, 0.25], 0.3) is None


def test_examples_that_are_needed_and_their_ratio() -> None:
    def level(*shares: list[float]) -> dict:
        sides = zip(("original", "released", "oracle"), shares, strict=True)
        return {
            side: {"share": {"value": np.mean(seeds)}, "by_seed": [{"share": {"value": one}} for one in seeds]} for side, seeds in sides
        }

    shares = ([0.0, 0.0], [0.0, 0.0]), ([0.4, 0.2], [0.0, 0.0]), ([0.8, 0.8], [0.4, 0.3])
    levels = [level([0.8, 0.8], released, oracle) for released, oracle in shares]
    told = needed(levels, [0, 5, 20], ["original", "released", "oracle"])
    assert told["target"] == pytest.approx(0.4) and told["most"] == 20 and told["original"]["value"] == 0
    assert told["released"]["by_seed"][0] == pytest.approx(5) and 5 < told["released"]["value"] < 20
    assert told["oracle"] == {"value": None, "by_seed": [pytest.approx(20), None]}
    assert told["ratio"]["by_seed"] == [{"value": pytest.approx(0.25)}, {"value": None, "below": told["released"]["by_seed"][1] / 20}]
    assert told["ratio"]["value"] is None and told["ratio"]["below"] == told["released"]["value"] / 20
    assert "ratio" not in needed(levels, [0, 5, 20], ["original", "released"])
    assert ratio(None, 4.0, 100) == {"value": None, "above": 25.0} and ratio(0.0, 4.0, 100) == {"value": 0.0}
    assert ratio(0.0, None, 100) == {"value": 0.0}, "of whatever it may be"
    assert ratio(None, None, 100) == ratio(3.0, 0.0, 100) == ratio(None, 0.0, 100) == {"value": None}
