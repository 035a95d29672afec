"""NeuralUCB: the exact kernel form of this package against the diagonal, recomputing form, and random search.

    python benchmarks/bandit.py            # about 15 minutes on one thread
    python benchmarks/bandit.py --quick    # under a minute: fewer arms, features, seeds and evaluations

What a round costs (one new observation, retraining, one pick among all arms), and what 165 evaluations of 10,000
arms find on two synthetic reward landscapes, of one peak and of twelve. `DiagonalBandit` is written here from a
description of the form that INSTINCT publishes, not from its code; its learning rate, ridge and nu are
therefore not INSTINCT's. Both bandits have the same network width and the same limit of training steps. A
Gaussian process shows how hard the landscapes are.
Absolute times move with the load of the machine; compare the ratios.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import resource
import time
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from reveal_release.reveal.bandit import BanditConfig, NeuralBandit

HIDDEN = 100  # network width, both bandits
EPOCHS = 100  # most training steps per round, both bandits
INITIAL = 40  # random evaluations before the first pick; they count towards the budget
NOISE = 0.05  # standard deviation of the noise on an observed reward


class DiagonalBandit:
    """NeuralUCB with the diagonal of V only, as described: per-candidate gradients by autograd in a loop,
    recomputed every round and kept; N(0, 1) weights; raw rewards; `look` random arms per round; initial
    points train the network but never enter V; the first pick comes before any training."""

    def __init__(self, features: Tensor, seed: int, look: int, ridge: float = 0.1, nu: float = 0.1):
        self.x, self.look, self.ridge, self.nu = features, look, ridge, nu
        self.generator = torch.Generator().manual_seed(seed)
        shapes = [(HIDDEN, features.shape[1]), (HIDDEN,), (1, HIDDEN), (1,)]
        self.params = [torch.randn(s, generator=self.generator).requires_grad_() for s in shapes]
        self.diagonal = torch.full((sum(p.numel() for p in self.params),), ridge)
        self.seen: dict[int, float] = {}

    def forward(self, x: Tensor) -> Tensor:
        w1, b1, w2, b2 = self.params
        return (torch.relu(x @ w1.T + b1) @ w2.T + b2)[..., 0]

    def train(self) -> None:
        x, y = self.x[list(self.seen)], torch.tensor(list(self.seen.values()))
        optimizer = torch.optim.Adam(self.params, lr=1e-3)
        for _ in range(EPOCHS):
            optimizer.zero_grad()
            (self.forward(x) - y).square().mean().backward()
            optimizer.step()

    def select(self) -> int:
        looked_at = torch.randperm(len(self.x), generator=self.generator)[: self.look].tolist()
        means, gradients = [], []
        for arm in looked_at:
            mean = self.forward(self.x[arm])
            gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(mean, self.params)]))
            means.append(mean.detach())
        stacked = torch.stack(gradients)
        sigma = torch.stack([(self.ridge * g * g / self.diagonal).sum().sqrt() for g in stacked])
        scores = torch.stack(means) + self.nu * sigma
        scores[torch.tensor([arm in self.seen for arm in looked_at])] = -torch.inf
        best = int(scores.argmax())
        self.diagonal += stacked[best] ** 2
        return looked_at[best]


def gradient_gib(arms: int, features: int) -> float:
    """What DiagonalBandit's gradients take: the list and its stacked copy, float32."""
    return 2 * arms * (HIDDEN * (features + 2) + 1) * 4 / 2**30


# -- what a round costs --------------------------------------------------------------------------------------


def time_round(kind: str, arms: int, size: int, evaluated: int, rounds: int) -> tuple[float, float, float]:
    """(seconds per round, of which training, peak GiB), in a process of its own."""
    torch.set_num_threads(1)
    warm_up = DiagonalBandit(
        torch.randn(8, 4), seed=0, look=8
    )  # torch imports much at its first optimiser step
    warm_up.seen = {0: 0.5}
    warm_up.train()
    warm_up.select()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(arms, size, generator=generator)
    rewards = torch.rand(arms, generator=generator).tolist()
    known = list(range(evaluated))
    if kind == "exact":
        exact = NeuralBandit(BanditConfig(hidden=HIDDEN, epochs=EPOCHS))
        exact.add_arms(features)
        exact.observe(known, rewards[:evaluated])
        exact.predict()  # computes the Gram matrix of the initial points; the diagonal form keeps nothing
    else:
        diagonal = DiagonalBandit(features, seed=0, look=arms)
        diagonal.seen = {arm: rewards[arm] for arm in known}

    def observe(arm: int) -> None:
        if kind == "exact":
            exact.observe(arm, rewards[arm])
        else:
            diagonal.seen[arm] = rewards[arm]

    def train() -> None:
        if kind == "exact":
            _ = exact.nu  # trains, and computes what the scores of all arms need
        else:
            diagonal.train()

    def select() -> None:
        if kind == "exact":
            exact.select()
        else:
            diagonal.select()

    training = picking = 0.0
    for arm in range(evaluated, evaluated + rounds):
        observe(arm)
        started = time.perf_counter()
        train()
        trained = time.perf_counter()
        select()
        training, picking = training + trained - started, picking + time.perf_counter() - trained
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    return (training + picking) / rounds, training / rounds, peak


