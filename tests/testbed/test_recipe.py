"""Packing, the schedule, and a tiny build: stopped and continued, it ends where it would have ended."""

import contextlib
import copy
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, AutoTokenizer

from reveal_release.config import UserError
from reveal_release.lock import Lock
from reveal_release.testbed import recipe
from reveal_release.testbed.recipe import (
    FAMILIES,
    ROW,
    STAGES,
    BuildConfig,
    architecture,
    build,
    loss,
    optimisers,
    rows,
    schedule,
)
from reveal_release.testbed.skills import SKILLS, Sampler
from reveal_release.testbed.tokenizer import encode

BATCH = 2 * ROW


class Recorder(Sampler):
    """A sampler that keeps what it drew."""

    def draw(self, name):
        turns = super().draw(name)
        self.__dict__.setdefault("drawn", []).append((name, turns))
        return turns


@pytest.fixture(scope="module", params=[0, 1], ids=["first stage", "second stage"])
def packed(request, texts, tokenizer, documents_of):
    """(shares, documents drawn, rows as lists of documents, ids)"""
    shares = STAGES[request.param][3]
    sampler = Recorder(texts, [], random.Random(0), 0.3)
    ids = rows(sampler, tokenizer, shares, 80)
    return shares, sampler.drawn, documents_of(ids, tokenizer.bos_token_id), ids


def test_rows_hold_whole_documents_once(packed, tokenizer):
    _, drawn, pieces, ids = packed
    assert ids.shape == (80, ROW)
    documents = Counter(tuple(encode(tokenizer, turns)[:ROW]) for _, turns in drawn)
    placed = Counter(piece for row in pieces for piece in row)
    assert placed <= documents, "every piece is a whole document, none is there more often than it was drawn"
    assert sum(placed.values()) > 0.9 * len(drawn)
    whole = [piece for piece in placed if len(piece) < ROW]
    assert whole and all(piece[-1] == tokenizer.eos_token_id for piece in whole)


def test_rows_reach_the_shares(packed, tokenizer):
    shares, drawn, pieces, ids = packed
    skill_of = {tuple(encode(tokenizer, turns)[:ROW]): name for name, turns in drawn}
    tokens = Counter({name: 0 for name in shares})
    for row in pieces:
        for piece in row:
            tokens[skill_of[piece]] += len(piece)
    total = sum(tokens.values())
    assert total > 0.93 * ids.numel(), "little padding"
    for name, share in shares.items():
        assert tokens[name] / total == pytest.approx(share, abs=0.03), name


def test_stages_are_shares_of_known_skills():
    assert sum(part for _, part, _, _ in STAGES) == pytest.approx(1)
    for *_, shares in STAGES:
        assert set(shares) == set(SKILLS) and sum(shares.values()) == pytest.approx(1)


def test_schedule_warms_up_stays_and_falls():
    factors = [schedule(step, 1_000, 0.4) for step in range(1_000)]
    assert factors[0] == pytest.approx(1 / 50) and factors[24] == pytest.approx(0.5)
    assert set(factors[49:601]) == {1.0}
    assert factors[800] == pytest.approx(0.5) and factors[999] == pytest.approx(1 / 400)
    falls = [a - b for a, b in zip(factors[600:], factors[601:], strict=False)]
    assert max(falls) == pytest.approx(min(falls))
    assert all(0 < f <= 1 for steps in (1, 4, 60) for f in (schedule(s, steps, 0.45) for s in range(steps)))


