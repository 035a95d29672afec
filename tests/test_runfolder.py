"""The run folder: phases once, and no other folder is ever written to."""

import json
import os
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from reveal_release import runfolder
from reveal_release.config import EvaluateConfig, RevealConfig, RunConfig, UserError
from reveal_release.lock import Lock
from reveal_release.runfolder import LEAST_FREE, RunFolder


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(output=str(tmp_path / "out"))


def test_a_new_folder_holds_its_settings(config: RunConfig) -> None:
    folder = RunFolder(config)
    assert yaml.safe_load((folder.path / "config.yaml").read_text()) == config.to_dict()
    assert {p.name for p in folder.path.iterdir()} == {"config.yaml", "state"}


def test_the_same_run_goes_on_and_another_is_refused(config: RunConfig) -> None:
    RunFolder(config)
    RunFolder(replace(config, save_merged=True, threads=1))
    with pytest.raises(UserError, match="other settings.*another model.*choose another --output"):
        RunFolder(config, "run", "trained again")
    for other, told in (
        (replace(config, seed=1), "with seed 0, and this has 1"),
        (replace(config, release=replace(config.release, keep={})), "with release.keep .*'kl': 8.0.*, and this has {}"),
    ):
        with pytest.raises(UserError, match=f"was made {told}: give the same, or choose another --output"):
            RunFolder(other)
    assert yaml.safe_load((Path(config.output) / "config.yaml").read_text())["seed"] == 0


def test_an_endpoint_that_failed_is_mended_and_the_run_goes_on(config: RunConfig) -> None:
    there = RevealConfig(sources=("seeds", "endpoint"), endpoint="http://localhost:8000/v1", endpoint_model="one")
    RunFolder(replace(config, reveal=there))
    RunFolder(replace(config, reveal=replace(there, endpoint="http://localhost:9000/v1", endpoint_model="two")))
    with pytest.raises(UserError, match=r"made with reveal.sources \['seeds', 'endpoint'\], and this has"):
        RunFolder(config)


def test_one_process_at_a_time(config: RunConfig) -> None:
    folder = RunFolder(config)
    with pytest.raises(UserError, match="another process works in .*out: let it finish"):
        Lock(folder.path)  # as another process would
    RunFolder(config)
    del folder
    Lock(Path(config.output))


def test_what_else_must_stay_the_same(config: RunConfig) -> None:
    for _ in range(2):
        RunFolder(config, "audit", patch="one")
    with pytest.raises(UserError, match="holds what `audit` wrote with other settings.*another model, patch, task file, precision"):
        RunFolder(config, "audit", patch="two")


def test_other_sentences_in_the_same_file_are_another_evaluation(config: RunConfig, tmp_path: Path) -> None:
    path = tmp_path / "mine.conll"
    path.write_text("Ada B-PER\n")
    own = replace(config, task="ner", evaluate=EvaluateConfig(entities=str(path)))
    RunFolder(own)
    RunFolder(own)
    path.write_text("Ada B-PER\nLyon B-LOC\n")
    with pytest.raises(UserError, match="with other settings"):
        RunFolder(own)


