"""The reward network against autograd: the loss's gradient, and training of the full matrix."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.reveal.reward_net import RewardNet, SpanNet, fit_gradient_

from .conftest import features


def small_net(d: int, hidden: int, seed: int = 0) -> RewardNet:
    return RewardNet.initial(hidden, d, math.sqrt(d), torch.Generator().manual_seed(seed))


def units(net: RewardNet, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    pre = x @ net.w1.detach().T + net.b1.detach()
    return ((pre > 0) * net.w2.detach()).double(), torch.relu(pre).double()


@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 16), st.integers(0, 99), st.sampled_from([0.0, 1e-3, 2.0]))
def test_the_gradient_by_hand_is_autograds(n, d, hidden, seed, decay):
    generator = torch.Generator().manual_seed(seed)
    net = small_net(d, hidden, seed).double()
    start = {name: p.detach() + torch.randn(p.shape, generator=generator) for name, p in net.named_parameters()}
    x, y = torch.randn(n, d, generator=generator).double(), torch.randn(n, generator=generator).double()
    weights = torch.rand(n, generator=generator).double()
    loss = weights @ (net(x) - y).square() + decay * sum((p - start[name]).square().sum() for name, p in net.named_parameters())
    wanted = torch.autograd.grad(loss, list(net.parameters()))
    assert fit_gradient_(net, x, y, weights, start, decay) == pytest.approx(loss.item())
    for p, gradient in zip(net.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, gradient)


def test_the_span_grows_without_changing_the_network():
    """Bases of arms added one by one, of which some are dependent; before anything is trained, all is as it was."""
    x = features(40, 12)
    x[7], x[9] = 2 * x[3], x[3] - x[5]
    net = small_net(12, 8)
    span = SpanNet(net, {name: p.detach().clone() for name, p in net.named_parameters()}, x)
    for count in (1, 4, 4, 10):
        arms = [3, 5, 20, 7, 9, 30, 2, 11, 12, 0][:count]
        span.extend(arms)
        rank = torch.linalg.matrix_rank(x[arms])
        assert span.basis.shape == (12, rank) and span.coordinates.shape == (40, rank)
        torch.testing.assert_close(span.basis.T @ span.basis, torch.eye(rank), rtol=0, atol=1e-5)
        torch.testing.assert_close(span.coordinates[arms] @ span.basis.T, x[arms], rtol=1e-4, atol=1e-4)
        assert torch.equal(span.coordinates[arms[:2]], span.coordinates[arms[:2]].tril()), "exactly 0: Adam steps on rounding errors"
        for found, expected in zip(span.units(), units(net, x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        span.small.w1.data += 0.1  # trained
        net = span.whole()
        torch.testing.assert_close(net(x[arms]), span.small(span.coordinates[arms]), rtol=1e-4, atol=1e-4)


def test_a_basis_of_near_duplicates_is_orthonormal() -> None:
    x = features(6, 50)
    x[1:] = x[0] + 3e-4 * features(5, 50, seed=1)
    span = SpanNet(net := small_net(50, 4), dict(net.named_parameters()), x)
    span.extend(list(range(6)))
    torch.testing.assert_close(span.basis.T @ span.basis, torch.eye(6), rtol=0, atol=1e-5)


def test_steps_in_the_span_are_steps_of_the_full_matrix():
    """Plain gradient descent, which no basis changes, against autograd on all of W1, with weights and decay; the span grows midway."""
    x, y = features(30, 12), torch.randn(30, generator=torch.Generator().manual_seed(1))
    net = small_net(12, 8)
    initial = {name: p.detach().clone() for name, p in net.named_parameters()}
    full = RewardNet(*(p.detach().clone() for p in net.parameters()))
    span, rate = SpanNet(net, initial, x), 1e-3
    for arms in ([4, 8], [4, 8, 15, 16, 23]):
        weights = torch.arange(1.0, len(arms) + 1)
        span.extend(arms)
        for _ in range(5):
            fit_gradient_(span.small, span.coordinates[arms], y[arms], weights, span.start, 0.1)
            decay = sum((p - initial[name]).square().sum() for name, p in full.named_parameters())
            (weights @ (full(x[arms]) - y[arms]).square() + 0.1 * decay).backward()
            with torch.no_grad():
                for one in (span.small, full):
                    for p in one.parameters():
                        p -= rate * p.grad
                        p.grad = None
        for found, expected in zip(span.whole().parameters(), full.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        for found, expected in zip(span.units(), units(full, x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (full.w1 - initial["w1"]).norm() > 0.01
