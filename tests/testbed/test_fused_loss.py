"""The fused loss and both its gradients against torch's own."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from reveal_release.testbed.fused_loss import CHUNK, fused_cross_entropy


def both(count, dim, vocabulary, masked, scale=1.0, seed=0):
    """(value, d hidden, d weight) of torch's loss and of the fused one, in float32; `upstream` 2.5 shows the chain rule."""
    generator = torch.Generator().manual_seed(seed)
    hidden = scale * torch.randn(count, dim, generator=generator)
    weight = torch.randn(vocabulary, dim, generator=generator)
    targets = torch.randint(vocabulary, (count,), generator=generator)
    targets[torch.rand(count, generator=generator) < masked] = -1
    results = []
    for function in (
        lambda h, w: cross_entropy(h @ w.T, targets, ignore_index=-1),
        lambda h, w: fused_cross_entropy(h, w, targets, torch.float32),
    ):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        value = function(h, w)
        (2.5 * value).backward()
        results.append((value.detach(), h.grad, w.grad))
    return results, targets


@pytest.mark.parametrize("count", [1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 37])
@pytest.mark.parametrize("masked", [0.0, 0.4])
def test_value_and_gradients_are_torchs(count, masked):
    (expected, got), targets = both(count, 24, 61, masked, seed=1 if count == 1 else 0)
    if (targets < 0).all():
        pytest.fail("nothing to compare")
    for a, b in zip(expected, got, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_large_logits_stay_finite():
    (expected, got), _ = both(300, 16, 40, 0.2, scale=80.0)
    for a, b in zip(expected, got, strict=True):
        assert b.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_ignored_rows_have_no_gradient():
    (_, (_, d_hidden, _)), targets = both(CHUNK + 50, 8, 30, 0.5)
    assert (d_hidden[targets < 0] == 0).all() and (d_hidden[targets >= 0] != 0).any(-1).all()


def test_any_negative_target_is_ignored():
    hidden, weight = torch.randn(6, 4), torch.randn(9, 4)
    a = fused_cross_entropy(hidden, weight, torch.tensor([1, -1, 2, -1, 3, -1]), torch.float32)
    b = fused_cross_entropy(hidden, weight, torch.tensor([1, -100, 2, -7, 3, -100]), torch.float32)
    assert torch.equal(a, b)


def test_nothing_to_predict_is_zero_not_nan():
    hidden, weight = torch.randn(5, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    value = fused_cross_entropy(hidden, weight, torch.full((5,), -1), torch.float32)
    value.backward()
    assert value == 0 and (hidden.grad == 0).all() and (weight.grad == 0).all()


def test_bfloat16_is_near():
    """bf16 keeps 8 bits: the default's products are within about a hundredth of the float32 result."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(400, 64, requires_grad=True), (0.1 * torch.randn(200, 64)).requires_grad_()
    targets = torch.randint(200, (400,))
    fused_cross_entropy(hidden, weight, targets).backward()
    low = hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    cross_entropy(hidden @ weight.T, targets).backward()
    for a, b in zip(low, (hidden.grad, weight.grad), strict=True):
        assert a.dtype == torch.float32 and (a - b).norm() < 0.02 * b.norm()
