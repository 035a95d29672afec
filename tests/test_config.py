"""Settings: every check speaks, the hash is the identity of the results, and the whole is JSON."""

import dataclasses
import json
from dataclasses import replace
from typing import Any

import pytest

from reveal_release.config import EvaluateConfig, ReleaseConfig, RevealConfig, RunConfig, UserError

BAD: list[tuple[RunConfig, str]] = [
    (RunConfig(utility_budget=-0.01), "utility_budget is -0.01"),
    (RunConfig(utility_budget=2.0), "0.02 is 2 %"),
    (RunConfig(utility_budget=float("nan")), "utility_budget is nan"),
    (RunConfig(stop_reward=1.5), "stop_reward is 1.5"),
    (RunConfig(iterations=0), "iterations is 0"),
    (RunConfig(iterations=21), "from 1 to 20"),
    (RunConfig(reveal=RevealConfig(threshold=-0.5)), "reveal.threshold"),
    (RunConfig(release=ReleaseConfig(forget_scale=0.0)), "forget_scale"),
    (RunConfig(release=ReleaseConfig(ascent=-0.5)), "ascent"),
    (RunConfig(release=ReleaseConfig(max_scale=-1.0)), "max_scale"),
    (RunConfig(release=ReleaseConfig(layers=0.0)), "release.layers is 0.0"),
    (RunConfig(release=ReleaseConfig(learning_rate=0.0)), "learning_rate"),
    (RunConfig(release=ReleaseConfig(learning_rate=float("nan"))), "release.learning_rate is nan"),
    (RunConfig(release=ReleaseConfig(max_scale=float("inf"))), "release.max_scale is inf"),
    (RunConfig(release=ReleaseConfig(retain_steps=-1)), "retain_steps is -1"),
    (RunConfig(reveal=RevealConfig(evaluations=8, start=16)), "reveal.evaluations (8) is below reveal.start (16)"),
    (RunConfig(reveal=RevealConfig(sources=("seeds", "magic"))), "magic"),
    (RunConfig(reveal=RevealConfig(sources=())), "nothing"),
]
COUNTS = [
    (part, field.name)
    for part, kind in (("reveal", RevealConfig), ("release", ReleaseConfig), ("evaluate", EvaluateConfig))
    for field in dataclasses.fields(kind)
    if field.type is int and field.name != "retain_steps"
]


def test_defaults_are_in_range() -> None:
    RunConfig().check()
    RunConfig(release=ReleaseConfig(retain_steps=0)).check()
    RunConfig(utility_budget=0.0, stop_reward=0.0, iterations=20).check()


@pytest.mark.parametrize(("config", "words"), BAD, ids=[words for _, words in BAD])
def test_each_check_is_one_line_that_names_the_setting(config: RunConfig, words: str) -> None:
    with pytest.raises(UserError) as caught:
        config.check()
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (RunConfig(reveal=RevealConfig(records=7)), "records is 7: give a whole number of at least 8"),
        (RunConfig(release=ReleaseConfig(retain_records=15)), "retain_records is 15: give a whole number of at least 16"),
        (RunConfig(seed=-1), "seed is -1"),
        (RunConfig(threads=-1), "threads is -1"),
        (RunConfig(evaluate=EvaluateConfig(entities="my.conll")), "the task toxicity does not read it: leave it out, or give --task ner"),
        (RunConfig(output=" "), "output is empty"),
        (RunConfig(reveal=RevealConfig(sources=("induction",))), "reveal.sources has only induction, which vary what others find"),
        (RunConfig(reveal=RevealConfig(endpoint_model="m")), "reveal.endpoint_model is set but never asked"),
        (RunConfig(scorer="some/classifier", evaluate=EvaluateConfig(scorer="some/classifier")), "both 'some/classifier'"),
    ],
)
def test_what_could_not_succeed_is_told_at_once(config: RunConfig, words: str) -> None:
    with pytest.raises(UserError, match=words):
        config.check()


