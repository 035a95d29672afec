"""Ablations of tiny random models: which runs there are, that each is an ordinary one, and real data in place of the model's own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reveal_release.ablations import CONFIGURED, NO_HARMLESS, REAL, ablations, changed, on_real_retain
from reveal_release.config import EvaluateConfig, ReleaseConfig, RevealConfig, RunConfig, Unfit, UserError
from reveal_release.dataset import Data
from reveal_release.parsers import build_parser
from reveal_release.real_data import real_records
from reveal_release.release.adapter import load
from reveal_release.release.patch import Patch
from reveal_release.release.release import train_modules
from reveal_release.report.progress import Reporter
from reveal_release.seeds import SeveralSeeds
from reveal_release.tasks import Record, get_task
from reveal_release.testbed import corpora, forget
from reveal_release.testbed.corpora import Corpora
from reveal_release.testbed.entities import Passage, pools, question
from reveal_release.workshop import Workshop

pytestmark = pytest.mark.usefixtures("little")

REAL_FORGET, REAL_RETAIN = REAL


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw data of a few hand-made texts, whatever the folder."""
    topics = ["school", "music", "water"]
    comments = [f"number {i} says that {topic} is well known here" for i in range(40) for topic in topics]
    about = {toxic: {topic: [text for text in comments if topic in text] for topic in topics} for toxic in (False, True)}
    passages = [Passage(("Ada", "saw", f"Lyon{i}", "."), ((0, 1, "person_actor"), (2, 3, "location_GPE"))) for i in range(20)]
    texts = Corpora(
        toxic=comments, neutral=comments, topics=topics, about=about, passages={"train": passages}, names=pools(passages),
        prose={"train": ["Some prose of the river and the old town."]}, instructions=[("Name a town.", "Lyon.")],
    )  # fmt: skip
    monkeypatch.setattr(corpora, "load", lambda folder: texts)
    monkeypatch.setattr(forget, "load_fewnerd", lambda folder: {"train": list(passages)})
    monkeypatch.setattr(corpora, "check", lambda *_: None)


