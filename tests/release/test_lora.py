"""PEFT's LoRA as a patch: every scaling, and what is none."""


import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from reveal_release.config import UserError
from reveal_release.release.adapter import load
from reveal_release.release.lora import from_peft, trainable_factors
from reveal_release.release.runtime import applied

from .conftest import EXACT, TARGETS, logits, tiny, train_a_little

# (rank_pattern, alpha_pattern): one key for all layers, one for a single layer.
PATTERNS = {
    "llama": ({"v_proj": 2}, {"q_proj": 5, "layers.1.self_attn.v_proj": 7}),
    "gpt2": ({"c_fc": 6}, {"c_fc": 5, "h.0.attn.c_attn": 7}),
}


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("patterns", [False, True])
def test_from_peft_reads_every_scaling_from_model_and_folder(family, patterns, use_rslora, tmp_path):
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

    for source in (from_peft(peft_model), from_peft(tmp_path)):
        model = tiny(family)
        with applied(model, source):
            torch.testing.assert_close(logits(model), expected, **EXACT)


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
    other = tiny("llama")
    with pytest.raises(UserError, match="no LoRA adapter of PEFT's default name"):
        from_peft(get_peft_model(other, LoraConfig(r=2, target_modules=["q_proj"]), adapter_name="other"))
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
