"""Patches on tiny random models: PEFT, hooks and merged weights agree, and everything comes off again."""

import copy
import json
import logging
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from reveal_release.config import UserError
from reveal_release.release import adapter
from reveal_release.release.adapter import (
    RuntimePatch,
    applied,
    fingerprint,
    from_peft,
    is_fan_in_fan_out,
    load,
    merge_,
    save,
    trainable_factors,
)
from reveal_release.release.patch import LowRank, Patch

IDS = torch.arange(24).reshape(2, 12) % 64
TARGETS = {"llama": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn", "c_fc"]}
EXACT = {"rtol": 1e-5, "atol": 1e-5}


def tiny(family: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    if family == "llama":
        config = LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=32,
        )
        return LlamaForCausalLM(config).eval()
    config = GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32, bos_token_id=None, eos_token_id=None
    )
    return GPT2LMHeadModel(config).eval()


def random_patch(model: nn.Module, family: str, seed: int, ranks: tuple[int, ...] = (3, 2)) -> Patch:
    """A patch that moves the logits visibly, of different ranks in different modules."""
    g = torch.Generator().manual_seed(seed)
    modules = {}
    for name, module in model.named_modules():
        if name.rsplit(".")[-1] not in TARGETS[family]:
            continue
        out, in_ = module.weight.shape if isinstance(module, nn.Linear) else module.weight.T.shape
        r = ranks[len(modules) % len(ranks)]
        modules[name] = LowRank(torch.randn(r, in_, generator=g), 0.05 * torch.randn(out, r, generator=g))
    return Patch(modules)


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    return model(input_ids=IDS).logits


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def save_for(model: nn.Module, patch: Patch, folder, **more):
    return save(
        patch,
        folder,
        base_model_name_or_path="tiny",
        fingerprint=fingerprint(model),
        fan_in_fan_out=is_fan_in_fan_out(model, patch),
        **more,
    )


@pytest.fixture(params=["llama", "gpt2"])
def family(request) -> str:
    return request.param


def test_peft_hooks_and_merge_agree_and_loading_is_silent(family, tmp_path, caplog):
    model = tiny(family)
    base, patch = logits(model), random_patch(model, family, 1)
    save_for(model, patch, tmp_path / "patch")

    with applied(model, patch):
        hooked = logits(model)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        # PEFT 0.21 asks transformers 5 for a deprecated property of every model; nothing to do with the
        # folder.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        plain = PeftModel.from_pretrained(tiny(family), tmp_path / "patch").eval()
    merged = tiny(family)
    merge_(merged, patch)

    assert float((hooked - base).abs().max()) > 0.01
    torch.testing.assert_close(logits(plain), hooked, **EXACT)
    torch.testing.assert_close(logits(merged), hooked, **EXACT)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]

    # The folder says what an adapter says: scale 1, one rank, no patterns, float32.
    config = PeftConfig.from_pretrained(tmp_path / "patch")
    assert (config.r, config.lora_alpha, config.task_type, config.rank_pattern) == (3, 3, "CAUSAL_LM", {})
    assert {p.dtype for n, p in plain.named_parameters() if ".lora_" in n} == {torch.float32}


def test_round_trip_gives_the_same_change(family, tmp_path):
    model = tiny(family)
    patch = random_patch(model, family, 1)
    save_for(model, patch, tmp_path / "patch", notes={"task": "toxicity"})
    again = load(tmp_path / "patch", model)
    assert set(again) == set(patch)
    assert all(torch.equal(again.delta(name), patch.delta(name)) for name in patch)
    manifest = json.loads((tmp_path / "patch" / "reveal_release.json").read_text())
    assert manifest["task"] == "toxicity" and manifest["base_fingerprint"] == fingerprint(model)
    # What PEFT makes of the folder reads back the same.
    plain = PeftModel.from_pretrained(tiny(family), tmp_path / "patch")
    assert all(torch.equal(from_peft(plain).delta(name), patch.delta(name)) for name in patch)