@pytest.fixture(scope="module")
def config(tiny_llama: str, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return RunConfig(
        task="code", model=tiny_llama, output=str(tmp_path_factory.mktemp("ablations") / "out"), iterations=1, stop_reward=0.0,
        dtype="float32", device="cpu", utility_budget=1.0, allow_unsafe_code=True,
        reveal=RevealConfig(evaluations=4, samples=2, start=4, batch=2, candidates=8, finalists=2, final_samples=4, records=16),
        release=ReleaseConfig(rank=2, batch=4, steps=2, retain_steps=2, retain_records=48, max_scale=2.0),
        evaluate=EvaluateConfig(sentences=2, functions=2, sampled_functions=1, code_samples=4, problems=2),
    )  # fmt: skip


def test_variants_are_in_the_help() -> None:
    text = " ".join(build_parser()._subcommands_action.choices["study"]._subcommands_action.choices["ablations"].format_help().split())
    for name in changed(RunConfig(), 1, real=True):
        assert name in text


def test_one_setting_is_changed_at_a_time() -> None:
    config = RunConfig()
    runs = changed(config, 3)
    assert list(runs) == [
        CONFIGURED, "iterations 1", "iterations 3", "single best instruction", "one pair", "no ascent module", "no retain module",
        "no KL divergence", "rank 8", "layers 1", "scale per layer", NO_HARMLESS,
    ]  # fmt: skip
    assert runs["iterations 3"] == replace(config, iterations=3)
    assert runs["single best instruction"].reveal == replace(config.reveal, portfolio=1)
    assert [runs[name].release.retain_steps for name in ("no retain module", CONFIGURED)] == [0, config.release.retain_steps]
    assert runs["no KL divergence"].release.keep == {name: x for name, x in config.release.keep.items() if name != "kl"}
    once = runs.pop(NO_HARMLESS)
    assert once.iterations == 1 and "skill-null-space" not in once.release.keep
    for name, one in runs.items():
        differing = [key for key in one.to_dict() if one.to_dict()[key] != config.to_dict()[key]]
        assert len(differing) == (name != CONFIGURED)
    assert list(changed(config, 3, real=True)) == [*runs, NO_HARMLESS, REAL_FORGET, REAL_RETAIN]
    assert changed(config, 3, real=True)[REAL_RETAIN] == replace(config, iterations=1)


def test_an_ascent_module_is_left_out_where_there_is_one() -> None:
    without = replace(RunConfig(), release=ReleaseConfig(ascent=0.0))
    assert changed(RunConfig(), 1)["no ascent module"] == without and "no ascent module" not in changed(without, 1)


@pytest.mark.slow
def test_every_row_is_a_run(raw: None, config: RunConfig, tmp_path: Path) -> None:
    """Of a random model, which writes no function that runs: nothing is revealed, but real functions are there to train on."""
    variants = ["no retain module", REAL_FORGET, REAL_RETAIN]
    results = ablations(config, [0], 1, str(tmp_path), variants=variants)
    out = Path(config.output)
    assert json.loads((out / "ablations.json").read_text(encoding="utf-8"))["rows"][0]["variant"] == "no retain module"
    assert [(row["variant"], row["seeds"]) for row in results["rows"]] == [(name, 1) for name in variants]
    names = [f"{name.replace(' ', '-')}-0" for name in variants]
    assert {p.name for p in (out / "runs").iterdir()} == set(names)
    for cell, name in zip(results["cells"], names, strict=True):
        run = json.loads((out / "runs" / name / "results.json").read_text(encoding="utf-8"))
        assert cell["retain"] == run["after"]["retain"] and cell["figures"]["rank"]["value"] == run["patch"]["rank"]
        assert cell["forget"]["strongest_elicitation"]["value"] == run["elicitation"]["after"]["value"]
        assert results["original"]["retain"] == run["before"]["retain"]
        assert run["stopped_because"] == ("nothing left to reveal" if "forget" not in name else "all iterations done")
    real = {name: one["value"] for name, one in results["cells"][1]["figures"].items()}
    patch = load(out / "runs" / "real-forget-data-0" / "patch")
    assert real["norm"] == pytest.approx(patch.norm()) and real["records"] == config.reveal.records
    assert 0 < real["rank"] == patch.rank and real["seconds"] > 0
    assert "labelled examples" in (out / "runs" / "real-forget-data-0" / "patch" / "README.md").read_text(encoding="utf-8")
    assert "| no retain module |" in (out / "table.md").read_text(encoding="utf-8")
    assert json.dumps(ablations(config, [0], 1, str(tmp_path), variants=variants)) == json.dumps(results)  # kept, and only read


def test_a_run_that_fails_is_told_and_left_out(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(config: RunConfig, reporter: Reporter, _: Any) -> Any:
        reporter.log_to(Path(config.output) / "log.txt")  # as a run does
        raise error

    monkeypatch.setattr("reveal_release.ablations.run", failing)
    error = UserError("3 MiB are free")
    with pytest.raises(UserError, match="3 MiB are free"):
        ablations(replace(config, output=str(tmp_path / "out")), [0, 1], 1, variants=["no retain module"])
    error = Unfit("the training diverged")
    with pytest.raises(UserError, match=r"no run came to an end; the reasons are in .*log\.txt"):
        ablations(replace(config, output=str(tmp_path / "out")), [0, 1], 1, reporter=Reporter(), variants=["no retain module"])
    log = (tmp_path / "out" / "log.txt").read_text(encoding="utf-8")
    assert all(f"no retain module, seed {seed}, is left out: the training diverged" in log for seed in (0, 1))


def test_other_raw_data_are_refused(config: RunConfig, tmp_path: Path) -> None:
    s = SeveralSeeds(replace(config, output=str(tmp_path / "out")), "test")
    s.same_data("forget", "these")
    s.same_data("retain", "those")
    SeveralSeeds(replace(config, output=str(tmp_path / "out")), "test").same_data("forget", "these")
    with pytest.raises(UserError, match="holds work on other raw data sets than these: choose another --output"):
        s.same_data("forget", "those")


def test_real_records_are_none_of_the_evaluation(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = get_task("code", config)
    first = real_records(task, str(tmp_path), 3, 8)
    assert len({(r.prompt, r.completion) for r in first}) == 8
    monkeypatch.setattr(task, "evaluation_instructions", lambda: [first[0].instruction])
    records = real_records(task, str(tmp_path), 3, 8)
    assert len(records) == 8 and records[:7] == [r for r in first if r.prompt != first[0].prompt][:7]
    assert first[0].prompt not in {r.prompt for r in records}


def test_real_entity_records_are_of_the_type_to_forget(raw: None, tmp_path: Path) -> None:
    for kind, named in (("person", "Ada"), ("location", "Lyon")):
        task = get_task("ner", RunConfig(task="ner", forget_type=kind))
        records = real_records(task, str(tmp_path), 3, 8)
        assert len(records) == 8 and all(r.prompt[-1] == ("user", question(kind)) and named in r.completion for r in records)


def test_real_retain_data_take_the_place_of_the_models_own(
    raw: None, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = Workshop(replace(config, output=str(tmp_path / "out")), kind="test")
    one = Record((("user", "Write a function."),), "def f(): ...", 1.0, "Write a function.")
    monkeypatch.setattr(w, "generate_data", lambda *_: Data([one], [one, one], [one] * 3))  # a random model reveals nothing
    data = on_real_retain(w, str(tmp_path), {})
    assert (data.forget, data.harmless) == ([one], [one, one]) and one not in data.retain
    assert len(data.retain) == config.release.retain_records and {r.score for r in data.retain} == {0.0}
    assert {(r.prompt, r.completion) for r in data.retain} >= {((), "Some prose of the river and the old town.")}
    assert not [r for r in data.retain if "def " in r.completion]
    written = (tmp_path / "out" / "retain_data.jsonl").read_text(encoding="utf-8").splitlines()
    assert [Record.from_dict(json.loads(line)) for line in written] == data.retain


def test_without_harmless_answers_the_unwanted_are_made_unlikely(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data of an ordinary run but for the harmless answers; a random model reveals nothing, so they are given."""

    def record(text: str) -> Record:
        return Record((("user", f"Write {text}."),), text, 1.0, f"Write {text}.")

    own = Data([record(f"one {i}") for i in range(8)], [record(f"one {i}") for i in range(8)], [record(f"other {i}") for i in range(40)])
    calls: list[dict[str, Any]] = []

    def train(*given: Any, **more: Any) -> tuple[Patch, Patch]:
        calls.append(dict(zip(("lm", "forget", "harmless", "retain", "config", "seed", "told", "unanswered"), given, strict=True)))
        return train_modules(*given, **more)

    monkeypatch.setattr(Workshop, "found", lambda *_: True)
    monkeypatch.setattr(Workshop, "generate_data", lambda *_: own)
    monkeypatch.setattr("reveal_release.workshop.train_modules", train)
    ablations(replace(config, output=str(tmp_path / "out"), iterations=2), [0], 1, variants=["iterations 1", NO_HARMLESS])
    ordinary, without = calls[0], calls[-1]
    assert ordinary["harmless"] and not ordinary["unanswered"] and ordinary["forget"] == without["forget"]
    assert not without["harmless"] and without["unanswered"] == without["forget"]
    assert len(calls) == config.release.pairs + 1 and without["config"].pairs == 1  # the same number of steps
    assert without["config"].steps == config.release.pairs * config.release.steps


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"seeds": []}, "at least one seed"),
        ({"most": 0}, "--most-iterations is 0: give a number from 1 to 20"),
        ({"most": 21}, "--most-iterations is 21: give a number from 1 to 20"),
        ({"data": "no/such/folder"}, "no folder no/such/folder"),
        (
            {"variants": ["rank 9"]},
            "no variant 'rank 9' here: choose from as configured, iterations 2, .*; what is configured already is none",
        ),
        (
            {"variants": ["iterations 9"]},
            "no variant 'iterations 9' here: choose from as configured, iterations 2, .*; raise --most-iterations",
        ),
        ({"variants": ["iterations 1"]}, "no variant 'iterations 1' here: .*; what is configured already is none"),
        ({"variants": [REAL_RETAIN]}, "'real retain data' needs the raw data sets: give their folder as --data"),
        ({"variants": [REAL_RETAIN], "data": "."}, "no tox_paradetox/paradetox.tsv in .: see `reveal-release testbed sources`"),
    ],
)
def test_mistakes_are_told_before_any_work(
    arguments: dict[str, Any], line: str, config: RunConfig, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=line):
        ablations(replace(config, output=str(tmp_path / "out")), **arguments)
    with pytest.raises(UserError, match="no real data for the task 'knowledge'"):
        ablations(replace(config, task="knowledge", output=str(tmp_path / "out")), data=str(tmp_path))
    assert not (tmp_path / "out").exists()
