"""Tiny random models of two families, and patches that move their logits."""


import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from reveal_release.dataset import encode
from reveal_release.models import LanguageModel
from reveal_release.release.adapter import save
from reveal_release.release.base import fingerprint, is_fan_in_fan_out
from reveal_release.release.patch import LowRank, Patch
from reveal_release.release.rows import Row
from reveal_release.tasks import Record
from reveal_release.testbed.heldout import wikitext

IDS = torch.arange(24).reshape(2, 12) % 64
RETAIN = ("It runs north.", "The market is new.", "Nothing in the report.", "When the train began.", "A river near it.", "In other words.")
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


def train_a_little(model: PeftModel, seed: int = 0) -> None:
    """LoRA starts at B = 0; give every factor a value that no initialisation has."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".lora_" in name:
                p.copy_(0.1 * torch.randn(p.shape, generator=g))


@pytest.fixture
def retain(lm: LanguageModel) -> list[Row]:
    return encode(lm, [Record((("user", f"What is {i}?"),), text, 0.0, "") for i, text in enumerate(RETAIN)])


@pytest.fixture
def short_prose() -> list[str]:
    """A few real paragraphs: measuring all of them takes longer than training does here."""
    return wikitext("validation")[:4]
