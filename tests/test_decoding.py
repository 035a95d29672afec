"""Decoding against transformers' own loop, over architectures that position and cache in different ways; the cache against theirs."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, LogitsProcessorList, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from reveal_release import decoding
from reveal_release.decoding import RoomyLayer, decode
from reveal_release.generation import gumbel

SIZE = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.3, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": [4, 5, 6],
}  # fmt: skip
WINDOW = {"sliding_window": 6}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {},  # learnt positions
    "bloom": {"n_layer": 2, "n_head": 4},  # none: linear biases
    "mistral": WINDOW,
    "gemma3_text": {**WINDOW, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "mamba": {"state_size": 4},  # no keys and values
    "lfm2": {"layer_types": ["conv", "full_attention"]},  # some
    "phi3": {  # the longest row decides which of two scalings all positions have
        "max_position_embeddings": 64, "original_max_position_embeddings": 16,
        "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
            "original_max_position_embeddings": 16,
        },
    },
    "openai-gpt": {"n_layer": 2, "n_head": 4},  # no cache
}  # fmt: skip
WHOLE = ("mamba", "lfm2", "phi3")
"""Whose batch does not shrink."""


def build(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **{**SIZE, **ARCHITECTURES[name]})).eval()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tokens_are_those_of_transformers_own_loop(name: str) -> None:
    """Rows of different lengths that end at different times; the batch shrinks as they do, where its cache can."""
    model = build(name)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(7, 60, (24, 9), generator=generator)
    mask = (torch.arange(9) >= torch.randint(0, 6, (24, 1), generator=generator)).long()
    mask = torch.ones_like(mask) if name in ("mamba", "openai-gpt") else mask  # these read padding
    given = {"input_ids": ids * mask + (1 - mask), "attention_mask": mask, "max_new_tokens": 30, "do_sample": False, "pad_token_id": 1}
    sizes: list[int] = []

    def noise(rows: torch.Tensor, position: int) -> torch.Tensor:
        return 3 * gumbel(rows[:, None], position, torch.arange(60))

    def noisy(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores + noise(torch.arange(24), ids.shape[1] - 9)

    def choose(scores: torch.Tensor, rows: torch.Tensor, position: int) -> torch.Tensor:
        assert position == len(sizes)
        sizes.append(len(rows))
        return (scores + noise(rows, position)).argmax(-1)

    with torch.no_grad():
        expected = model.generate(**given, logits_processor=LogitsProcessorList([noisy]))[:, 9:]
        found = model.generate(**given, custom_generate=decode, choose=choose)
    assert torch.equal(found, expected)
    ends = torch.isin(found, torch.tensor(SIZE["eos_token_id"]))
    lengths = torch.where(ends.any(1), ends.long().argmax(1) + 1, 30)
    assert len(set(lengths.tolist())) > 3, "they must end at different times"
    if name in WHOLE:
        assert set(sizes) == {24}
    else:
        assert sizes[0] == 24 and sorted(sizes, reverse=True) == sizes and sizes[-1] <= (lengths == lengths.max()).sum() / decoding.SPARSE


def test_prompts_that_are_the_same_are_read_once() -> None:
    """Told apart by their padding too: here the padding token is one that prompts hold."""
    model = build("llama")
    a, b = [1, 1, 9, 8], [1, 7, 9, 8]
    ids = torch.tensor([a, b, a, a, b, a])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]])
    read: list[int] = []
    handle = model.model.register_forward_pre_hook(lambda _, args, given: read.append(len(given["input_ids"])), with_kwargs=True)
    seeds = torch.arange(6)

    def written(rows: list[int]) -> list[list[int]]:
        def choose(scores: torch.Tensor, at: torch.Tensor, position: int) -> torch.Tensor:
            return (scores + gumbel(seeds[rows][at, None], position, torch.arange(60))).argmax(-1)

        given = {"attention_mask": mask[rows], "max_new_tokens": 12, "pad_token_id": 1}
        with torch.no_grad():
            return model.generate(ids[rows], **given, custom_generate=decode, choose=choose).tolist()

    together = written(list(range(6)))
    assert read[0] == 4 and read[1] >= 5
    handle.remove()
    for row in range(6):
        (alone,) = written([row])
        assert together[row][: len(alone)] == alone and set(together[row][len(alone) :]) <= {1}


def test_a_token_is_chosen_for_the_row_it_belongs_to() -> None:
    """Each row writes its own number and ends after as many tokens: what a row gets does not depend on which have left."""
    model = build("llama")
    count = 20

    def choose(scores: torch.Tensor, rows: torch.Tensor, position: int) -> torch.Tensor:
        return torch.where(rows >= position, rows + 10, 4)

    ids = torch.full((count, 3), 8)
    with torch.no_grad():
        found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, custom_generate=decode, choose=choose)
    for row, tokens in enumerate(found.tolist()):
        assert tokens == [row + 10] * (row + 1) + [4] + [1] * (count - row - 1)


@given(st.integers(1, 5), st.lists(st.one_of(st.integers(1, 40), st.lists(st.integers(0, 4), min_size=1, max_size=5)), max_size=12))
def test_the_cache_holds_what_transformers_own_does(rows: int, steps: list[int | list[int]]) -> None:
    """After any sequence of new tokens (a number) and of selected rows (a list)."""
    plain, roomy = DynamicLayer(), RoomyLayer()
    generator = torch.Generator().manual_seed(0)
    for step in [3, *steps]:
        if isinstance(step, int):
            new = torch.randn(2, rows, 2, step, 4, generator=generator)
            expected = plain.update(new[0], new[1])
            found = roomy.update(new[0].clone(), new[1].clone())
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        else:
            kept = torch.tensor([i % rows for i in step])
            rows = len(kept)
            plain.batch_select_indices(kept)
            roomy.batch_select_indices(kept)
        assert torch.equal(plain.keys, roomy.keys) and torch.equal(plain.values, roomy.values)
        assert plain.get_seq_length() == roomy.get_seq_length() and plain.get_mask_sizes(1) == roomy.get_mask_sizes(1)


def test_most_tokens_are_written_without_a_copy() -> None:
    layer, places = RoomyLayer(), set[int]()
    for _ in range(200):
        layer.update(torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4))
        places.add(layer.keys.data_ptr())
    assert len(places) <= 8
    layer.batch_select_indices(torch.tensor([0]))
    assert layer.rooms["keys"].shape[2] == 200, "no more is held than what was selected"


def test_a_cache_given_by_the_model_is_left_to_it() -> None:
    """What is no plain cache of keys and values, such as a static one, is used as it is, and the batch does not shrink."""
    model = build("llama")
    model.generation_config.cache_implementation = "static"
    ids, sizes = torch.full((8, 3), 8), []

    def choose(scores: torch.Tensor, rows: torch.Tensor, position: int) -> torch.Tensor:
        sizes.append(len(rows))
        return torch.where(rows >= position, rows + 10, 4)

    with torch.no_grad():
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, custom_generate=decode, choose=choose)
    assert set(sizes) == {8}


def test_a_processor_of_the_model_sees_the_whole_batch() -> None:
    """Such as guidance, which keeps a cache of its own, a row for each."""
    model = build("llama")
    ids = torch.arange(7, 31).reshape(8, 3)
    given = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 12, "guidance_scale": 1.5}

    def choose(scores: torch.Tensor, rows: torch.Tensor, position: int) -> torch.Tensor:
        return torch.where(rows >= position, scores[:, 7:].argmax(-1) + 7, 4)

    def ending(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        token = choose(scores, torch.arange(8), ids.shape[1] - 3)
        return torch.full_like(scores, -torch.inf).scatter_(-1, token[:, None], 0.0)

    with torch.no_grad():
        found = model.generate(ids, **given, custom_generate=decode, choose=choose)
        expected = model.generate(ids, **given, do_sample=False, logits_processor=LogitsProcessorList([ending]))
    assert torch.equal(found, expected[:, 3:]) and len({tuple(row) for row in found.tolist()}) == 8
