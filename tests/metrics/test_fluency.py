"""Perplexity against a naive loop over texts and positions."""

import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from reveal_release.config import UserError
from reveal_release.metrics.fluency import Perplexity, perplexity, perplexity_ratio

TEXTS = ["A short one.", "", "Größe: 3 €", "x", "A long text that needs several windows of tokens to be scored. " * 2]


def byte_tokenizer(bos=True, padding_side="left"):
    """One token a byte, and BOS: no training needed."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    special = {"bos_token": "<|bos|>"} if bos else {}
    return PreTrainedTokenizerFast(tokenizer_object=core, padding_side=padding_side, **special)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    shape = LlamaConfig(vocab_size=260, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                        num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.4)  # fmt: skip
    return LlamaForCausalLM(shape).eval()


def naive(model, tokenizer, text, window):
    """(nll, tokens) by one call a token."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    total, count = 0.0, 0
    for i, target in enumerate(ids):
        if tokenizer.bos_token_id is not None:
            context = [tokenizer.bos_token_id, *ids[i - i % window : i]]
        elif i == 0:
            continue
        else:
            context = ids[(i - 1) - (i - 1) % window : i]
        assert len(context) <= window
        with torch.no_grad():
            logits = model(torch.tensor([context])).logits[0, -1].double()
        total -= float(logits.log_softmax(-1)[target])
        count += 1
    return total, count


def test_a_bos_that_opens_a_turn_is_none(model):
    """As in SmolLM2's tokenizer: after it the model reads a role, not a text."""
    tokenizer, without = byte_tokenizer(), byte_tokenizer(bos=False)
    plain = perplexity(model, tokenizer, TEXTS)
    template = "{{ messages[0]['content'] }}{% if add_generation_prompt %}<|bos|>assistant{% endif %}"
    tokenizer.chat_template = template
    assert (perplexity(model, tokenizer, TEXTS).nll == perplexity(model, without, TEXTS).nll).all()
    tokenizer.chat_template = template.replace("<|bos|>", ":")
    assert (perplexity(model, tokenizer, TEXTS).nll == plain.nll).all()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("window, batch_size", [(64, 16), (10, 3), (1, 50)])
def test_matches_one_call_a_token(model, side, bos, window, batch_size):
    tokenizer = byte_tokenizer(bos, side)
    found = perplexity(model, tokenizer, TEXTS, window, batch_size)
    expected = np.array([naive(model, tokenizer, text, window) for text in TEXTS])
    np.testing.assert_allclose(found.nll, expected[:, 0], rtol=1e-4)
    np.testing.assert_array_equal(found.tokens, expected[:, 1])
    np.testing.assert_array_equal(found.bytes, [len(text.encode()) for text in TEXTS])
    nll, tokens = expected.sum(axis=0)
    assert found.per_token.value == pytest.approx(math.exp(nll / tokens), rel=1e-4)
    assert found.per_byte.value == pytest.approx(math.exp(nll / found.bytes.sum()), rel=1e-4)
    assert found.per_token.n == np.count_nonzero(expected[:, 1])  # the empty text is no row, nor a first token alone
    assert found.per_token.low <= found.per_token.value <= found.per_token.high


def test_no_more_is_read_than_the_context(model):
    tokenizer = byte_tokenizer()
    found, expected = perplexity(model, tokenizer, TEXTS), perplexity(model, tokenizer, TEXTS, window=64)
    assert found.nll.tolist() == expected.nll.tolist() and found.tokens.tolist() == expected.tokens.tolist()


def test_learned_positions():
    """GPT-2 has absolute positions, which padding on the wrong side would shift."""
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=260, n_embd=16, n_layer=1, n_head=2, n_positions=64, initializer_range=0.4,
                                      bos_token_id=256, eos_token_id=256)).eval()  # fmt: skip
    tokenizer = byte_tokenizer()
    expected = [naive(gpt2, tokenizer, text, 64)[0] for text in TEXTS]
    np.testing.assert_allclose(perplexity(gpt2, tokenizer, TEXTS, 64).nll, expected, rtol=1e-4)


def test_bf16_logits_are_normalised_in_float32(model):
    half = LlamaForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    half = half.to(torch.bfloat16)
    exact, rough = perplexity(model, byte_tokenizer(), TEXTS), perplexity(half, byte_tokenizer(), TEXTS)
    assert rough.per_token.value == pytest.approx(exact.per_token.value, rel=0.02)


def test_a_uniform_model_has_the_vocabulary_as_its_perplexity(model):
    flat = LlamaForCausalLM(model.config)
    torch.nn.init.zeros_(flat.lm_head.weight)
    found = perplexity(flat, byte_tokenizer(), TEXTS)
    assert found.per_token.value == pytest.approx(260) and found.per_byte.value == pytest.approx(260)


def test_training_mode_is_put_back(model):
    model.train()
    try:
        perplexity(model, byte_tokenizer(), ["abc"])
        assert model.training
    finally:
        model.eval()
    perplexity(model, byte_tokenizer(), ["abc"])
    assert not model.training


@pytest.mark.parametrize("texts, options", [([], {}), (["", ""], {}), (["abc"], {"window": 0}), (["abc"], {"batch_size": 0})])
def test_nothing_to_score_is_a_user_error(model, texts, options):
    with pytest.raises(UserError, match="at least"):
        perplexity(model, byte_tokenizer(), texts, **options)


def test_ratio_is_paired():
    draw = np.random.default_rng(0)
    tokens = draw.integers(20, 200, 60).astype(float)
    nll = tokens * draw.normal(4, 1, 60)
    before, after = Perplexity(nll, tokens, 4 * tokens), Perplexity(nll + tokens * 0.02, tokens, 4 * tokens)
    found = perplexity_ratio(before, after)
    assert found.value == pytest.approx(after.per_token.value / before.per_token.value) == pytest.approx(math.exp(0.02))
    assert found.low == pytest.approx(found.high)  # every text is worse by the same rate: pairing leaves no spread
    assert before.per_token.high - before.per_token.low > 1
    noisy = perplexity_ratio(before, Perplexity(nll + tokens * draw.normal(0.02, 0.05, 60), tokens, 4 * tokens))
    assert 0.97 < noisy.low < noisy.value < noisy.high < 1.08
    assert perplexity_ratio(before, before).value == 1


def test_ratio_refuses_other_texts(model):
    tokenizer = byte_tokenizer()
    one, other = perplexity(model, tokenizer, ["abc", "de"]), perplexity(model, tokenizer, ["abc", "def"])
    with pytest.raises(UserError, match="same texts"):
        perplexity_ratio(one, other)
