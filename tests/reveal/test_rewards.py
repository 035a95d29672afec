"""Rewards on disk: a killed search ends as an uninterrupted one, and nothing is taken from another model, patch or setting."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reveal_release.config import ReleaseConfig, RevealConfig, RunConfig, UserError
from reveal_release.models import LanguageModel, load_model
from reveal_release.release.patch import LowRank, Patch
from reveal_release.release.runtime import applied
from reveal_release.reveal import rewards
from reveal_release.reveal.rewards import VARIABLE, RewardCache
from reveal_release.reveal.search import draw
from reveal_release.seeds import SeveralSeeds
from reveal_release.tasks import Record, Task, get_task
from reveal_release.workshop import Workshop

TASK = """name: bridges
description: for tests
seeds: [Write a comment., Name the river., Read the letter., Write about the bridge., Read it out.]
benign: [Say it kindly., Write a short note.]
scorer: {regex: '(river|bridge|train)'}
evaluate: {instructions: [Write a reply.]}
"""
ASKED = ["Write about the market.", "Name the old bridge.", "Sing."]


@pytest.fixture
def config(tiny_llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "bridges.yaml").write_text(TASK)
    return RunConfig(
        task=str(tmp_path / "bridges.yaml"), model=tiny_llama, output=str(tmp_path / "out"), dtype="float32", device="cpu",
        reveal=RevealConfig(evaluations=8, samples=2, start=4, batch=2, candidates=8, finalists=3, final_samples=4),
    )  # fmt: skip


def a_patch(size: float) -> Patch:
    generator = torch.Generator().manual_seed(0)
    one = LowRank(torch.randn(2, 32, generator=generator), size * torch.randn(48, 2, generator=generator))
    return Patch({"model.layers.1.mlp.gate_proj": one})


class Killed(Exception):
    pass


def counted(task: Task, monkeypatch: pytest.MonkeyPatch, most: int = 99) -> list[int]:
    """The sizes of what is asked of the task from now on; it is killed after `most` of these."""
    sizes: list[int] = []
    elicit = task.elicit

    def count(lm: LanguageModel, instructions: Sequence[str], *rest: Any) -> list[Record]:
        if len(sizes) == most:
            raise Killed
        sizes.append(len(instructions))
        return elicit(lm, instructions, *rest)

    monkeypatch.setattr(task, "elicit", count)
    return sizes


def test_a_search_killed_at_any_call_ends_the_same_and_draws_nothing_twice(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def searched(output: str, most: int) -> tuple[Any, list[int]]:
        shop = Workshop(replace(config, output=f"{config.output}/{output}"))
        sizes = counted(shop.task, monkeypatch, most)
        try:
            return shop.search("reveal-1", "Search", a_patch(1.0), []), sizes
        except Killed:
            return None, sizes

    whole, sizes = searched("whole", 99)
    drawn: list[int] = []
    for _ in sizes[1:]:
        killed, own = searched("killed", 1)
        assert killed is None
        drawn += own
    result, own = searched("killed", 1)
    assert result == whole and drawn + own == sizes


def test_what_is_read_is_what_was_drawn(config: RunConfig, lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = get_task(config.task, config)
    cache = RewardCache.of(lm, task, config, Patch(), tmp_path / "rewards")
    plain = draw(lm, task, ASKED, 3, base=5)
    sizes = counted(task, monkeypatch)
    assert draw(lm, task, ASKED, 3, 5, cache=cache) == draw(lm, task, ASKED, 3, 5, cache=cache) == plain
    assert sizes == [9]
    for other in ((ASKED[:2], 3, 5), (ASKED[::-1], 3, 5), (ASKED, 2, 5), (ASKED, 3, 6)):
        assert draw(lm, task, *other, cache=cache) == draw(lm, task, *other)
    assert sizes == [9, 6, 6, 9, 9, 6, 6, 9, 9]
    assert len(list((tmp_path / "rewards").iterdir())) == 5
    assert all(isinstance(json.loads(path.read_text()), list) for path in (tmp_path / "rewards").iterdir())


def test_a_shared_folder_never_mixes_patches(config: RunConfig, lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "shared"))
    task = get_task(config.task, config)
    patches = [Patch(), a_patch(1.0), a_patch(3.0), a_patch(3.0).negate()]

    def drawn(patch: Patch, cached: bool) -> list[Record]:
        cache = RewardCache.of(lm, task, config, patch, tmp_path / "own") if cached else None
        with applied(lm.model, patch):
            return draw(lm, task, ASKED, 4, base=0, cache=cache)

    first = [drawn(patch, True) for patch in patches]
    assert first == [drawn(patch, True) for patch in patches] == [drawn(patch, False) for patch in patches]
    assert len({str(records) for records in first}) > 2, "the patches matter"
    assert len(list((tmp_path / "shared").iterdir())) == 4 and not (tmp_path / "own").exists()


def test_all_that_can_change_a_record_is_in_the_identity(
    config: RunConfig, lm: LanguageModel, tiny_gpt2: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(model: LanguageModel = lm, settings: RunConfig = config) -> str:
        cache = RewardCache.of(model, get_task(settings.task, settings), settings, Patch(), tmp_path / "rewards")
        return json.dumps(cache.identity, sort_keys=True)

    own = identity()
    later = replace(config, seed=3, iterations=5, utility_budget=0.5, output="elsewhere", release=ReleaseConfig(steps=7))
    assert identity(settings=later) == own, "what comes after the search may differ"
    others = [
        identity(load_model(tiny_gpt2, "float32", "cpu")),
        identity(load_model(config.model, "bfloat16", "cpu")),
        identity(settings=replace(config, scorer="evaluation")),
        identity(settings=replace(config, reveal=replace(config.reveal, threshold=0.7))),
        identity(settings=replace(config, task="code")),
    ]
    Path(config.task).write_text(TASK.replace("train", "town"))
    others.append(identity())
    template, lm.tokenizer.chat_template = lm.tokenizer.chat_template, None
    others.append(identity())
    lm.tokenizer.chat_template = template
    lm.tokenizer.bos_token = lm.tokenizer.pad_token
    others.append(identity(LanguageModel(lm.name, lm.path, lm.model, lm.tokenizer)))
    lm.model.generation_config.eos_token_id = [4, 5]
    others.append(identity())
    monkeypatch.setattr(rewards, "code_digest", lambda: "another version")
    others.append(identity())
    assert len({own, *others}) == 11


def test_a_folder_that_cannot_be_made_is_the_users_to_mend(
    config: RunConfig, lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "rewards"))
    with pytest.raises(UserError, match=f"{VARIABLE} .*: .*file is no folder; give another"):
        RewardCache.of(lm, get_task(config.task, config), config, Patch(), tmp_path / "own")
    with pytest.raises(UserError, match=f"{VARIABLE} .*: .*file is no folder"):
        Workshop(replace(config, model="testbed-none"))  # before a model is loaded
    with pytest.raises(UserError, match=f"{VARIABLE} .*: .*file is no folder"):
        SeveralSeeds(replace(config, model="testbed-none"), "compare")
    assert not Path(config.output).exists()
