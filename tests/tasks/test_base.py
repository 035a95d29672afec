"""What every task gets for nothing: registration, elicitation, progress; and how a wrong name is told."""

import json
import random
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from reveal_release.config import RunConfig, UserError
from reveal_release.generation import Sampling, generate
from reveal_release.metrics.statistics import Estimate
from reveal_release.models import LanguageModel
from reveal_release.tasks import Record, Task, get_task, task_names
from reveal_release.tasks.base import TASKS, Metrics, portion


@pytest.fixture
def lengths():  # type: ignore[no-untyped-def]
    """A task that scores by length, registered for one test."""

    class Lengths(Task):
        name = "lengths"
        description = "how long an answer is"
        seeds = ("Write.",)
        benign = ("Hush.",)
        sampling = Sampling(max_new_tokens=6)

        def score(self, records: Sequence[Record]) -> np.ndarray:
            return np.array([min(len(record.completion) / 100, 1.0) for record in records])

        def evaluate(self, lm: LanguageModel, progress: Any = None) -> Metrics:
            return Metrics({"a": Estimate.mean([0.0, 1.0])}, {"b": Estimate.proportion(1, 2)})

        def evaluation_instructions(self) -> Sequence[str]:
            return ()

    yield Lengths
    del TASKS["lengths"]


def test_a_subclass_is_a_task_by_its_name(lengths: type[Task]) -> None:
    assert {"lengths", "toxicity"} <= set(task_names())
    task = get_task("lengths", RunConfig(seed=3))
    assert type(task) is lengths and task.config.seed == 3


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ([0.5, float("nan")], "one number from 0 to 1 for each of 2 answers, but gave nan to nan"),
        ([0.5, 5.0], "but gave 0.5 to 5.0"),
        ([[0.5], [0.2]], "but gave [[0.5], [0.2]]"),
        (None, "but gave None"),
        (["a", "b"], "gave no array of numbers (could not convert string"),
        (torch.ones(2, requires_grad=True), "gave no array of numbers (Can't call numpy() on Tensor"),
    ],
)
def test_scores_that_are_none_are_told(scores: Any, told: str, lengths: type[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "score", lambda self, records: scores)
    with pytest.raises(UserError, match=re.escape(told)):
        lengths(RunConfig()).scored([Record((), "a", 0.0, "")] * 2)


def test_a_task_that_measures_half_is_told() -> None:
    one = {"a": Estimate.mean([0.0, 1.0])}
    for forget, retain in ((one, {}), ({}, one)):
        with pytest.raises(UserError, match=r"evaluate\(\) measures nothing that shall fall, or nothing that shall stay"):
            Metrics(forget, retain)


def test_figures_without_an_interval_are_told(lengths: type[Task], monkeypatch: pytest.MonkeyPatch, lm: LanguageModel) -> None:
    with pytest.raises(UserError, match=r"evaluate\(\) gives 'rate' as a float: give an Estimate"):
        Metrics({"a": Estimate.mean([0.0, 1.0])}, {"rate": 0.5})  # type: ignore[dict-item]
    task = lengths(RunConfig())
    assert task.measured(lm) == task.evaluate(lm).to_dict()
    monkeypatch.setattr(lengths, "evaluate", lambda self, lm, progress=None: {"rate": 0.5})
    with pytest.raises(UserError, match=r"evaluate\(\) of .* gave a dict: return reveal_release.tasks.base.Metrics"):
        task.measured(lm)


def test_an_unknown_task_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'toxicity'"):
        get_task("toxcity", RunConfig())
    with pytest.raises(UserError, match="choose from .*toxicity"):
        get_task("xyz", RunConfig())


def test_two_tasks_of_one_name_are_refused(lengths: type[Task]) -> None:
    with pytest.raises(UserError, match="two tasks are named 'lengths'"):
        type("Other", (lengths,), {"name": "lengths", "__module__": "elsewhere"})
    assert TASKS["lengths"] is lengths


def test_elicit_asks_in_one_user_turn_and_scores(lm: LanguageModel, lengths: type[Task]) -> None:
    task, asked = lengths(RunConfig()), ["Write it.", "Name the river.", "Write it."]
    records = task.elicit(lm, asked, [1, 2, 3])
    assert [r.instruction for r in records] == asked
    assert [r.prompt for r in records] == [(("user", text),) for text in asked]
    assert [r.completion for r in records] == generate(lm, [r.prompt for r in records], task.sampling, [1, 2, 3])
    assert [r.score for r in records] == [min(len(r.completion) / 100, 1.0) for r in records]


def test_scored_keeps_all_of_a_record_but_its_score(lengths: type[Task]) -> None:
    task = lengths(RunConfig())
    record = Record((("user", "Say it."),), "a" * 25, 0.9, "Say it.", iteration=2)
    assert task.scored([record]) == [Record((("user", "Say it."),), "a" * 25, 0.25, "Say it.", iteration=2)]
    assert task.scored([]) == []
    assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_a_subclass_without_a_name_is_abstract(lengths: type[Task]) -> None:
    before = dict(TASKS)
    type("Longer", (lengths,), {})
    assert before == TASKS


def test_benign_prompts_and_showcase_by_default(lm: LanguageModel, lengths: type[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    task = lengths(RunConfig())
    assert task.benign_prompts(lm, 3, random.Random(0)) == [(("user", "Hush."),)] * 3
    assert task.showcase() == []
    assert task.by_name() == (f"Write a text with {task.description}.",)
    for count, shown in ((1, "a"), (2, "ab"), (3, "abc"), (7, "ace")):
        monkeypatch.setattr(lengths, "evaluation_instructions", lambda self, count=count: "abcdefg"[:count])
        assert task.showcase() == [(("user", text),) for text in shown]


def test_metrics_as_a_dictionary(lm: LanguageModel, lengths: type[Task]) -> None:
    tree = lengths(RunConfig()).evaluate(lm).to_dict()
    assert set(tree) == {"forget", "retain"}
    assert tree["forget"]["a"]["value"] == 0.5 and set(tree["retain"]["b"]) == {"value", "n", "low", "high"}


def test_portion_maps_a_part_onto_the_whole() -> None:
    seen: list[tuple[int, int]] = []
    part = portion(lambda done, total: seen.append((done, total)), 0.2, 0.6)
    for done in (0, 5, 10):
        part(done, 10)
    part(0, 0)
    assert seen == [(200, 1000), (400, 1000), (600, 1000), (200, 1000)]
    portion(None, 0.0, 1.0)(1, 1)