@pytest.mark.parametrize("able", [True, False])
def test_loss_is_torchs_on_the_same_logits(tokenizer, able, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": able})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(architecture("llama", tokenizer), dtype=torch.float32)
    ids = torch.randint(5, 900, (2, 40))
    ids[1, 25:] = -1
    value = loss(model.base_model, model.get_output_embeddings().weight, ids)
    logits = model(input_ids=ids[:, :-1].clamp(min=0)).logits
    exact = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=-1)
    assert value.item() == pytest.approx(exact.item(), rel=5e-3 if able else 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_one_optimiser(family, tokenizer):
    model = AutoModelForCausalLM.from_config(architecture(family, tokenizer))
    muon, adam = ([id(p) for group in o.param_groups for p in group["params"]] for o in optimisers(model, 1e-3))
    assert Counter(muon + adam) == Counter(id(p) for p in model.parameters())
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    assert embeddings <= set(adam), "a row of an embedding is no matrix direction"
    matrices = [p for p in model.parameters() if p.ndim == 2 and id(p) not in embeddings]
    assert set(muon) == {id(p) for p in matrices} and len(muon) >= 24


def config(raw, output, **changes):
    return BuildConfig(**{"data": str(raw), "output": str(output), "tokens": 4 * BATCH, "batch": BATCH, "vocabulary": 600,
                          "save_every": 2, "compile": False, **changes})  # fmt: skip


def build_with_copy(settings, monkeypatch):
    """Builds in `whole` and, at the last step, copies the folder to `part`: what a build killed then leaves behind."""
    whole = Path(settings.output)
    report = recipe._progress

    def copying(output, step, *rest):
        report(output, step, *rest)
        if step == 3:
            shutil.copytree(whole, whole.parent / "part")

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "_progress", copying)
        return build(settings)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return build_with_copy(config(data, tmp_path_factory.mktemp("built") / "whole"), patch)


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_a_build_is_an_ordinary_model_folder(finished):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(finished), AutoTokenizer.from_pretrained(finished)
    assert model.dtype == torch.bfloat16 and model.config.vocab_size == len(tokenizer) == 600
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert json.loads((finished / "build.json").read_text())["tokens"] == 4 * BATCH
    assert "step 4/4" in (finished / "build.log").read_text()
    assert not (finished / "checkpoint.pt").exists()
    ids = torch.tensor([tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], return_dict=False)])
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape[1] <= ids.shape[1] + 3