def test_a_whole_number_is_the_float_that_is_meant() -> None:
    """So that a run begun with the one goes on with the other."""
    whole = RunConfig(stop_reward=0, utility_budget=1, release=ReleaseConfig(keep={"kl": 8, "l2": 0.5}, forget_scale=1))
    same = RunConfig(stop_reward=0.0, utility_budget=1.0, release=ReleaseConfig(keep={"kl": 8.0, "l2": 0.5}, forget_scale=1.0))
    assert whole.hash() == same.hash() and whole.to_dict() == same.to_dict() and type(whole.iterations) is int
    assert json.dumps(whole.to_dict()) == json.dumps(same.to_dict())


def test_two_scorers_are_compared_where_both_are_read() -> None:
    same = RunConfig(scorer="some/classifier", evaluate=EvaluateConfig(scorer="some/classifier"))
    for task in ("mine.yaml", "ner"):
        replace(same, task=task).check()
    with pytest.raises(UserError, match="both 'some/classifier'"):
        replace(same, task="mine.py").check()


def test_a_class_of_a_users_own_may_read_what_a_bundled_task_reads() -> None:
    RunConfig(task="mine.py", evaluate=EvaluateConfig(entities="my.conll")).check()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (RunConfig(task="ner", scorer="some/classifier"), "scorer is 'some/classifier', but the task ner does not read it"),
        (RunConfig(task="code", evaluate=EvaluateConfig(tofu="t")), "evaluate.tofu is 't', but .* leave it out, or give --task knowledge"),
    ],
)
def test_what_the_task_does_not_read_is_told(config: RunConfig, words: str) -> None:
    config.check()
    with pytest.raises(UserError, match=words):
        config.check_read()
    replace(config, task="my/own.yaml").check_read()


@pytest.mark.parametrize(("part", "name"), COUNTS)
def test_counts_are_at_least_one(part: str, name: str) -> None:
    config = RunConfig(**{part: replace(getattr(RunConfig(), part), **{name: 0})})
    with pytest.raises(UserError, match=f"{name} is 0"):
        config.check()


def leaves(tree: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    return [
        path for key, value in tree.items()
        for path in (leaves(value, (*prefix, key)) if isinstance(value, dict) and not prefix else [(*prefix, key)])
    ]  # fmt: skip


def changed(path: tuple[str, ...]) -> RunConfig:
    """The defaults with one leaf changed to another value of its type."""
    part = RunConfig() if len(path) == 1 else getattr(RunConfig(), path[0])
    value = getattr(part, path[-1])
    number = isinstance(value, int | float)
    other = not value if isinstance(value, bool) else value + 1 if number else {} if isinstance(value, dict) else value[:-1] or "x"
    part = replace(part, **{path[-1]: other})
    return part if len(path) == 1 else RunConfig(**{path[0]: part})


@pytest.mark.parametrize("path", leaves(RunConfig().to_dict()), ids=".".join)
def test_hash_changes_with_all_that_changes_results_and_nothing_else(path: tuple[str, ...]) -> None:
    same = path in {("output",), ("save_merged",), ("threads",), ("reveal", "endpoint"), ("reveal", "endpoint_model")}
    assert (changed(path).hash() == RunConfig().hash()) == same


def test_to_dict_is_plain_json() -> None:
    tree = RunConfig().to_dict()
    assert json.loads(json.dumps(tree)) == tree
    assert tree["reveal"]["sources"] == ["seeds", "rewrite", "user_turn", "induction"]
    assert tree["release"]["rank"] == ReleaseConfig().rank


def test_one_pair_is_trained_for_as_long_as_all() -> None:
    release = ReleaseConfig(pairs=3, steps=10, retain_steps=7, rank=5)
    assert release.one_pair() == ReleaseConfig(pairs=1, steps=30, retain_steps=21, max_scale=8.0, rank=5)
    assert release.one_pair().one_pair() == release.one_pair()
