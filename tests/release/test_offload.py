"""Gradients with what is kept for them in main memory; there is one memory here, so copies stand for it."""

import pytest
import torch

from reveal_release.models import LanguageModel
from reveal_release.release.offload import offloaded


@pytest.mark.parametrize("name", ["lm", "gpt2"])
def test_the_gradients_are_the_same_bit_for_bit(name: str, request: pytest.FixtureRequest) -> None:
    lm: LanguageModel = request.getfixturevalue(name)
    ids = torch.arange(5, 45).reshape(2, 20)

    def gradients() -> list[torch.Tensor]:
        loss = lm.model(ids, use_cache=False).logits.square().mean()
        found = torch.autograd.grad(loss, list(lm.model.parameters()))
        return list(found)

    for parameter in lm.model.parameters():
        parameter.requires_grad_(True)
    try:
        plain = gradients()
        with offloaded(lm.model):
            moved = gradients()
    finally:
        for parameter in lm.model.parameters():
            parameter.requires_grad_(False)
    assert all(torch.equal(a, b) for a, b in zip(plain, moved, strict=True)) and any(one.any() for one in plain)


def test_all_but_weights_is_moved() -> None:
    layer = torch.nn.Linear(8, 8)
    x = torch.randn(4, 8, requires_grad=True)
    with offloaded(layer):
        y = layer(x).tanh()
    saved = y.grad_fn._saved_result  # type: ignore[union-attr]
    weight = y.grad_fn.next_functions[0][0]._saved_mat2  # type: ignore[union-attr]
    assert torch.equal(saved, y) and saved.data_ptr() != y.data_ptr(), "a copy came back"
    assert weight.untyped_storage().data_ptr() == layer.weight.untyped_storage().data_ptr()