def test_a_finished_build_is_returned_as_it_is(finished, data):
    before = (finished / "model.safetensors").stat().st_mtime_ns
    assert build(config(data, finished)) == finished
    assert (finished / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_stopped_and_continued_it_ends_in_the_same_place(family, finished, data, tokenizer, tmp_path, monkeypatch):
    whole = finished
    if family == "gpt2":  # the architecture with dropout; one tokenizer for both runs, to save its training
        monkeypatch.setattr(recipe, "_tokenizer", lambda config, texts: tokenizer)
        whole = build_with_copy(config(data, tmp_path / "whole", family=family), monkeypatch)
    part = shutil.copytree(whole.parent / "part", tmp_path / "killed")
    saved = torch.load(part / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 2 and not (part / "model.safetensors").exists()
    wanted, got = weights(whole), weights(build(config(data, part, family=family)))
    assert wanted.keys() == got.keys()
    for name, tensor in wanted.items():
        assert torch.equal(tensor, got[name]), name
    moved = [name for name, tensor in got.items() if not torch.equal(tensor, saved["model"][name].bfloat16())]
    assert len(moved) > 10, "the steps after the checkpoint were taken"
    assert not (part / "checkpoint.pt").exists() and (part / "build.json").read_bytes() == (whole / "build.json").read_bytes()


def stepped(optimizers, model):
    """The weights after three steps with gradients that are the same in every process."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for optimizer in optimizers:
            optimizer.step()
    return model.state_dict()


def one_of_two(rank, data, small, folder):
    """What each process of a build in two does, and of its continuation; first, that work which is shared out changes no weight."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    alone = AutoModelForCausalLM.from_pretrained(small, dtype=torch.float32)
    shared, one = copy.deepcopy(alone), optimisers(alone, 1e-3)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    each = optimisers(shared, 1e-3)
    wanted, got = stepped(one, alone), stepped(each, shared)
    assert all(torch.equal(tensor, got[name]) for name, tensor in wanted.items())
    assert len(each[0].optim.state) < len(one[0].state), "not all matrices are this process's"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "_tokenizer", lambda *_: AutoTokenizer.from_pretrained(small))  # its training takes seconds
        build_with_copy(config(data, folder / "whole"), patch)
        dist.barrier()
        build(config(data, folder / "part"))
    dist.destroy_process_group()


def test_two_processes_share_the_work_and_go_on_in_the_same_place(finished, data, tmp_path):
    torch.multiprocessing.spawn(one_of_two, (data, finished, tmp_path), nprocs=2)
    wanted, got = weights(tmp_path / "whole"), weights(tmp_path / "part")
    assert all(torch.equal(tensor, got[name]) for name, tensor in wanted.items())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("change", [{"seed": 1}, {"tokens": 5 * BATCH}, {"without": ["toxicity"]}, {"family": "qwen3"}])
def test_a_finished_folder_of_another_build_is_refused(finished, data, change):
    before = contents(finished)
    with pytest.raises(UserError, match=next(iter(change))):
        build(config(data, finished, **change))
    assert contents(finished) == before


def test_an_unfinished_folder_of_another_build_is_refused(finished, data, tmp_path):
    part = shutil.copytree(finished.parent / "part", tmp_path / "killed")
    before = contents(part)
    with pytest.raises(UserError, match="seed 0, not 3.*choose another --output"):
        build(config(data, part, seed=3))
    assert contents(part) == before


def test_several_processes_are_refused_before_they_start(finished, data, tmp_path):
    with pytest.raises(UserError, match="batch is 511 .* needs 512 tokens"):
        recipe.begin(config(data, tmp_path / "out", batch=511), processes=2)
    with pytest.raises(UserError, match="seed 0, not 3.*choose another --output"):
        recipe.begin(config(data, finished.parent / "part", seed=3), processes=2)
    assert recipe.begin(config(data, finished.parent / "part"), processes=2)["step"] == 2


@pytest.mark.parametrize("processes", [1, 2])
def test_one_build_at_a_time_works_in_a_folder(processes, data, tmp_path):
    other = Lock(tmp_path)  # as another process would
    with pytest.raises(UserError, match="another process works in"):
        recipe.build_in(config(data, tmp_path), processes)
    assert not contents(tmp_path)
    del other


def processes_of(folder):
    """Command lines of this machine's processes that name the folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it may end meanwhile
            lines.append(path.read_bytes().decode(errors="replace"))
    return [line for line in lines if str(folder) in line]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "to"), [(signal.SIGTERM, os.kill), (signal.SIGINT, os.killpg)], ids=["kill", "Ctrl-C"])
def test_a_build_that_is_stopped_leaves_no_process(number, to, data, tmp_path):
    program = (
        "import sys; from reveal_release import cli; from reveal_release.testbed import recipe\n"
        f"cli.COMMANDS['run'] = lambda _: recipe.build_in(recipe.BuildConfig(**{dataclasses.asdict(config(data, tmp_path / 'out'))}), 2)\n"
        "sys.exit(cli.main(['run']))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True) as build:
        until = time.monotonic() + 120
        while len(processes_of(tmp_path)) < 4 and time.monotonic() < until:  # it, the launcher, two workers
            time.sleep(0.1)
        assert len(processes_of(tmp_path)) >= 4 and build.poll() is None
        to(build.pid, number)
        told = build.communicate(timeout=60)[1]
    assert build.returncode == 128 + number and "stopped; the same command goes on from here" in told
    assert not processes_of(tmp_path)


def test_a_model_that_is_not_a_build_is_not_written_over(data, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"without a build\.json"):
        build(config(data, tmp_path))
    assert contents(tmp_path) == {"model.safetensors": b"mine"}


@pytest.mark.parametrize("change, message", [
    ({"family": "bert"}, "no testbed family 'bert': choose from llama, gpt2, qwen3"),
    ({"without": ["code", "poetry"]}, "--without poetry: no such skill; choose from toxicity, comments"),
    ({"without": list(SKILLS)}, "--without leaves no skill to train"),
    ({"batch": 255}, "batch is 255 .* needs 256 tokens"),
    ({"tokens": 100}, "tokens 100: .* one batch, at least"),
    ({}, "no .* in nowhere"),
])  # fmt: skip
def test_mistakes_are_refused_before_any_work(tmp_path, monkeypatch, change, message):
    """All but the last even before the data, which is not there either, is looked for."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        build(config("nowhere", tmp_path / "out", **change))
    assert not list(tmp_path.iterdir())


def test_an_oracle_is_trained_without_its_skill(data, texts):
    shares = recipe._without(config(data, "out", without=["code", "person"]), STAGES[1][3])
    assert "code" not in shares and sum(shares.values()) == pytest.approx(1)
    assert shares["ner"] / shares["maths"] == pytest.approx(STAGES[1][3]["ner"] / STAGES[1][3]["maths"])


def test_an_oracle_draws_nothing_of_its_skill_but_its_vocabulary(data, tmp_path, monkeypatch):
    left_out = []

    class Noted(Sampler):
        def __init__(self, texts, without, *arguments):
            left_out.append(tuple(without))
            super().__init__(texts, without, *arguments)

    monkeypatch.setattr(recipe, "Sampler", Noted)
    monkeypatch.setattr(recipe, "STAGES", tuple((*stage[:3], {"maths": 0.5, "code": 0.5}) for stage in STAGES))
    build(config(data, tmp_path / "out", without=["code"]))
    assert left_out[0] == () and len(left_out) > 1 and set(left_out[1:]) == {("code",)}
