"""Exact NeuralUCB over a finite pool of arms, in kernel form.

An arm is a feature vector x (here the hidden state of one candidate instruction; this file knows nothing
of language). A one-hidden-layer ReLU network m(x) predicts the reward of an arm. The next arm is the one with
the highest

    m(x) + nu * sigma(x),  sigma(x)^2 = ridge * g(x)^T V^-1 g(x),  V = ridge * I + sum_i n_i g(x_i) g(x_i)^T,

where g = dm/dtheta and the sum runs over the evaluated arms (n_i: how much evaluation arm i has had). This is NeuralUCB (Zhou, Li, Gu
2020, arXiv 1911.04462), but for two things: all gradients are at the present theta, as the kernel form needs (the paper keeps each as
it was when its arm was evaluated), and training goes on from the last theta (there from theta_0). "thompson" samples from
N(m, nu^2 sigma^2) instead (Zhang et al. 2021, arXiv 2010.00827). V is P x P for P parameters, so it is never built: with T evaluated arms,

    sigma(x)^2 = g.g - k^T (ridge * diag(1/n) + K)^-1 k,  K_ij = g(x_i).g(x_j),  k_i = g(x_i).g(x),

and for one hidden layer an inner product of two gradients needs no gradient either: with pre = W1 x + b1, s = w2 * 1[pre > 0] and
h = relu(pre), the gradients are dm/dW1 = s x^T, dm/db1 = s, dm/dw2 = h, dm/db2 = 1, so g.g' = (s.s') (x.x' + 1) + h.h' + 1.

Usage::

    bandit = NeuralBandit(BanditConfig(seed=0))
    bandit.add_arms(features)                   # (N, d); again whenever the pool grows
    bandit.observe(first_arms, their_rewards)   # at least one arm: the first pick comes after training
    for _ in range(budget):
        [arm] = bandit.select()
        bandit.observe(arm, reward_of(arm))

What it does not promise: regret bounds (they need networks far wider than anybody runs), calibrated
intervals, or merging of arms that are the same text. Memory: two float32 copies of the features (as given and
standardised), and about 34 bytes per arm and evaluated arm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..config import UserError
from .reward_net import RewardNet, SpanNet, fit_gradient_


@dataclass
class BanditConfig:
    """Settings of `NeuralBandit`.

    Attributes:
        hidden: width m of the hidden layer.
        ridge: regulariser of V; the noise of one evaluation, on the scale of the kernel (about 1.5 * hidden).
        exploration: nu, the number of widths added to the mean. "auto": the scale at which the widths
            match the leave-one-out residuals of the evaluated arms (see `NeuralBandit.nu`).
        learning_rate: step size of full-batch Adam.
        epochs: most steps per retraining.
        patience: retraining stops after this many steps without a 0.1 % better training loss.
        weight_decay: weight of ||theta - theta_0||^2 in the loss, theta_0 being the initial parameters.
        seed: seeds the initial parameters and the Thompson samples.
        policy: "ucb" or "thompson".
    """

    hidden: int = 64
    ridge: float = 1.0
    exploration: float | Literal["auto"] = "auto"
    learning_rate: float = 0.01
    epochs: int = 100
    patience: int = 20
    weight_decay: float = 1e-3
    seed: int = 0
    policy: Literal["ucb", "thompson"] = "ucb"

    def __post_init__(self) -> None:
        if self.policy not in ("ucb", "thompson"):
            raise UserError(f"bandit policy {self.policy!r} is unknown; use 'ucb' or 'thompson'")
        number = isinstance(self.exploration, int | float) and self.exploration >= 0
        if not number and self.exploration != "auto":
            raise UserError(f"bandit exploration must be 'auto' or a number >= 0, not {self.exploration!r}")
        for name in ("hidden", "epochs", "patience", "ridge", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UserError(f"bandit {name} must be positive, not {getattr(self, name)}")
        if not self.weight_decay >= 0:
            raise UserError(f"bandit weight_decay must be at least 0, not {self.weight_decay}")


class NeuralBandit:
    """NeuralUCB or NeuralTS over a finite, growing pool of arms. See the module's docstring."""

    def __init__(self, config: BanditConfig | None = None):
        self.config = config or BanditConfig()
        self._raw: Tensor | None = None  # (N, d) features as given
        self._x = torch.empty(0, 0)  # (N, d) standardised features
        self._columns: dict[int, Tensor] = {}  # arm -> its inner products with the pool, (N,)
        self._seen: dict[int, tuple[float, float]] = {}  # arm -> (mean reward, total count)
        self._net: SpanNet | None = None
        self._stale = True  # the network has not been trained on the present pool and rewards
        self._center, self._scale = 0.0, 1.0  # of the rewards

    def __len__(self) -> int:
        return len(self._x)

    @property
    def evaluated(self) -> dict[int, float]:
        """Mean reward of every evaluated arm, in the order of first evaluation."""
        return {arm: mean for arm, (mean, _) in self._seen.items()}

    def add_arms(self, features: Tensor) -> range:
        """Puts arms in the pool.

        Every call standardises all features anew, with the statistics of the whole pool.

        Args:
            features: (n, d), any floating dtype; the device of the first call is the bandit's device.

        Returns:
            The ids of the new arms.

        Raises:
            ValueError: not a finite matrix, or not as wide as the pool.
        """
        if features.ndim != 2 or not torch.isfinite(features).all():
            raise ValueError(f"features must be a finite (n, d) matrix; got shape {tuple(features.shape)}")
        if self._raw is not None and features.shape[1] != self._raw.shape[1]:
            raise ValueError(f"the pool has {self._raw.shape[1]} features, the new arms {features.shape[1]}")
        first, features = len(self), features.detach().float()
        self._raw = torch.cat([features] if self._raw is None else [self._raw, features.to(self._raw.device)])
        std, mean = torch.std_mean(self._raw, dim=0, correction=0)
        # A constant feature says nothing, and its std is rounding error.
        std = torch.where(std > 1e-6 * (1 + mean.abs()), std, torch.inf)
        # |x|^2 is about `hidden`, as |h|^2 is: both weigh the same in the kernel whatever d is, and ridge and
        # learning_rate mean the same for every model.
        self._x = (self._raw - mean) / (std * math.sqrt(self._raw.shape[1] / self.config.hidden))
        self._norms = self._x.square().sum(1).double()
        self._columns = {}
        self._stale = True
        return range(first, len(self))

    def observe(
        self, arm: int | Sequence[int], reward: float | Sequence[float], count: float | Sequence[float] = 1.0
    ) -> None:
        """Records evaluations; several of one arm are averaged, weighted by their counts.

        Args:
            arm: id, or ids, of evaluated arms. Initial points are reported here like any other.
            reward: one per arm.
            count: how much evaluation is behind each reward, 1 being the usual amount (a finalist scored on
                four times as many samples has 4). The noise of an arm is ridge / its total count.

        Raises:
            ValueError: unknown arm, lengths that differ, reward not finite, or count not positive.
        """
        arms = [arm] if isinstance(arm, int) else [int(a) for a in arm]
        rewards = [float(reward)] if isinstance(reward, int | float) else [float(r) for r in reward]
        counts = [float(count)] * len(arms) if isinstance(count, int | float) else [float(c) for c in count]
        if not len(arms) == len(rewards) == len(counts):
            raise ValueError(f"{len(arms)} arms, {len(rewards)} rewards and {len(counts)} counts")
        for a, r, c in zip(arms, rewards, counts, strict=True):  # all checked before anything is recorded
            if not 0 <= a < len(self):
                raise ValueError(f"arm {a} is not in the pool of {len(self)}")
            if not (math.isfinite(r) and math.isfinite(c) and c > 0):
                raise ValueError(f"arm {a}: reward {r} must be finite and count {c} positive")
        for a, r, c in zip(arms, rewards, counts, strict=True):
            mean, total = self._seen.get(a, (0.0, 0.0))
            self._seen[a] = ((mean * total + r * c) / (total + c), total + c)
            self._stale = True

    def predict(self) -> tuple[Tensor, Tensor]:
        """Predicted reward and width sigma of every arm, (N,) each, float64, both in units of the reward.

        Raises:
            ValueError: nothing was observed yet.
        """
        self._fit()
        variance, _ = self._posterior(spare=0)
        return self._mean(), variance.clamp_min(0).sqrt() * self._scale

    @property
    def nu(self) -> float:
        """The exploration factor in force.

        For "auto": kernel ridge regression of the standardised rewards y has leave-one-out residuals
        e_i = [A y]_i / A_ii with variances 1 / A_ii, where A = (ridge * diag(1/n) + K)^-1 (Rasmussen and
        Williams 2006, eq. 5.12). nu, the root mean square of e_i / sd_i, makes widths as large as residuals.
        """
        if self.config.exploration != "auto":
            return float(self.config.exploration)
        self._fit()
        inverse = torch.cholesky_inverse(self._cholesky())
        nu = float(((inverse @ self._targets()).square() / inverse.diagonal()).mean().sqrt())
        return nu if nu > 1e-6 else 1.0  # all rewards equal: residuals say nothing, keep exploring

    def select(self, k: int = 1) -> list[int]:
        """The k arms to evaluate next, best first, from all arms that were never observed.

        For k > 1 each pick enters V before the next is made (the width needs no reward): GP-BUCB's
        hallucinated observation (Desautels, Krause, Burdick 2014); it keeps a batch from being k near-copies.

        Returns:
            k distinct ids; fewer when fewer are left.

        Raises:
            ValueError: nothing was observed yet.
        """
        self._fit()
        unseen = torch.ones(len(self), dtype=torch.bool, device=self._x.device)
        unseen[self._arms()] = False
        k = min(k, int(unseen.sum()))
        mean, nu = self._mean(), self.nu * self._scale
        variance, rows = self._posterior(spare=k)
        # Seeded by how much was seen: the same history gives the same picks, whatever was called in between.
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + len(self._seen))
        picks: list[int] = []
        for _ in range(k):
            width = nu * variance.clamp_min(0).sqrt()
            if self.config.policy == "thompson":
                width = width * torch.randn(len(self), generator=generator).to(width)
            picks.append(int((mean + width).masked_fill(~unseen, -torch.inf).argmax()))
            pick, filled = picks[-1], len(self._seen) + len(picks) - 1
            unseen[pick] = False
            if len(picks) < k:  # one more row of the Cholesky factor's triangular solve
                covariance = self._kernel([pick])[0] - rows[:filled, pick] @ rows[:filled]
                rows[filled] = covariance / (variance[pick].clamp_min(0) + self.config.ridge).sqrt()
                variance = variance - rows[filled].square()
        return picks

    # -- the posterior ---------------------------------------------------------------------------------------

    def _arms(self) -> list[int]:
        return list(self._seen)

    def _targets(self) -> Tensor:
        """Standardised mean rewards of the evaluated arms, (T,) float64."""
        rewards = torch.tensor([mean for mean, _ in self._seen.values()], dtype=torch.float64)
        return ((rewards - self._center) / self._scale).to(self._x.device)

    def _counts(self) -> Tensor:
        counts = [count for _, count in self._seen.values()]
        return torch.tensor(counts, dtype=torch.float64, device=self._x.device)

    def _gram(self, arms: list[int]) -> Tensor:
        """x.x' of some arms with all arms, (len(arms), N) float32; computed once per arm and pool."""
        missing = [arm for arm in arms if arm not in self._columns]
        if missing:
            self._columns.update(zip(missing, self._x[missing] @ self._x.T, strict=True))
        return torch.stack([self._columns[arm] for arm in arms])

    def _kernel(self, arms: list[int]) -> Tensor:
        """g(x_i).g(x) of some arms with all arms, (len(arms), N) float64."""
        s, h = self._s, self._h
        return (s[arms] @ s.T).mul_(self._gram(arms).double().add_(1)).add_(h[arms] @ h.T).add_(1)

    def _cholesky(self) -> Tensor:
        """Lower factor of ridge * diag(1/n) + K, (T, T) float64."""
        matrix = self._cross[:, self._arms()] + (self.config.ridge / self._counts()).diag()
        return torch.linalg.cholesky((matrix + matrix.T) / 2)

    def _posterior(self, spare: int) -> tuple[Tensor, Tensor]:
        """sigma^2 of all arms (N,), and L^-1 k of all arms (T + spare, N), `spare` rows empty; float64."""
        prior = self._s.square().sum(1) * (self._norms + 1) + self._h.square().sum(1) + 1
        rows = torch.zeros(len(self._seen) + spare, len(self), dtype=torch.float64, device=self._x.device)
        solved = torch.linalg.solve_triangular(self._cholesky(), self._cross, upper=False)
        rows[: len(solved)] = solved
        return prior - solved.square().sum(0), rows

    def _mean(self) -> Tensor:
        assert self._net is not None
        w2, b2 = self._net.small.w2.detach().double(), self._net.small.b2.detach().double()
        return self._center + self._scale * (self._h @ w2 + b2)

    # -- training --------------------------------------------------------------------------------------------

    def _fit(self) -> None:
        """If arms or rewards are new: trains, then computes once what the scores of all arms need."""
        if not self._seen:
            raise ValueError("observe at least one arm first: the bandit trains before its first pick")
        if not self._stale:
            return
        self._center, self._scale = 0.0, 1.0
        rewards, weights = self._targets(), self._counts() / self._counts().sum()
        self._center = float(weights @ rewards)
        std = float((weights @ (rewards - self._center).square()).sqrt())
        self._scale = std if std > 1e-8 else 1.0
        if self._net is None:
            generator = torch.Generator().manual_seed(self.config.seed)
            norm = math.sqrt(self.config.hidden)
            net = RewardNet.initial(self.config.hidden, self._x.shape[1], norm, generator).to(self._x.device)
            self._net = SpanNet(net, {name: p.detach().clone() for name, p in net.named_parameters()}, self._x)
        elif self._net.x is not self._x:  # the pool has grown
            self._net = SpanNet(self._net.whole(), self._net.initial, self._x)
        self._net.extend(self._arms())
        self._train(self._net, self._targets().float(), weights.float())
        self._s, self._h = self._net.units()
        self._cross = self._kernel(self._arms())  # (T, N)
        self._stale = False

    def _train(self, net: SpanNet, targets: Tensor, weights: Tensor) -> None:
        """Minimises sum_i weight_i (m(x_i) - y_i)^2 + weight_decay ||theta - theta_0||^2, warm-started."""
        inputs = net.coordinates[self._arms()]  # (T, r)
        optimizer = torch.optim.Adam(net.small.parameters(), lr=self.config.learning_rate, fused=True)
        best, waited = math.inf, 0
        for _ in range(self.config.epochs):
            value = fit_gradient_(net.small, inputs, targets, weights, net.start, self.config.weight_decay)
            optimizer.step()
            best, waited = (value, 0) if value < 0.999 * best else (best, waited + 1)
            if waited >= self.config.patience:
                break