def cost_table(console: Console, arm_counts: list[int], sizes: list[int], evaluated: int) -> None:
    title = (
        f"One round, {evaluated} evaluated arms, network width {HIDDEN}, {EPOCHS} training steps, 1 thread"
    )
    table = Table(title=title)
    for column in ("arms", "features", "form", "s / round", "of which training", "peak GiB", "times exact"):
        table.add_column(column, justify="right")
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    for size in sizes:
        for arms in arm_counts:
            seconds: dict[str, float] = {}
            for kind in ("exact", "diagonal"):
                needed = gradient_gib(arms, size)
                if kind == "diagonal" and needed > 0.6 * available:
                    reason = f"skipped: {needed:.1f} GiB of gradients, {available:.0f} GiB free"
                    table.add_row(f"{arms:,}", f"{size:,}", kind, reason, "", "", "")
                    continue
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    rounds = 3 if kind == "exact" else 1
                    job = (kind, arms, size, evaluated, rounds)
                    seconds[kind], training, peak = pool.apply(time_round, job)
                cells = (f"{seconds[kind]:.3f}", f"{training:.3f}", f"{peak:.2f}")
                table.add_row(
                    f"{arms:,}", f"{size:,}", kind, *cells, f"{seconds[kind] / seconds['exact']:.0f}x"
                )
    console.print(table)
    console.print(
        "Peak: growth of ru_maxrss (getrusage) of a process of its own, features included. The exact form's "
        "'training' includes activations and kernel of all arms.\n"
    )


# -- what the evaluations find -------------------------------------------------------------------------------


def landscape(arms: int, size: int, seed: int, peaks: int) -> tuple[Tensor, Tensor]:
    """Features (arms, size) and true mean rewards (arms,) in [0, 1].

    Arms are points around 60 topics in 12 latent dimensions, seen through a random tanh layer with noise; the
    reward is the highest of the peaks' bumps, centred on arms, of which one reaches 1 and the others 0.2 to 0.8.
    The mean arm earns 0.12 on one wide peak and 0.07 among twelve narrow ones; one arm in 10,000 is the best.
    """
    g = torch.Generator().manual_seed(seed)
    latent = torch.randn(60, 12, generator=g)[torch.randint(60, (arms,), generator=g)]
    latent = latent + 0.5 * torch.randn(arms, 12, generator=g)
    mixed = torch.tanh(latent @ torch.randn(12, 128, generator=g) / math.sqrt(12))
    features = mixed @ torch.randn(128, size, generator=g) / math.sqrt(128)
    features = features + 0.1 * torch.randn(arms, size, generator=g)
    heights = torch.rand(peaks, generator=g) * 0.6 + 0.2
    heights[0] = 1.0
    centres = latent[torch.randint(arms, (peaks,), generator=g)]
    width = 2.4 if peaks == 1 else 1.6
    bumps = heights * torch.exp(-torch.cdist(latent, centres).square() / (2 * width**2))
    return features, bumps.max(dim=1).values


class GaussianProcess:
    """GP-UCB (Srinivas et al. 2010, arXiv 0912.3995) with an RBF kernel, whose length scale is the likeliest of five
    at every pick, and two standard deviations added to the mean: how hard a landscape is for another exact method."""

    def __init__(self, features: Tensor, noise: float = 0.1):
        self.x = ((features - features.mean(0)) / features.std(0)).double() / math.sqrt(features.shape[1])
        self.noise, self.seen = noise, dict[int, float]()

    def select(self) -> int:
        arms, y = list(self.seen), torch.tensor(list(self.seen.values()), dtype=torch.float64)
        y = (y - y.mean()) / y.std()
        distances = torch.cdist(self.x[arms], self.x).square()

        def fitted(scale: float) -> tuple[float, Tensor, Tensor]:
            kernel = torch.exp(-distances / (2 * scale**2))
            root = torch.linalg.cholesky(kernel[:, arms] + self.noise**2 * torch.eye(len(arms)))
            white = torch.linalg.solve_triangular(root, torch.cat([y[:, None], kernel], 1), upper=False)
            likelihood = float(-white[:, 0].square().sum() / 2 - root.diagonal().log().sum())
            return likelihood, white[:, 0] @ white[:, 1:], 1 - white[:, 1:].square().sum(0)

        _, mean, variance = max((fitted(s) for s in (0.3, 0.5, 0.8, 1.2, 1.8)), key=lambda one: one[0])
        scores = mean + 2 * variance.clamp_min(0).sqrt()
        scores[arms] = -torch.inf
        return int(scores.argmax())


