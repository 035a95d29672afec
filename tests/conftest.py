"""Two tiny random models with a chat template, for every test that needs a model: seconds, no download."""

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from reveal_release.models import LanguageModel, load_model
from reveal_release.testbed.tokenizer import train

SENTENCES = (
    "Write a comment about the weather in the north.", "The people of the town read a letter about the river.",
    "What is the name of the bridge near the old market?", "She said that there is nothing new in the report.",
    "Rewrite this instruction in other words: explain how the train runs.", "They were there when the music began.",
)  # fmt: skip
VOCABULARY = 400


def _save(folder: Path, model: PreTrainedModel) -> str:
    model.save_pretrained(folder)
    train(SENTENCES * 20, VOCABULARY).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a Llama of 2 layers. Its weights are large enough for its outputs to depend on the prompt."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3,
        bos_token_id=0, pad_token_id=1, eos_token_id=4,
    )  # fmt: skip
    return _save(tmp_path_factory.mktemp("tiny-llama"), LlamaForCausalLM(config))


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a GPT-2 of 2 layers: learned positions, Conv1D instead of Linear, dropout."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=512, initializer_range=0.3,
        bos_token_id=0, pad_token_id=1, eos_token_id=4,
    )  # fmt: skip
    return _save(tmp_path_factory.mktemp("tiny-gpt2"), GPT2LMHeadModel(config))


@pytest.fixture
def lm(tiny_llama: str) -> LanguageModel:
    return load_model(tiny_llama, "float32", "cpu")


@pytest.fixture
def gpt2(tiny_gpt2: str) -> LanguageModel:
    return load_model(tiny_gpt2, "float32", "cpu")
