"""Gradients with what is kept for them in main memory; there is one memory here, so copies stand for it."""

import pytest
import torch

from reveal_release.config import ReleaseConfig
from reveal_release.models import LanguageModel
from reveal_release.release.offload import offloaded
from reveal_release.release.pem import fresh_lora
from reveal_release.release.rows import answer_log_probs

ROWS = [(list(range(5, 25)), 3), (list(range(30, 37)), 2)]
"""Of unlike length, so that one is padded."""


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("name", ["lm", "gpt2"])
def test_the_gradients_are_the_same_bit_for_bit(name: str, low: bool, request: pytest.FixtureRequest) -> None:
    lm: LanguageModel = request.getfixturevalue(name)
    with fresh_lora(lm, ReleaseConfig(rank=4, layers=1.0), seed=0) as model:
        factors = [p for p in model.parameters() if p.requires_grad]
        for factor in factors:
            torch.nn.init.normal_(factor, std=0.1)

        def gradients() -> tuple[torch.Tensor, ...]:
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                log_probs, targets = answer_log_probs(model, ROWS, 1)
                loss = torch.nn.functional.nll_loss(log_probs, targets)
            return torch.autograd.grad(loss, factors)

        plain = gradients()
        with offloaded(model):
            moved = gradients()
    assert all(torch.equal(a, b) for a, b in zip(plain, moved, strict=True)) and all(one.any() for one in plain)


def test_all_but_weights_is_moved() -> None:
    layer = torch.nn.Linear(8, 8)
    x = torch.randn(4, 8, requires_grad=True)
    with offloaded(layer):
        y = layer(x).tanh()
    saved = y.grad_fn._saved_result  # type: ignore[union-attr]
    weight = y.grad_fn.next_functions[0][0]._saved_mat2  # type: ignore[union-attr]
    assert torch.equal(saved, y) and saved.data_ptr() != y.data_ptr(), "a copy came back"
    assert weight.untyped_storage().data_ptr() == layer.weight.untyped_storage().data_ptr()


def test_strides_that_a_copy_would_lose_are_kept() -> None:
    """As of an attention mask: rows padded to eight, of which five are seen, and expanded over heads."""
    mask = torch.randn(1, 1, 5, 8, requires_grad=True)[..., :5].expand(2, 4, 5, 5)
    with offloaded(torch.nn.Identity()):
        y = mask * torch.randn(2, 4, 5, 5, requires_grad=True)
    assert y.grad_fn._saved_self.stride() == mask.stride()  # type: ignore[union-attr]
