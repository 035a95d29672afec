"""Patches on tiny random models: PEFT, hooks and merged weights agree, and everything comes off again."""

import copy
import logging
import warnings

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import nn

from reveal_release.config import UserError
from reveal_release.release.base import fingerprint
from reveal_release.release.lora import from_peft, trainable_factors
from reveal_release.release.patch import LowRank, Patch
from reveal_release.release.runtime import RuntimePatch, applied, merge_

from .conftest import EXACT, IDS, bits, logits, random_patch, save_for, tiny, train_a_little


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
