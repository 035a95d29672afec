"""The commands of `patch`: against dense arithmetic and plain PEFT, what comes back of a merge, and what is refused."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from reveal_release import cli, patches
from reveal_release.config import UserError
from reveal_release.patches import combine, info, merge, revert, truncate
from reveal_release.release.adapter import load, save
from reveal_release.release.base import fingerprint, is_fan_in_fan_out
from reveal_release.release.patch import LowRank, Patch

IDS = torch.arange(5, 65).reshape(3, 20)


def loaded(folder: str | Path) -> PreTrainedModel:
    """As plain transformers does, in the precision that is stored."""
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    return model(IDS).logits.float()


def write_patch(model: PreTrainedModel, folder: Path, seed: int = 0, rank: int = 4, head: bool = False) -> str:
    """Random, of about a tenth of the weights; with `head`, of the output layer alone."""
    g = torch.Generator().manual_seed(seed)
    modules = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and ("lm_head" in name) == head:
            out, into = module.weight.shape if isinstance(module, nn.Linear) else reversed(module.weight.shape)
            A, B = torch.randn(rank, into, generator=g), torch.randn(out, rank, generator=g)
            modules[name] = LowRank(A, B * 0.1 * module.weight.float().norm() / (B @ A).norm())
    patch = Patch(modules)
    kind = is_fan_in_fan_out(model, patch)
    save(patch, folder, base_model_name_or_path="tiny", fingerprint=fingerprint(model), fan_in_fan_out=kind)
    return str(folder)


def in_bfloat16(folder: str, new: Path) -> str:
    loaded(folder).to(torch.bfloat16).save_pretrained(new)
    AutoTokenizer.from_pretrained(folder).save_pretrained(new)
    return str(new)


@pytest.fixture(params=["llama", "gpt2", "llama-bfloat16"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = request.getfixturevalue("tiny_" + request.param.removesuffix("-bfloat16"))
    return in_bfloat16(folder, tmp_path / "base") if "bfloat16" in request.param else folder


@pytest.fixture
def patch(base: str, tmp_path: Path) -> str:
    return write_patch(loaded(base), tmp_path / "patch")


def test_a_merge_is_what_peft_makes_of_the_patch_and_a_whole_folder(base: str, patch: str, tmp_path: Path) -> None:
    figures = merge(base, patch, str(tmp_path / "merged"), "float32")
    merged, before = loaded(tmp_path / "merged"), loaded(base)
    adapted = logits(PeftModel.from_pretrained(loaded(base).float(), patch))
    torch.testing.assert_close(logits(merged), adapted, rtol=1e-4, atol=1e-4)
    assert (logits(before.float()) - adapted).abs().max() > 0.1
    assert merged.dtype == torch.float32 and figures["rounding"] < 1e-5
    one, two = (AutoTokenizer.from_pretrained(folder) for folder in (base, tmp_path / "merged"))
    assert one("The bridge?") == two("The bridge?") and one.chat_template == two.chat_template
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == [], "no scratch is left behind"


def test_a_merge_in_float32_of_a_base_in_bfloat16_reverts_bit_for_bit(base: str, patch: str, tmp_path: Path) -> None:
    """And of a base in float32 to its last digits."""
    before = loaded(base)
    made = merge(base, patch, str(tmp_path / "merged"), "float32")
    found = revert(str(tmp_path / "merged"), patch, str(tmp_path / "again"))
    again = loaded(tmp_path / "again")
    assert found["same_fingerprint"] is (fingerprint(again) == fingerprint(before)) and again.dtype == before.dtype
    names = [name for name in load(patch)]
    same = sum(int((again.get_submodule(n).weight == before.get_submodule(n).weight).sum()) for n in names)  # type: ignore[arg-type]
    assert made["restored"] == found["restored"] == same
    assert made["changed"] == sum(before.get_submodule(n).weight.numel() for n in names)  # type: ignore[operator]
    assert found["exact"] is (same == made["changed"])
    if before.dtype == torch.bfloat16:
        assert found["exact"] and found["same_fingerprint"]
    for name, p in again.named_parameters():
        torch.testing.assert_close(p, before.get_parameter(name), rtol=1e-5, atol=1e-6)


def test_a_merge_in_bfloat16_tells_what_rounding_took(base: str, patch: str, tmp_path: Path) -> None:
    made = merge(base, patch, str(tmp_path / "merged"), "bfloat16")
    merged, before, delta = loaded(tmp_path / "merged"), loaded(base), load(patch)
    assert made["rounded"] == ("" if before.dtype == torch.bfloat16 else "bfloat16")
    assert merged.dtype == torch.bfloat16 and 1e-3 < made["rounding"] < 0.1 and made["restored"] < made["changed"]
    lost = norm = 0.0
    for name in delta:  # by hand
        after, weight = (m.get_submodule(name).weight.detach().double() for m in (merged, before))  # type: ignore[operator]
        if isinstance(merged.get_submodule(name), Conv1D):
            after, weight = after.T, weight.T
        lost += float((after - weight - delta.delta(name).double()).square().sum())
        norm += float(delta.delta(name).double().square().sum())
    assert made["rounding"] == pytest.approx((lost / norm) ** 0.5, rel=1e-3)
    found = revert(str(tmp_path / "merged"), patch, str(tmp_path / "again"))
    again = loaded(tmp_path / "again")
    rounded = before.to(torch.bfloat16)  # in place
    same = sum(int((again.get_submodule(n).weight == rounded.get_submodule(n).weight).sum()) for n in delta)  # type: ignore[arg-type]
    assert found["exact"] is False and found["restored"] == made["restored"] == same and found["rounded"] == made["rounded"]
    for name, p in again.named_parameters():
        torch.testing.assert_close(p, rounded.get_parameter(name), rtol=0.0, atol=0.02)


def test_a_merge_keeps_the_precision_of_the_base_by_default(base: str, patch: str, tmp_path: Path) -> None:
    assert merge(base, patch, str(tmp_path / "merged"))["dtype"] == ("bfloat16" if "base" in base else "float32")


def test_a_patch_that_cannot_be_told_to_be_of_the_model_is_merged_and_said_so(base: str, patch: str, tmp_path: Path) -> None:
    assert merge(base, patch, str(tmp_path / "merged"))["unchecked"] == ""
    Path(patch, "reveal_release.json").unlink()
    named = json.loads(Path(patch, "adapter_config.json").read_text())["base_model_name_or_path"]
    assert merge(base, patch, str(tmp_path / "again"))["unchecked"] == named != ""


def test_an_output_layer_that_is_the_embedding_is_untied_and_tied_again(tiny_gpt2: str, tmp_path: Path) -> None:
    before = loaded(tiny_gpt2)
    assert before.config.tie_word_embeddings and before.lm_head.weight is before.transformer.wte.weight
    head = write_patch(before, tmp_path / "patch", head=True)
    merge(tiny_gpt2, head, str(tmp_path / "merged"))
    merged = loaded(tmp_path / "merged")
    assert torch.equal(merged.transformer.wte.weight, before.transformer.wte.weight), "the embedding is not changed"
    expected = before.lm_head.weight + load(head).delta("lm_head")
    torch.testing.assert_close(merged.lm_head.weight, expected)
    with torch.no_grad():
        hidden = before.transformer(IDS).last_hidden_state
        torch.testing.assert_close(logits(merged), hidden @ expected.T, rtol=1e-4, atol=1e-4)
    assert revert(str(tmp_path / "merged"), head, str(tmp_path / "again"))["exact"], "the embedding has the base's weights"
    again = loaded(tmp_path / "again")
    assert again.config.tie_word_embeddings and fingerprint(again) == fingerprint(before)
    assert torch.equal(logits(again), logits(before))


def test_a_merge_without_a_record_is_reverted_if_the_result_is_the_base(tiny_llama: str, tmp_path: Path) -> None:
    """As the merged model of a run is; its fingerprint tells."""
    base = in_bfloat16(tiny_llama, tmp_path / "base")
    patch = write_patch(loaded(base), tmp_path / "patch")
    merge(base, patch, str(tmp_path / "merged"), "float32")
    (tmp_path / "merged" / patches.MERGE_NAME).unlink()
    found = revert(str(tmp_path / "merged"), patch, str(tmp_path / "again"))
    assert (found["exact"], found["restored"], found["same_fingerprint"]) == (None, None, True)
    assert fingerprint(loaded(tmp_path / "again")) == fingerprint(loaded(base))
    other = write_patch(loaded(base), tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="is not the base that the patch records"):
        revert(str(tmp_path / "merged"), other, str(tmp_path / "third"))
    assert not (tmp_path / "third").exists()


def test_combine_is_the_weighted_sum(tiny_llama: str, tmp_path: Path) -> None:
    model = loaded(tiny_llama)
    one, two = write_patch(model, tmp_path / "one", 1, rank=3), write_patch(model, tmp_path / "two", 2, rank=2)
    figures = combine([one, two], str(tmp_path / "both"), [1.0, -0.5])
    both = load(tmp_path / "both", model)
    assert (figures["rank"], figures["concatenated"], both.rank) == (5, 5, 5) and figures["error"] < 1e-6
    for name in both:
        expected = load(one).delta(name).double() - 0.5 * load(two).delta(name).double()
        assert float((both.delta(name) - expected).norm() / expected.norm()) < 1e-6
    again = combine([one, one], str(tmp_path / "twice"))
    assert (again["rank"], again["concatenated"]) == (3, 6) and again["norm"] == pytest.approx(2 * load(one).norm(), rel=1e-6)
    nothing = combine([one, one], str(tmp_path / "nothing"), [1.0, -1.0])
    assert (nothing["norm"], nothing["error"]) == (0.0, 0.0)
    assert "The sum of 2 patches, with weights 1, -0.5." in (tmp_path / "both/README.md").read_text(encoding="utf-8")
    assert (tmp_path / "both/adapter_model.safetensors").stat().st_mode == (tmp_path / "both/adapter_config.json").stat().st_mode
    record = json.loads((tmp_path / "both/reveal_release.json").read_text())["combined"]
    weights = [hashlib.sha256((Path(p) / "adapter_model.safetensors").read_bytes()).hexdigest() for p in (one, two)]
    assert record == {"sha256": weights, "weights": [1.0, -0.5]}


def test_truncate_tells_the_error_of_every_module(tiny_gpt2: str, tmp_path: Path) -> None:
    model = loaded(tiny_gpt2)
    patch = write_patch(model, tmp_path / "patch", rank=6)
    figures = truncate(patch, 2, str(tmp_path / "small"))
    full, small = load(patch), load(tmp_path / "small", model)
    assert small.rank == 2 and (figures["rank"], figures["was"]) == (2, 6) and figures["errors"].keys() == set(full)
    lost = {name: float((full.delta(name) - small.delta(name)).norm()) for name in full}
    for name, error in figures["errors"].items():
        assert error == pytest.approx(lost[name] / float(full.delta(name).norm()), rel=1e-5)
    assert figures["error"] == pytest.approx(sum(e**2 for e in lost.values()) ** 0.5 / full.norm(), rel=1e-5)
    adapted = PeftModel.from_pretrained(loaded(tiny_gpt2), tmp_path / "small")
    assert (logits(adapted) - logits(PeftModel.from_pretrained(loaded(tiny_gpt2), patch))).abs().max() > 1e-3


def test_info_counts_and_checks(tiny_llama: str, tmp_path: Path) -> None:
    model = loaded(tiny_llama)
    patch = write_patch(model, tmp_path / "patch")
    figures = info(patch, tiny_llama)
    full = load(patch)
    assert (figures["modules"], figures["rank"], figures["least_rank"], figures["base"]) == (14, 4, 4, "tiny")
    assert figures["fingerprint"] == fingerprint(model) and figures["norm"] == pytest.approx(full.norm(), rel=1e-6)
    weights = sum(float(model.get_submodule(name).weight.detach().square().sum()) for name in full)  # type: ignore[operator]
    assert figures["relative"] == pytest.approx(full.norm() / weights**0.5, rel=1e-5)
    norms = sorted((full[name].norm() for name in full), reverse=True)
    assert [norm for _, _, norm in figures["largest"]] == pytest.approx(norms[: patches.LARGEST], rel=1e-5)
    save(full + full, patch, base_model_name_or_path="tiny", fingerprint="0" * 64)
    assert (info(patch)["rank"], info(patch)["stored"]) == (4, 8), "what the file holds, and what it needs"
    with pytest.raises(UserError, match="made for another base"):
        info(patch, tiny_llama)


def test_an_adapter_that_peft_wrote(tiny_llama: str, tmp_path: Path) -> None:
    """It can be merged, for what its names and shapes tell, but not added to others: its base is not known."""
    lora = get_peft_model(loaded(tiny_llama), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM"))
    lora.save_pretrained(tmp_path / "foreign")
    foreign = str(tmp_path / "foreign")
    assert info(foreign, tiny_llama)["fingerprint"] is None
    merge(tiny_llama, foreign, str(tmp_path / "merged"))
    torch.testing.assert_close(logits(loaded(tmp_path / "merged")), logits(lora.eval()), rtol=1e-4, atol=1e-4)
    revert(str(tmp_path / "merged"), foreign, str(tmp_path / "again"))
    torch.testing.assert_close(logits(loaded(tmp_path / "again")), logits(loaded(tiny_llama)), rtol=1e-4, atol=1e-4)
    for work in (lambda: combine([foreign, foreign], str(tmp_path / "sum")), lambda: truncate(foreign, 1, str(tmp_path / "small"))):
        with pytest.raises(UserError, match="its base cannot be told"):
            work()


# ---- what is refused, in one line, with nothing written ----


@pytest.fixture(autouse=True)
def no_progress() -> Iterator[None]:
    """As the command line sets it, before the libraries are imported."""
    transformers_logging.disable_progress_bar()
    yield
    transformers_logging.enable_progress_bar()


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert cli.main(["patch", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err
    return err


def test_mistakes_are_one_line(tiny_llama: str, tiny_gpt2: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, new = loaded(tiny_llama), tmp_path / "new"
    one, other = write_patch(model, tmp_path / "one"), write_patch(loaded(tiny_gpt2), tmp_path / "other")
    merged, changed = tmp_path / "merged", tmp_path / "changed"
    merge(tiny_llama, one, str(merged))
    shutil.copytree(merged, changed)
    with torch.no_grad():
        (touched := loaded(changed)).lm_head.weight.mul_(2)
    touched.save_pretrained(changed)
    broken = tmp_path / "broken"
    shutil.copytree(one, broken)
    (broken / "adapter_config.json").write_text("[]")
    second = write_patch(model, tmp_path / "second", seed=2)
    kept = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    for arguments, message in [
        (("info", merged), "holds no adapter_config.json and is no patch"),
        (("info", broken), "damaged"),
        (("info", one, "--model", tiny_gpt2), "does not have; use the base model"),
        (("info", one, "--model", changed), "another base"),
        (("merge", one, "--model", merged, "--output", new), "already merged"),
        (("merge", one, "--model", tiny_llama, "--output", merged), "exists: choose another --output"),
        (("merge", one, "--model", tmp_path, "--output", new), "no config.json"),
        (("merge", one, "--model", tiny_llama, "--output", merged / "config.json" / "new"), "config.json is no folder"),
        (("revert", one, "--model", tiny_llama, "--output", new), "there is nothing to revert"),
        (("revert", second, "--model", merged, "--output", new), "merged with another patch"),
        (("revert", one, "--model", changed, "--output", new), "changed after the merge"),
        (("combine", one, other, "--output", new), "different bases"),
        (("combine", one, second, "--weights", 1, "--output", new), "1 weights for 2 patches"),
        (("combine", one, "--weights", "nan", "--output", new), "not finite"),
        (("combine", one, "--weights", "x", "--output", new), "weights has 'x': give numbers"),
        (("combine", one, other, "--weights", "0,0", "--output", new), "every weight is 0"),
        (("merge", one, "--model", tiny_llama, "--output", ""), "--output is empty: name a folder"),
        (("combine", one, one, "--output", one), "exists"),
        (("truncate", one, "--rank", 0, "--output", new), "the patch has rank 4"),
        (("truncate", one, "--rank", 4, "--output", new), "the patch has rank 4"),
        (("truncate", one, "--rank", 2, "--output", merged), "exists"),
        (("truncate", tmp_path, "--rank", 2, "--output", new), "is no patch"),
    ]:
        assert message in refused(capsys, *arguments), arguments
    assert sorted(tmp_path.rglob("*")) == kept


def test_a_merge_that_fails_leaves_nothing(tiny_llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch = write_patch(loaded(tiny_llama), tmp_path / "patch")

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", full)
    with pytest.raises(OSError, match="No space"):
        merge(tiny_llama, patch, str(tmp_path / "merged"))
    assert [p.name for p in tmp_path.iterdir()] == ["patch"]


def test_the_commands_show_their_figures_and_go_on(tiny_llama: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each prints the command that comes next, which runs as it stands."""
    patch = write_patch(loaded(tiny_llama), tmp_path / "patch")
    text = json.loads((tmp_path / "patch/reveal_release.json").read_text())
    (tmp_path / "patch/reveal_release.json").write_text(json.dumps(text | {"base_model_name_or_path": tiny_llama, "task": "ner"}))
    command = ["patch", "info", patch]
    shown = []
    for _ in range(3):
        assert cli.main(command) == 0
        shown.append(capsys.readouterr().out)
        following = [line for line in shown[-1].splitlines() if line.startswith("Next: reveal-release ")]
        command = following[0].split()[2:] if following else []
    assert "14 modules of rank 4" in shown[0] and "takes away: ner" in shown[0]
    assert "rounding took" in shown[1] and "The base again" in shown[2] and not command
    assert cli.main(["patch", "truncate", patch, "--rank", "1", "--output", str(tmp_path / "small")]) == 0
    assert cli.main(["patch", "combine", patch, str(tmp_path / "small"), "--weights", "-1,1", "--output", str(tmp_path / "rest")]) == 0
    out = capsys.readouterr().out
    assert "Rank 4 to 1" in out and "most in model.layers" in out and "rank 3 of 5 put together" in out
