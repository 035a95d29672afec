"""The network that predicts an arm's reward, and its training by hand.

A bandit over N arms retrains after every few evaluations and then needs the activations of the whole pool. `SpanNet` makes that cheap:
training moves the first layer only within the span of the T evaluated arms, so beside two products of a new arm with the pool nothing
touches the N x d features again.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RewardNet(nn.Module):
    """m(x) = w2 . relu(W1 x + b1) + b2 for x of shape (..., d); returns shape (...)."""

    def __init__(self, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor):
        super().__init__()
        self.w1, self.b1 = nn.Parameter(w1), nn.Parameter(b1)  # (m, d), (m,)
        self.w2, self.b2 = nn.Parameter(w2), nn.Parameter(b2)  # (m,), ()

    @classmethod
    def initial(cls, hidden: int, features: int, norm: float, generator: torch.Generator) -> RewardNet:
        """Fan-in scaling: for inputs of norm `norm`, hidden units and output start at scale 1."""
        w1 = torch.randn(hidden, features, generator=generator) * (math.sqrt(2) / norm)
        w2 = torch.randn(hidden, generator=generator) / math.sqrt(hidden)
        return cls(w1, torch.zeros(hidden), w2, torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.w1.T + self.b1) @ self.w2 + self.b2


@torch.no_grad()
def fit_gradient_(net: RewardNet, x: Tensor, y: Tensor, weights: Tensor, start: dict[str, Tensor], decay: float) -> float:
    """Sets the gradients of sum_i weights_i (m(x_i) - y_i)^2 + decay ||theta - start||^2, and returns its value.

    By hand: for a network of this size autograd costs several times what the arithmetic does.

    Args:
        net: the network.
        x: inputs, (n, d).
        y: targets, (n,).
        weights: of the inputs, (n,).
        start: where each parameter is drawn to, by its name.
        decay: weight of that.
    """
    pre = torch.addmm(net.b1, x, net.w1.T)
    h = torch.relu(pre)
    error = h @ net.w2 + net.b2 - y
    slope = 2 * weights * error
    below = (slope[:, None] * net.w2).mul_(pre > 0)  # dloss/dpre, (n, m)
    gradients = {"w1": below.T @ x, "b1": below.sum(0), "w2": slope @ h, "b2": slope.sum()}
    loss = weights @ error.square()
    for name, p in net.named_parameters():
        moved = p - start[name]
        p.grad = gradients[name].add_(moved, alpha=2 * decay)
        loss += decay * moved.square().sum()
    return loss.item()


class SpanNet:
    """A network on a fixed pool x (N, d) whose W1 differs from what it was only within the span of some of the pool's arms.

    With Q (d, r) an orthonormal basis of that span, W1 = A + (R - A Q) Q^T: A (m, d) is what W1 was, R (m, r) is trained in its place.
    The gradient of W1 is a sum of s_i x_i^T over the arms trained on, and a decay towards theta_0 that starts there too only adds to
    R - theta_0 Q: so gradient descent is that of the full matrix (Adam, which scales each entry, takes other steps down the same loss). For
    d = 4,096 and 100 arms a step has 1/40 of the arithmetic.
    """

    def __init__(self, net: RewardNet, initial: dict[str, Tensor], x: Tensor):
        """`initial`: theta_0 by the parameters' names."""
        self.x, self.initial, self._net = x, initial, net
        self._pool = x @ net.w1.detach().T  # (N, m)
        self.basis = x.new_zeros(x.shape[1], 0)
        self.coordinates = x.new_zeros(len(x), 0)  # x Q
        self.start = initial | {"w1": x.new_zeros(self._pool.shape[1], 0)}  # theta_0, with theta_0 Q for W1
        self._origin = self.start["w1"]  # A Q
        # b1, w2 and b2 share memory with the network's own.
        self.small = RewardNet(self._origin.clone(), net.b1.detach(), net.w2.detach(), net.b2.detach())
        self._arms = 0

    def extend(self, arms: list[int]) -> None:
        """To the span of these arms, which begin with those of the last call: Gram-Schmidt, twice for accuracy."""
        for i in range(self._arms, len(arms)):
            arm = arms[i]
            rest = self.x[arm]
            for _ in range(2):
                rest = rest - self.basis @ (self.basis.T @ rest)
            if rest.norm() > 1e-5 * self.x[arm].norm():
                new = (rest / rest.norm())[:, None]
                moved = self.small.w1.detach() - self._origin
                self.basis = torch.cat([self.basis, new], 1)
                column = self.x @ new
                column[arms[:i]] = 0  # to rounding; Adam would make whole steps of the rounding errors
                self.coordinates = torch.cat([self.coordinates, column], 1)
                self.start["w1"] = torch.cat([self.start["w1"], self.initial["w1"] @ new], 1)
                self._origin = torch.cat([self._origin, self._net.w1.detach() @ new], 1)
                self.small.w1 = nn.Parameter(self._origin.clone())
                self.small.w1.data[:, :-1] += moved
        self._arms = len(arms)

    def units(self) -> tuple[Tensor, Tensor]:
        """s = w2 * 1[pre > 0] and h = relu(pre) of every arm, with pre = W1 x + b1; each (N, m) in float64."""
        moved = self.small.w1.detach() - self._origin
        pre = torch.addmm(self._pool, self.coordinates, moved.T) + self.small.b1.detach()
        return ((pre > 0) * self.small.w2.detach()).double(), torch.relu(pre).double()

    def whole(self) -> RewardNet:
        """The network with its full W1."""
        moved = self.small.w1.detach() - self._origin
        net = self._net
        return RewardNet(net.w1.detach() + moved @ self.basis.T, net.b1.detach(), net.w2.detach(), net.b2.detach())
