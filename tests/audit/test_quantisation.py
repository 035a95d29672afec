"""Rounding against loops over single weights, and a model that is afterwards what it was."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from reveal_release.audit.quantisation import coverage, quantised, rounded
from reveal_release.models import LanguageModel
from reveal_release.release.patch import LowRank, Patch
from reveal_release.release.pem import linear_layers


def by_loops(weight: Tensor, bits: int, group: int) -> list[list[float]]:
    rows = []
    for row in weight.tolist():
        new: list[float] = []
        for start in range(0, len(row), group):
            part = row[start : start + group]
            step = max(map(abs, part)) / (2 ** (bits - 1) - 1)
            new += [step * round(w / step) if step else 0.0 for w in part]
        rows.append(new)
    return rows


def test_rounding_by_hand() -> None:
    weight = torch.tensor([[0.7, -0.34, 0.16, 0.04], [0.0, 0.0, 0.0, 0.0]])
    assert torch.allclose(rounded(weight, 4), torch.tensor([[0.7, -0.3, 0.2, 0.0], [0.0] * 4])), "steps of 0.1"
    assert torch.allclose(rounded(weight, 4, 2)[0, 2:], torch.tensor([0.16, 2 * 0.16 / 7])), "a step of 0.16 / 7 for the second group"
    assert torch.allclose(rounded(weight, 2), torch.tensor([[0.7, 0.0, 0.0, 0.0], [0.0] * 4])), "steps of 0.7"


@settings(max_examples=50)
@given(st.integers(0, 1000), st.sampled_from([2, 3, 4, 8]), st.sampled_from([1, 3, 4, 16, 50]))
def test_rounding_against_loops(seed: int, bits: int, group: int) -> None:
    weight = torch.randn(3, 10, generator=torch.Generator().manual_seed(seed))
    new = rounded(weight, bits, group)
    assert torch.allclose(new, torch.tensor(by_loops(weight, bits, group)), atol=1e-5)
    assert torch.allclose(rounded(new, bits, group), new, atol=1e-6), "what is on the grid stays"
    assert all(len(set(row)) <= 2**bits - 1 for row in rounded(weight, bits).tolist())
    assert (rounded(weight, bits) - weight).abs().max() <= weight.abs().max() / (2 ** (bits - 1) - 1) / 2 + 1e-6


@pytest.mark.parametrize("family", ["lm", "gpt2"])
def test_the_patch_is_merged_and_rounded_with_the_rest(family: str, request: pytest.FixtureRequest) -> None:
    lm: LanguageModel = request.getfixturevalue(family)
    before = {name: p.clone() for name, p in lm.model.named_parameters()}
    name = linear_layers(lm.model, 1.0)[-1]
    module = lm.model.get_submodule(name)
    out, size = module.weight.shape if family == "lm" else reversed(module.weight.shape)
    patch = Patch({name: LowRank(torch.randn(2, size), torch.randn(out, 2))})
    dense = before[f"{name}.weight"] + (patch.delta(name) if family == "lm" else patch.delta(name).T)
    with quantised(lm, patch, 4, 16):
        weight = module.weight if family == "lm" else module.weight.T  # GPT-2's is (in, out)
        wanted = torch.tensor(by_loops(dense if family == "lm" else dense.T, 4, 16))
        assert torch.allclose(weight, wanted, atol=1e-5)
        changed = {n.removesuffix(".weight") for n, p in lm.model.named_parameters() if not torch.equal(p, before[n])}
        assert changed == set(linear_layers(lm.model, 1.0)), "and no embedding, norm or output layer"
    assert all(torch.equal(p, before[n]) for n, p in lm.model.named_parameters())


def test_a_model_is_itself_again_after_a_failure(lm: LanguageModel) -> None:
    before = [p.clone() for p in lm.model.parameters()]
    with pytest.raises(RuntimeError), quantised(lm, Patch(), 4):
        raise RuntimeError
    assert all(torch.equal(a, b) for a, b in zip(before, lm.model.parameters(), strict=True))


class InMainMemory(TorchDispatchMode):
    """Notes the sizes of the tensors of which a copy in main memory is asked for, wherever they are."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("device") == torch.device("cpu"):
            self.sizes.append(args[0].numel())
        return func(*args, **(kwargs or {}))


def test_what_is_kept_of_a_model_takes_no_memory_of_its_gpu(lm: LanguageModel) -> None:
    with InMainMemory() as noted, quantised(lm, Patch(), 4):
        pass
    assert sorted(noted.sizes) == sorted(lm.model.get_submodule(name).weight.numel() for name in linear_layers(lm.model, 1.0))


def test_how_much_of_the_blocks_is_rounded(lm: LanguageModel, gpt2: LanguageModel) -> None:
    """All linear maps of a dense model; of a mixture of experts the attention alone."""
    assert coverage(lm.model) == coverage(gpt2.model) == 1
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3_moe", vocab_size=400, **sizes, **experts))
    attention = 2 * 32 * 32 + 2 * 32 * 16
    assert coverage(model) == attention / (attention + 4 * 3 * 32 * 16 + 4 * 32)