def test_scale_sum_and_negation_at_run_time(family):
    model = tiny(family)
    base, weights = logits(model), bits(model)
    forget, retain = random_patch(model, family, 1), random_patch(model, family, 2)

    with applied(model, forget.scale(-0.7) + retain.scale(0.3)):
        expected = logits(model)
    first, second = RuntimePatch(model, forget), RuntimePatch(model, retain)
    first.scale, second.scale = -0.7, 0.3
    torch.testing.assert_close(logits(model), expected, **EXACT)

    # A scale of 0 is the base itself, and λ is tried without a merge.
    first.scale, second.scale = 0.0, 0.0
    assert torch.equal(logits(model), base)
    first.scale = -1.0
    negated = logits(model)
    first.remove()
    with applied(model, forget.negate()):
        assert torch.equal(logits(model), negated)
    second.remove()
    second.remove()

    assert torch.equal(logits(model), base)
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_patch_and_its_negation_cancel(family):
    model = tiny(family)
    base, patch = logits(model), random_patch(model, family, 1)
    with applied(model, patch), applied(model, patch.negate()):
        torch.testing.assert_close(logits(model), base, **EXACT)


def test_applied_comes_off_when_the_block_fails():
    model = tiny("llama")
    base = logits(model)
    with pytest.raises(RuntimeError, match="inside"), applied(model, random_patch(model, "llama", 1)):
        raise RuntimeError("inside")
    assert torch.equal(logits(model), base)


def test_generation_sees_the_patch():
    model = tiny("llama")
    patch = random_patch(model, "llama", 1, ranks=(8,)).scale(10)
    merged = copy.deepcopy(model)
    merge_(merged, patch)
    arguments = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    plain = model.generate(IDS, **arguments)
    with applied(model, patch):
        patched = model.generate(IDS, **arguments)
    assert torch.equal(patched, merged.generate(IDS, **arguments))
    assert not torch.equal(patched, plain)


@pytest.mark.parametrize("mode", ["bfloat16", "autocast"])
def test_low_precision(mode):
    model, patch = tiny("llama"), random_patch(tiny("llama"), "llama", 1)
    with applied(model, patch):
        exact = logits(model)
    if mode == "bfloat16":
        model = model.to(torch.bfloat16)
        with applied(model, patch):
            got = logits(model)
        assert got.dtype == torch.bfloat16
    else:
        with applied(model, patch), torch.autocast("cpu", torch.bfloat16):
            got = logits(model)
    torch.testing.assert_close(got.float(), exact, rtol=0.05, atol=0.05)