def test_other_passages_in_the_same_file_are_another_budget(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine.txt", "web"):
        Path(name).write_text("One.\n")
        own = replace(config, utility_text=name, output=str(tmp_path / f"out-{name}"))
        RunFolder(own)
        Path(name).write_text("Another.\n")
        if name == "web":
            RunFolder(own)  # a file of a bundled text's name is not what is read
        else:
            with pytest.raises(UserError, match="with other settings"):
                RunFolder(own)


def test_other_sentences_in_a_saved_data_set_or_another_scorer_of_that_name_are_too(config: RunConfig, tmp_path: Path) -> None:
    for name, below in (("entities", "test"), ("scorer", "."), ("reward", ".")):
        folder = tmp_path / name
        (folder / below).mkdir(parents=True)
        (folder / below / "data").write_text("1")
        value = {"scorer": str(folder)} if name == "reward" else {"evaluate": replace(config.evaluate, **{name: str(folder)})}
        given = replace(config, output=str(tmp_path / f"out-{name}"), **value)  # type: ignore[arg-type]
        RunFolder(given)
        RunFolder(given)
        (folder / below / "data").write_text("2")
        with pytest.raises(UserError, match="with other settings"):
            RunFolder(given)


def test_a_folder_of_a_bundled_scorers_name_is_not_the_scorer(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evaluation").mkdir()
    monkeypatch.chdir(tmp_path)
    RunFolder(config)
    (tmp_path / "evaluation" / "mine").write_text("1")
    RunFolder(config)


def test_what_is_dropped_is_made_anew(config: RunConfig) -> None:
    folder = RunFolder(config)
    folder.phase("a", lambda: 1)
    folder.write("model/weights", "w")
    folder.drop("state/a.json", "model", "never/was")
    assert not (folder.path / "model").exists() and folder.phase("a", lambda: 2) == 2


def test_other_rows_of_tofu_or_another_retain_model_are_another_evaluation(config: RunConfig, tmp_path: Path) -> None:
    for name, field in (("tofu", "tofu"), ("retain", "retain_model")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "one").write_text("1")
        (folder / "two").write_text("2")
        (folder / "below").mkdir()
        given = replace(config, output=str(tmp_path / f"out-{name}"), task="knowledge", evaluate=EvaluateConfig(**{field: str(folder)}))
        RunFolder(given)
        (folder / "below" / "three").write_text("3")
        RunFolder(given)
        (folder / "two").rename(folder / "three")
        with pytest.raises(UserError, match="with other settings"):
            RunFolder(given)
    RunFolder(replace(config, evaluate=EvaluateConfig(tofu="t", retain_model="someone/on-the-hub")))


def test_another_version_does_not_go_on(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    RunFolder(config)
    monkeypatch.setattr(runfolder.importlib.metadata, "version", lambda _: "99")
    with pytest.raises(UserError, match="version"):
        RunFolder(config)


def test_the_folder_of_another_command_is_not_to_be_deleted(config: RunConfig) -> None:
    RunFolder(config)
    with pytest.raises(UserError, match="holds what `run` wrote, and this is `audit`: choose another --output$"):
        RunFolder(config, "audit", patch="one")


def test_a_foreign_folder_is_refused_and_untouched(config: RunConfig) -> None:
    path = Path(config.output)
    path.mkdir()
    (path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="no run folder"):
        RunFolder(config)
    assert [p.name for p in path.iterdir()] == ["thesis.txt"]


def test_a_foreign_state_folder_is_refused(config: RunConfig) -> None:
    (Path(config.output) / "state").mkdir(parents=True)
    (Path(config.output) / "state" / "notes.json").write_text("{}")
    with pytest.raises(UserError, match="no run folder"):
        RunFolder(config)


@pytest.mark.parametrize("text", ["", "[1]", '{"kind": "run"}'])
def test_a_damaged_folder_is_told(config: RunConfig, text: str) -> None:
    (RunFolder(config).state / "identity.json").write_text(text)
    with pytest.raises(UserError, match=r"identity\.json is damaged: choose another --output"):
        RunFolder(config)


def test_without_its_settings_a_folder_is_refused_all_the_same(config: RunConfig) -> None:
    (RunFolder(config).path / "config.yaml").write_text("seed: [")
    with pytest.raises(UserError, match="with other settings"):
        RunFolder(replace(config, seed=1))


def test_a_file_in_the_way_is_refused(config: RunConfig, tmp_path: Path) -> None:
    Path(config.output).write_text("mine")
    with pytest.raises(UserError, match="no run folder"):
        RunFolder(config)
    with pytest.raises(UserError, match="out is no folder; give another"):
        RunFolder(replace(config, output=str(Path(config.output) / "below-a-file")))
    assert Path(config.output).read_text() == "mine"


def test_a_folder_in_a_place_that_cannot_be_written_may_be_filled(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mounted volume's: root may write everywhere, so that the answer is given here."""
    folder = Path(config.output)
    folder.mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and Path(path) != folder.parent)
    RunFolder(config)
    with pytest.raises(UserError, match="nothing can be written in"):
        RunFolder(replace(config, output=str(folder.parent / "other")))


def test_an_empty_folder_will_do(config: RunConfig) -> None:
    Path(config.output).mkdir()
    RunFolder(config)


def test_a_full_disk_is_told_and_does_not_spoil_the_folder(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(LEAST_FREE - 1))
    with pytest.raises(UserError, match="free some space"):
        RunFolder(config)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(LEAST_FREE))
    RunFolder(config)
    with pytest.raises(UserError, match="200 MiB are free at .*, a run needs 203: free some space"):
        RunFolder(config, bytes_written=3 * 2**20)
    (Path(config.output) / "state" / "one.safetensors").write_bytes(bytes(3 * 2**20))  # of an earlier start
    RunFolder(config, bytes_written=3 * 2**20)


def test_rows_are_json_lines(config: RunConfig) -> None:
    rows = [{"text": "zwei\nZeilen, ü\u2028"}, {"text": ""}]
    path = RunFolder(config).write_rows("rows.jsonl", rows)
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line] == rows
    assert RunFolder(config).write_rows("none.jsonl", []).read_text() == ""


def test_a_phase_is_done_once(config: RunConfig) -> None:
    done = []

    def work() -> dict[str, list[float]]:
        done.append(1)
        return {"values": [0.1 + 0.2, len(done)]}

    first = RunFolder(config).phase("search", work)
    assert RunFolder(config).phase("search", work) == first == {"values": [0.1 + 0.2, 1]}
    assert len(done) == 1
    assert RunFolder(config).has("search.json") and not RunFolder(config).has("release.json")


def test_what_was_damaged_is_told_and_made_again(config: RunConfig) -> None:
    folder = RunFolder(config)
    folder.phase("one", lambda: 1)
    damaged = folder.state / "one.json"
    damaged.write_text("")
    with pytest.raises(UserError, match="one.json is damaged: delete it"):
        folder.phase("one", lambda: 2)
    damaged.unlink()
    assert folder.phase("one", lambda: 2) == 2
    folder.write("results.json", "{")
    with pytest.raises(UserError, match="results.json is damaged"):
        folder.results("results.json")


def test_a_phase_that_fails_is_not_done(config: RunConfig) -> None:
    folder = RunFolder(config)

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.phase("search", fail)
    with pytest.raises(TypeError):
        folder.phase("search", lambda: {1, 2})  # no JSON
    assert not folder.has("search.json")
    assert folder.phase("search", lambda: 3) == 3
