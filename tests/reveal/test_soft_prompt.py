"""Soft prompts: as large as the model's embeddings, of few dimensions, where they were marked, and a function of their seed."""

import pytest
import torch
from transformers import Gemma2Config, Gemma2Model, PreTrainedModel

from reveal_release.chat import MARK
from reveal_release.generation import Sampling, generate
from reveal_release.models import LanguageModel
from reveal_release.reveal.soft_prompt import DIMENSIONS, TOKENS, embedding_rms, soft_prompts, soft_tokens

REQUESTS = [f"{MARK}Output: Name it.\nWhat was it?", f"Output: Sing a song of the old river.{MARK}\nWhat was it?", f"Say {MARK} it."]


def gemma() -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "head_dim": 8}
    return Gemma2Model(Gemma2Config(**sizes, num_attention_heads=4, num_key_value_heads=2, pad_token_id=1))


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma"])
def test_they_are_as_large_as_what_the_embedding_layer_gives(name: str, lm: LanguageModel, gpt2: LanguageModel) -> None:
    model = {"llama": lm.model, "gpt2": gpt2.model, "gemma": gemma()}[name]
    embed = model.get_input_embeddings()
    with torch.no_grad():
        every = torch.stack([embed(torch.tensor([i]))[0] for i in range(embed.weight.shape[0])]).double()
        rms = float(every.square().mean().sqrt())
        tokens = soft_tokens(embed, 6, seed=1)
        assert embedding_rms(embed) == pytest.approx(rms, rel=1e-5)
    assert tokens.shape == (6, TOKENS, 32) and tokens.dtype == embed.weight.dtype
    torch.testing.assert_close(tokens.square().mean(-1).sqrt(), torch.full((6, TOKENS), rms), rtol=1e-4, atol=0)
    if name == "gemma":  # its layer gives more than its weights
        assert rms == pytest.approx(32**0.5 * float(embed.weight.detach().square().mean().sqrt()), rel=1e-2)


def test_points_lie_in_few_dimensions_and_far_apart(lm: LanguageModel) -> None:
    tokens = soft_tokens(lm.model.get_input_embeddings(), 64, seed=3)
    for j in range(TOKENS):
        assert torch.linalg.matrix_rank(tokens[:, j].double(), rtol=1e-5) == DIMENSIONS
    one = torch.nn.functional.normalize(tokens.flatten(1), dim=1)
    assert (one @ one.T - torch.eye(64)).max() < 0.99, "no two alike"
    assert one.mean(0).norm() < 0.1, "on all sides of 0, as Sobol points are"


def test_a_seed_gives_its_points(lm: LanguageModel) -> None:
    embed = lm.model.get_input_embeddings()
    torch.manual_seed(1)
    one = soft_tokens(embed, 5, seed=7)
    torch.manual_seed(2)
    assert torch.equal(one, soft_tokens(embed, 5, seed=7))
    assert not torch.allclose(one, soft_tokens(embed, 5, seed=8))
    torch.testing.assert_close(one[:3], soft_tokens(embed, 3, seed=7), msg="whatever their number")


def test_answers_depend_on_their_own_row_alone(lm: LanguageModel) -> None:
    prompts = soft_prompts(lm, REQUESTS, seed=0)
    sampling, seeds = Sampling(max_new_tokens=12), [3, 4, 5]
    found = generate(lm, prompts, sampling, seeds)
    assert found == [generate(lm, [p], sampling, [s])[0] for p, s in zip(prompts, seeds, strict=True)]
    assert found == generate(lm, soft_prompts(lm, REQUESTS, seed=0), sampling, seeds, batch_size=2)
    assert found != generate(lm, soft_prompts(lm, REQUESTS, seed=1), sampling, seeds), "a point makes a difference"


def test_a_model_without_a_template_and_a_template_without_the_mark(lm: LanguageModel) -> None:
    lm.tokenizer.chat_template = None
    [prompt] = soft_prompts(lm, REQUESTS[:1], seed=0)
    embed = lm.model.get_input_embeddings()
    ids = lm.tokenizer("Output: Name it.\nWhat was it?\n", add_special_tokens=False)["input_ids"]
    torch.testing.assert_close(prompt[-len(ids) :], embed(torch.tensor(ids)))
    lm.tokenizer.chat_template = "{% for message in messages %}{{ message['role'] }}{% endfor %}"
    assert soft_prompts(lm, REQUESTS, seed=0) == []