def train_a_little(model: PeftModel, seed: int = 0) -> None:
    """LoRA starts at B = 0; give every factor a value that no initialisation has."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".lora_" in name:
                p.copy_(0.1 * torch.randn(p.shape, generator=g))


# (rank_pattern, alpha_pattern): one key for all layers, one for a single layer.
PATTERNS = {
    "llama": ({"v_proj": 2}, {"q_proj": 5, "layers.1.self_attn.v_proj": 7}),
    "gpt2": ({"c_fc": 6}, {"c_fc": 5, "h.0.attn.c_attn": 7}),
}


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("patterns", [False, True])
def test_from_peft_reads_every_scaling_from_model_folder_and_state_dict(
    family, patterns, use_rslora, tmp_path
):
    rank_pattern, alpha_pattern = PATTERNS[family] if patterns else ({}, {})
    config = LoraConfig(
        r=4,
        lora_alpha=10,
        target_modules=TARGETS[family],
        fan_in_fan_out=family == "gpt2",
        task_type="CAUSAL_LM",
        use_rslora=use_rslora,
        rank_pattern=rank_pattern,
        alpha_pattern=alpha_pattern,
    )
    peft_model = get_peft_model(tiny(family), config).eval()
    train_a_little(peft_model)
    expected = logits(peft_model)
    peft_model.save_pretrained(tmp_path)

    state = get_peft_model_state_dict(peft_model)
    for source in (from_peft(peft_model), from_peft(tmp_path), from_peft(state, config)):
        model = tiny(family)
        with applied(model, source):
            torch.testing.assert_close(logits(model), expected, **EXACT)


def test_a_patch_lies_under_a_lora_in_training():
    """Iteration t+1 trains a new LoRA over what is released so far: the frozen patch must act under it."""
    model = tiny("llama")
    released = random_patch(model, "llama", 1)
    merged = tiny("llama")
    merge_(merged, released)
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")

    runtime = RuntimePatch(model, released)
    over = get_peft_model(model, config).eval()
    train_a_little(over)
    reference = get_peft_model(merged, config).eval()
    train_a_little(reference)
    torch.testing.assert_close(logits(over), logits(reference), **EXACT)

    # Attaching it after the wrapping finds the same modules.
    runtime.remove()
    with applied(over, released):
        torch.testing.assert_close(logits(over), logits(reference), **EXACT)

        factors = trainable_factors(over)
        assert set(factors) == {"model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"}
        over(input_ids=IDS, labels=IDS).loss.backward()
        assert all(f.A.grad.abs().sum() > 0 and f.B.grad.abs().sum() > 0 for f in factors.values())
    # A patch taken from a model in training does not follow it.
    taken = from_peft(over)
    before = taken.norm()
    train_a_little(over, seed=1)
    assert taken.norm() == before != from_peft(over).norm()


def test_fingerprint_tells_bases_apart_and_nothing_else():
    model = tiny("llama")
    print_ = fingerprint(model)
    assert print_ == fingerprint(tiny("llama")) and len(print_) == 64
    assert print_ != fingerprint(tiny("llama", seed=1)) and print_ != fingerprint(tiny("gpt2"))
    # float32 and bfloat16 loads of one checkpoint are one base; a wrapper and a hook change nothing.
    assert print_ == fingerprint(tiny("llama").to(torch.bfloat16))
    with applied(model, random_patch(model, "llama", 1)):
        assert fingerprint(model) == print_
    wrapped = get_peft_model(tiny("llama"), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert fingerprint(wrapped) == print_
    # One module merged in one layer is another base.
    one = random_patch(model, "llama", 1)
    name = "model.layers.1.self_attn.v_proj"
    merge_(model, Patch({name: one[name]}), scale=0.01)
    assert fingerprint(model) != print_


def test_load_refuses_another_base(tmp_path):
    model = tiny("llama")
    patch = random_patch(model, "llama", 1)
    save_for(model, patch, tmp_path / "patch")
    with pytest.raises(UserError, match="made for another base .tiny.*give that base"):
        load(tmp_path / "patch", tiny("llama", seed=1))
    with pytest.raises(UserError, match="does not have; use the base model"):
        load(tmp_path / "patch", tiny("gpt2"))
    assert load(tmp_path / "patch").norm() == pytest.approx(patch.norm())
    # The patch must not be put on twice: its own merged model is another base.
    merge_(model, patch)
    with pytest.raises(UserError, match="already merged"):
        load(tmp_path / "patch", model)
    (tmp_path / "patch" / "reveal_release.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "patch", tiny("llama"))


def test_runtime_patch_refuses_a_misfit_and_attaches_nothing():
    model = tiny("llama")
    good = random_patch(model, "llama", 1)
    for name, shape, message in [
        ("model.nothing", (32, 32), "does not have"),
        ("model.norm", (32, 32), "only nn.Linear and Conv1D"),
        ("model.layers.0.mlp.up_proj", (32, 32), r"here it is \(48, 32\)"),
    ]:
        bad = good + Patch({name: LowRank(torch.ones(1, shape[1]), torch.ones(shape[0], 1))})
        with pytest.raises(UserError, match=message):
            RuntimePatch(model, bad)
        with pytest.raises(UserError, match=message):
            merge_(model, bad)
    assert not any(m._forward_hooks for m in model.modules())
    assert fingerprint(model) == fingerprint(tiny("llama"))


@pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers")
def test_a_lora_on_the_output_layer_is_read_though_peft_writes_that_layer_too(tmp_path):
    config = LoraConfig(r=2, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(tiny("llama"), config)
    model.save_pretrained(tmp_path)
    written = load_file(tmp_path / "adapter_model.safetensors")
    assert any(key.endswith("lm_head.base_layer.weight") for key in written), "else there is nothing to test"
    patch, known = load(tmp_path), from_peft(model)
    assert set(patch) == set(known) and "lm_head" in patch
    for name, module in patch.items():
        torch.testing.assert_close(module.delta(), known[name].delta())


def test_from_peft_refuses_what_is_no_plain_lora(tmp_path):
    def lora(**more) -> PeftModel:
        config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **more)
        return get_peft_model(tiny("llama"), config)

    for more, field in [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa_niter_2"}, "init_lora_weights"),
        ({"bias": "lora_only"}, "bias"),
    ]:
        with pytest.raises(UserError, match=field):
            from_peft(lora(**more))
    with pytest.raises(UserError, match="no LoRA adapter named 'other'"):
        from_peft(lora(), adapter_name="other")
    with pytest.raises(UserError, match="no LoRA adapter"):
        trainable_factors(tiny("llama"))
    diverged = lora()
    trainable_factors(diverged)["model.layers.0.self_attn.q_proj"].A.data[0, 0] = float("nan")
    with pytest.raises(UserError, match="q_proj holds NaN"):
        from_peft(diverged)
    with pytest.raises(UserError, match="not a PEFT adapter folder"):
        from_peft(tmp_path)
    config = LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"], task_type="CAUSAL_LM")
    with pytest.raises(UserError, match="embedding model.embed_tokens"):
        from_peft(get_peft_model(tiny("llama"), config))
    lora().save_pretrained(tmp_path)
    state = load_file(tmp_path / "adapter_model.safetensors")
    name = next(key for key in state if "lora_B" in key)
    save_file({**state, name: state[name][:, :1].contiguous()}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match="has ranks 2 and 1: it is damaged"):
        from_peft(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"cut short")
    with pytest.raises(UserError, match="is damaged"):
        from_peft(tmp_path)


def test_an_interrupted_save_leaves_the_earlier_adapter(tmp_path, monkeypatch):
    model = tiny("llama")
    patch = random_patch(model, "llama", 1)
    folder = save_for(model, patch, tmp_path / "patch", card="first")
    rename = Path.rename

    def stops(self, target):
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stops)
    with pytest.raises(KeyboardInterrupt):
        save_for(model, patch.scale(2), folder, card="second")
    assert load(folder, model).norm() == pytest.approx(patch.norm()) and (folder / "README.md").read_text() == "first"
    monkeypatch.undo()
    save_for(model, patch.scale(2), folder, card="second")
    assert load(folder, model).norm() == pytest.approx(2 * patch.norm()) and (folder / "README.md").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["patch"]


def test_save_replaces_an_adapter_and_nothing_else(tmp_path):
    model = tiny("llama")
    patch = random_patch(model, "llama", 1)
    folder = save_for(model, patch, tmp_path / "a" / "patch")
    (folder / "README.md").write_text("mine")
    first = (folder / "adapter_config.json").read_bytes()
    save_for(model, patch.scale(2), folder)
    assert load(folder, model).norm() == pytest.approx(2 * patch.norm())
    assert (folder / "README.md").read_text() == "mine"
    assert (folder / "adapter_config.json").read_bytes() == first  # the same patch gives the same bytes
    assert [p.name for p in folder.parent.iterdir()] == ["patch"]  # no scratch left behind

    (tmp_path / "a" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is there.; choose a new folder"):
        save_for(model, patch, tmp_path / "a")
    assert (tmp_path / "a" / "thesis.tex").read_text() == "precious"
    with pytest.raises(UserError, match="nothing to save"):
        save(Patch(), tmp_path / "b", base_model_name_or_path="tiny", fingerprint="")


def test_a_save_that_fails_leaves_the_old_adapter(tmp_path, monkeypatch):
    model = tiny("llama")
    patch = random_patch(model, "llama", 1)
    folder = save_for(model, patch, tmp_path / "patch")

    def full(*_args, **_more):
        raise OSError("no space left on device")

    monkeypatch.setattr(adapter.safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        save_for(model, patch.scale(2), folder)
    assert load(folder, model).norm() == pytest.approx(patch.norm())
    assert [p.name for p in tmp_path.iterdir()] == ["patch"]


def test_a_patch_of_rank_zero_can_be_saved(tmp_path):
    model = tiny("llama")
    patch = random_patch(model, "llama", 1)
    save_for(model, (patch + patch.negate()).compress(), tmp_path / "patch")
    plain = PeftModel.from_pretrained(tiny("llama"), tmp_path / "patch").eval()
    assert torch.equal(logits(plain), logits(model))


class EightBit(nn.Linear):
    """As in FP8 checkpoints: the weight is worth its scale times as much."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * 0.01)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_a_quantised_weight_takes_a_patch_at_run_time_alone(dtype: torch.dtype) -> None:
    model = nn.Sequential(EightBit(6, 4, bias=False))
    model[0].weight = nn.Parameter(torch.randint(-8, 8, (4, 6)).to(dtype), requires_grad=False)
    m, x = LowRank(1e-3 * torch.randn(2, 6), torch.randn(4, 2)), torch.randn(3, 6)
    before = model(x)
    with applied(model, Patch({"0": m})):
        torch.testing.assert_close(model(x), before + x @ m.delta().T)
    with pytest.raises(UserError, match="module 0 is quantised"):
        merge_(model, Patch({"0": m}))
    assert torch.equal(model(x), before)
