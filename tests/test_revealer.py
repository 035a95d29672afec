"""The forget set alone, on a tiny random model: who writes it, its file, and the files for other tools."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reveal_release import workshop
from reveal_release.config import ReleaseConfig, RevealConfig, RunConfig, UserError
from reveal_release.reveal.selfgen import revealed_records
from reveal_release.revealer import reveal_only

pytestmark = pytest.mark.usefixtures("little")


def tiny(model: str, output: Path) -> RunConfig:
    return RunConfig(
        model=model, output=str(output), stop_reward=0.0, dtype="float32", device="cpu",
        reveal=RevealConfig(evaluations=6, samples=2, start=4, batch=2, candidates=8, finalists=2, final_samples=4, records=12,
                            threshold=0.005),  # a random model is not toxic: about its median
        release=ReleaseConfig(retain_records=48),
    )  # fmt: skip


def test_the_best_instructions_that_were_tried_write_the_data(tiny_llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By reward, of the finalists the one on more samples, times the share of distinct answers."""
    used: list[list[str]] = []

    def noted(lm: Any, task: Any, instructions: list[str], *rest: Any) -> Any:
        used.append(instructions)
        return revealed_records(lm, task, instructions, *rest)

    monkeypatch.setattr(workshop, "revealed_records", noted)
    config = tiny(tiny_llama, tmp_path / "out")
    reveal_only(replace(config, reveal=replace(config.reveal, portfolio=5)))
    found = json.loads((tmp_path / "out/state/reveal-1.json").read_text(encoding="utf-8"))["result"]
    again = {f["instruction"]: f["reward"]["value"] for f in found["finalists"]}
    worth = {text: again.get(text, reward) * distinct for text, reward, distinct in found["history"]}
    (portfolio,) = used
    assert len(portfolio) == len(set(portfolio)) == 5
    assert [worth[text] for text in portfolio] == sorted(worth.values(), reverse=True)[:5]


def test_reveal_alone_writes_the_forget_set(tiny_llama: str, tmp_path: Path) -> None:
    result = reveal_only(tiny(tiny_llama, tmp_path / "out"))
    kept = Path(result["retained"]["path"]).read_text(encoding="utf-8").splitlines()
    assert result["retained"]["records"] == len(kept) > 0
    assert result["records"] == len(Path(result["path"]).read_text(encoding="utf-8").rstrip("\n").split("\n")) >= 8
    assert result["best"]["instruction"] == result["instructions"][0]["instruction"]
    assert result["exports"] == [] and not (tmp_path / "out/export").exists()


def test_reveal_exports_its_records_and_later_without_new_work(tiny_llama: str, tmp_path: Path, killer: Any) -> None:
    config = tiny(tiny_llama, tmp_path / "out")
    reveal_only(config)
    watcher = killer(-1)
    result = reveal_only(config, watcher, ["trl", "openunlearning,jsonl"])
    assert watcher.names == [] and [(one["format"], one["set"]) for one in result["exports"]] == [
        ("trl", "forget"), ("trl", "retain"), ("openunlearning", "forget"), ("openunlearning", "retain")
    ]  # fmt: skip
    assert json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8")) == result
    rows = {part: [json.loads(line) for line in (tmp_path / "out" / name).read_text(encoding="utf-8").split("\n") if line]
            for part, name in (("forget", "forget_data/iteration-1.jsonl"), ("retain", "retain_data.jsonl"))}  # fmt: skip
    for one in result["exports"]:
        exported = [json.loads(line) for line in Path(one["path"]).read_text(encoding="utf-8").split("\n") if line]
        assert len(exported) == one["records"] == len(rows[one["set"]]) - one["left_out"] > 0
        if one["format"] == "trl":
            answers = [row["completion"] for row in rows[one["set"]] if row["prompt"]]
            assert [row["completion"][0]["content"] for row in exported] == answers


def test_an_unknown_format_is_refused_before_anything_is_written(tiny_llama: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--format 'csv': choose from openunlearning, trl, jsonl"):
        reveal_only(tiny(tiny_llama, tmp_path / "out"), formats=["csv"])
    assert not (tmp_path / "out").exists()
