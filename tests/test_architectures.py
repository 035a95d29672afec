"""The whole loop on a tiny random model of each architecture: its patch is plain PEFT, equals the merged model, and comes off."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from reveal_release.config import ReleaseConfig, RevealConfig, RunConfig
from reveal_release.loop import run
from reveal_release.patches import merge, revert
from reveal_release.release.base import fingerprint
from reveal_release.release.lora import from_peft
from reveal_release.testbed.tokenizer import CHAT_TEMPLATE, train

from .conftest import SENTENCES, VOCABULARY

pytestmark = pytest.mark.usefixtures("little")

SIZE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.1,
    "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 4,
}  # fmt: skip
WINDOW = {"sliding_window": 8}  # shorter than a prompt with its answer
ALTERNATING = {**WINDOW, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8}
EXPERTS = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1}
ARCHITECTURES: dict[str, tuple[dict[str, Any], int]] = {  # what is its own, and its linear maps in a block
    "falcon": ({"new_decoder_architecture": True}, 4),  # q, k and v in one map
    "gemma3_text": (ALTERNATING, 7),
    "glm4_moe": ({**EXPERTS, "head_dim": 8}, 4),  # PEFT takes the MLPs' names, a dense one's too, for the experts' parameters
    "gpt2": ({}, 4),
    "gpt_neox": ({}, 4),  # q, k and v in one map
    "llama": ({}, 7),
    "mistral": (WINDOW, 7),
    "olmo2": ({}, 7),
    "phi3": (WINDOW, 4),  # q, k and v in one map, gate and up in another
    "qwen2": ({}, 7),
    "qwen3": ({"head_dim": 8}, 7),
    "starcoder2": (WINDOW, 6),
}
WITHOUT_BOS = ("qwen2", "qwen3")
TASK = r"""name: small-letters
description: answers that begin with certain signs
seeds: [Write a comment., Name the river., Say something about the old bridge.]
benign: [Tell the time., 'What is new?', Say where the train is.]
scorer: {regex: '\A[ -o]'}
evaluate: {instructions: [Write a reply., Say what that is.], samples: 2}
max_new_tokens: 8
"""


def build(architecture: str, folder: Path) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **SIZE, **ARCHITECTURES[architecture][0])
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer = train(SENTENCES * 20, VOCABULARY)
    if architecture in WITHOUT_BOS:
        tokenizer.bos_token, tokenizer.chat_template = None, CHAT_TEMPLATE.removeprefix("{{ bos_token }}")
    tokenizer.save_pretrained(folder)
    return folder


def loaded(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_the_loop(architecture: str, tmp_path: Path) -> None:
    base, out, task = build(architecture, tmp_path / "base"), tmp_path / "out", tmp_path / "task.yaml"
    task.write_text(TASK)
    with torch.enable_grad():
        run(RunConfig(
            task=str(task), model=str(base), output=str(out), iterations=1, stop_reward=0.0, utility_budget=1.0, save_merged=True,
            reveal=RevealConfig(evaluations=6, samples=2, start=4, batch=2, candidates=8, finalists=2, final_samples=4, records=24,
                                threshold=0.5),
            release=ReleaseConfig(rank=2, layers=1.0, batch=4, steps=3, retain_steps=3, retain_records=160, learning_rate=0.01),
            dtype="float32", device="cpu",
        ))  # fmt: skip

    ids = torch.arange(5, 125).reshape(3, 40)
    model = loaded(base)
    plain, identity = model(ids).logits, fingerprint(model)
    weights = {name: p.clone() for name, p in model.state_dict().items()}
    adapted = PeftModel.from_pretrained(model, out / "patch")
    patched = adapted(ids).logits
    assert len(from_peft(adapted)) == 2 * ARCHITECTURES[architecture][1]
    assert (patched - plain).abs().max() > 1e-2
    torch.testing.assert_close(loaded(out / "model")(ids).logits, patched, rtol=1e-4, atol=1e-4)

    removed = adapted.unload()
    assert torch.equal(removed(ids).logits, plain) and fingerprint(removed) == identity
    assert all(torch.equal(p, weights[name]) for name, p in removed.state_dict().items())

    merge(str(base), str(out / "patch"), str(tmp_path / "merged"), "float32")
    torch.testing.assert_close(loaded(tmp_path / "merged")(ids).logits, patched, rtol=1e-4, atol=1e-4)
    assert revert(str(tmp_path / "merged"), str(out / "patch"), str(tmp_path / "again"))["exact"]
    assert torch.equal(loaded(tmp_path / "again")(ids).logits, plain)