def search(kind: str, features: Tensor, rewards: Tensor, seed: int, budget: int) -> list[int]:
    """The arms evaluated, in order; the first INITIAL are the same random ones for every kind."""
    g = torch.Generator().manual_seed(1000 + seed)
    order = torch.randperm(len(rewards), generator=g).tolist()
    noisy = (rewards + NOISE * torch.randn(len(rewards), generator=g)).tolist()
    if kind == "random":
        return order[:budget]
    first = order[:INITIAL]
    if kind == "diagonal":
        diagonal = DiagonalBandit(features, seed, look=1000)
        diagonal.seen = {arm: noisy[arm] for arm in first}
        while len(diagonal.seen) < budget:
            arm = diagonal.select()
            diagonal.seen[arm] = noisy[arm]
            diagonal.train()
        return list(diagonal.seen)
    if kind == "Gaussian process":
        process = GaussianProcess(features)
        process.seen = {arm: noisy[arm] for arm in first}
        while len(process.seen) < budget:
            arm = process.select()
            process.seen[arm] = noisy[arm]
        return list(process.seen)
    policy: Literal["ucb", "thompson"] = "thompson" if kind.startswith("thompson") else "ucb"
    exact = NeuralBandit(BanditConfig(hidden=HIDDEN, epochs=EPOCHS, seed=seed, policy=policy))
    exact.add_arms(features)
    exact.observe(first, [noisy[arm] for arm in first])
    batch = 5 if kind.endswith("batches of 5") else 1
    while len(exact.evaluated) < budget:
        picks = exact.select(min(batch, budget - len(exact.evaluated)))
        exact.observe(picks, [noisy[arm] for arm in picks])
    return list(exact.evaluated)


def regret_table(console: Console, arms: int, size: int, seeds: int, budget: int, peaks: int) -> None:
    world = "one peak" if peaks == 1 else f"{peaks} peaks"
    table = Table(
        title=f"{world}: {arms:,} arms, {size} features, {budget} evaluations ({INITIAL} random first), {seeds} seeds"
    )
    columns = ("search", "best-arm regret: mean", "max", "best found", "mean reward of picks", "seconds")
    for column in columns:
        table.add_column(column, justify="right")
    worlds = [landscape(arms, size, seed, peaks) for seed in range(seeds)]
    for kind in ("random", "diagonal", "Gaussian process", "exact", "exact, batches of 5", "thompson, batches of 5"):
        started, regrets, earned = time.perf_counter(), [], []
        for seed, (features, rewards) in enumerate(worlds):
            tried = search(kind, features, rewards, seed, budget)
            regrets.append(float(rewards.max() - rewards[tried].max()))
            earned.append(float(rewards[tried[INITIAL:]].mean()))
        found = f"{sum(r == 0 for r in regrets)} of {seeds}"
        seconds = f"{time.perf_counter() - started:.1f}"
        cells = (f"{sum(regrets) / seeds:.3f}", f"{max(regrets):.3f}", found, f"{sum(earned) / seeds:.3f}")
        table.add_row(kind, *cells, seconds)
    console.print(table)
    console.print(
        "Best-arm regret: true reward of the best arm (1.0) less that of the best arm evaluated. 'diagonal' "
        f"looks at 1,000 random arms per round; observed rewards carry noise of sd {NOISE}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smaller version, under a minute")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    console = Console(width=150)
    if quick:
        cost_table(console, [1000], [256], evaluated=100)
        regret_table(console, arms=2000, size=64, seeds=2, budget=80, peaks=1)
    else:
        cost_table(console, [1000, 10_000], [256, 4096], evaluated=100)
        for peaks in (1, 12):
            regret_table(console, arms=10_000, size=64, seeds=5, budget=165, peaks=peaks)


if __name__ == "__main__":
    main()
