"""The bandit against brute force: materialised autograd gradients and a dense P x P design matrix."""

import math

import pytest
import torch

from reveal_release.config import UserError
from reveal_release.reveal.bandit import BanditConfig, NeuralBandit

from .conftest import autograd_gradients, features


def dense_width(gradients: torch.Tensor, seen: dict[int, float], ridge: float) -> torch.Tensor:
    """sqrt(ridge * g^T V^-1 g) with V = ridge I + sum n g g^T, P x P; `seen` maps an arm to its count."""
    design = ridge * torch.eye(gradients.shape[1], dtype=torch.float64)
    for arm, count in seen.items():
        design += count * torch.outer(gradients[arm], gradients[arm])
    return (ridge * (gradients * torch.linalg.solve(design, gradients.T).T).sum(1)).sqrt()


def trained(**settings) -> NeuralBandit:
    bandit = NeuralBandit(BanditConfig(**{"hidden": 8, "epochs": 40, **settings}))
    bandit.add_arms(features(50, 6))
    bandit.observe([3, 14, 15, 9, 26], [0.1, 0.9, 0.2, 0.4, 0.3], count=[1, 1, 2, 1, 0.5])
    bandit.observe(14, 0.6, count=3)  # arm 14 now has count 4 and mean (0.9 + 3 * 0.6) / 4
    return bandit


COUNTS = {3: 1.0, 14: 4.0, 15: 2.0, 9: 1.0, 26: 0.5}


# -- scores --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.1, 1.0, 50.0])
def test_scores_equal_dense_design_matrix(ridge):
    bandit = trained(ridge=ridge, exploration=0.7)
    mean, width = bandit.predict()
    net, x = bandit._net.whole(), bandit._x
    targets = torch.tensor([0.1, 2.7 / 4, 0.2, 0.4, 0.3], dtype=torch.float64)
    weights = torch.tensor(list(COUNTS.values()), dtype=torch.float64) / sum(COUNTS.values())
    center = (weights * targets).sum()
    scale = (weights * (targets - center) ** 2).sum().sqrt()
    expected_width = scale * dense_width(autograd_gradients(net, x), COUNTS, ridge)
    expected_mean = center + scale * net(x).detach().double()
    torch.testing.assert_close(width, expected_width, rtol=1e-4, atol=0)
    torch.testing.assert_close(mean + 0.7 * width, expected_mean + 0.7 * expected_width, rtol=1e-4, atol=1e-6)
    scores = expected_mean + 0.7 * expected_width
    scores[list(COUNTS)] = -torch.inf
    assert bandit.select() == [int(scores.argmax())]


def test_batch_is_greedy_with_hallucinated_observations():
    bandit = trained(exploration=3.0)
    picks = bandit.select(6)
    gradients, seen = autograd_gradients(bandit._net.whole(), bandit._x), dict(COUNTS)
    mean, _ = bandit.predict()
    for pick in picks:
        scores = mean + 3.0 * bandit._scale * dense_width(gradients, seen, bandit.config.ridge)
        scores[list(seen)] = -torch.inf
        assert pick == int(scores.argmax())
        seen[pick] = 1.0
    assert len(set(picks)) == 6 and not set(picks) & set(COUNTS)
    alone = bandit.predict()[0] + 3.0 * bandit.predict()[1]
    alone[list(COUNTS)] = -torch.inf
    assert picks != alone.topk(6).indices.tolist()  # so the hallucinations changed something


def test_a_nearly_identical_arm_is_not_picked_twice_in_a_batch():
    x = features(40, 6)
    x[1] = x[0] = x[0] * 4  # the widest arm of all, twice
    bandit = NeuralBandit(BanditConfig(hidden=8, exploration=100.0))
    bandit.add_arms(x)
    bandit.observe([5, 6, 7], [0.1, 0.2, 0.3])
    assert len({0, 1} & set(bandit.select(2))) == 1


def test_auto_exploration_is_the_leave_one_out_residual():
    bandit = trained(exploration="auto", ridge=2.0)
    nu, arms = bandit.nu, list(COUNTS)
    x, y = bandit._x[arms], bandit._targets()
    gradients = autograd_gradients(bandit._net.whole(), x)
    kernel, noise = gradients @ gradients.T, 2.0 / torch.tensor(list(COUNTS.values()), dtype=torch.float64)
    ratios = []
    for i in range(len(arms)):  # leave one out by really leaving it out
        rest = [j for j in range(len(arms)) if j != i]
        weights = torch.linalg.solve(kernel[rest][:, rest] + noise[rest].diag(), kernel[rest, i])
        variance = kernel[i, i] + noise[i] - weights @ kernel[rest, i]
        ratios.append((y[i] - weights @ y[rest]) ** 2 / variance)
    assert nu == pytest.approx(float(torch.stack(ratios).mean().sqrt()), rel=1e-4)


def test_equal_rewards_still_explore():
    bandit = NeuralBandit(BanditConfig(hidden=8))
    bandit.add_arms(features(30, 6))
    bandit.observe([0, 1, 2], [0.0, 0.0, 0.0])
    mean, width = bandit.predict()
    score = mean + bandit.nu * width
    score[:3] = -torch.inf
    assert bandit.nu > 0 and bandit.select() == [int(score.argmax())]


def test_thompson_follows_mean_and_width():
    bandit = trained(policy="thompson", exploration=0.0)
    mean = bandit.predict()[0]
    mean[list(COUNTS)] = -torch.inf
    assert bandit.select() == [int(mean.argmax())]  # no width, no noise
    picks = {trained(policy="thompson", exploration=5.0, seed=0).select()[0] for _ in range(2)}
    assert len(picks) == 1  # deterministic for a seed
    assert len({trained(policy="thompson", exploration=5.0, seed=s).select()[0] for s in range(8)}) > 1


# -- pool, training ------------------------------------------------------------------------------------------


def test_growing_pool_equals_all_at_once():
    x = features(60, 6)
    whole, grown = (NeuralBandit(BanditConfig(hidden=8, epochs=50)) for _ in range(2))
    assert whole.add_arms(x) == range(60)
    assert grown.add_arms(x[:20]) == range(20)
    grown.observe([4, 7], [0.5, 0.1])
    grown._gram([4])  # a cached column from before the pool grew must not survive
    assert grown.add_arms(x[20:]) == range(20, 60)
    grown.observe([30, 50], [0.9, 0.2])
    whole.observe([4, 7, 30, 50], [0.5, 0.1, 0.9, 0.2])
    for left, right in zip(whole.predict(), grown.predict(), strict=True):
        torch.testing.assert_close(left, right)
    assert whole.select(5) == grown.select(5)


def test_pool_may_grow_after_training():
    bandit = trained()
    bandit.select()
    new = bandit.add_arms(features(10, 6, seed=3))
    mean, width = bandit.predict()
    assert new == range(50, 60) and mean.shape == width.shape == (60,) and (width > 0).all()


def test_standardisation_makes_scale_offset_and_constant_features_irrelevant():
    x = features(50, 6)
    warped = torch.cat([x * torch.tensor([1, 10, 0.1, 5, 2, 1]) + 7, torch.full((50, 6), 1234.5)], dim=1)
    assert torch.isfinite(warped).all()
    plain, other = (NeuralBandit(BanditConfig(hidden=8)) for _ in range(2))
    plain.add_arms(x)
    other.add_arms(warped)
    # the divisor sqrt(d / hidden) counts the constant features too, hence the sqrt(2)
    torch.testing.assert_close(plain._x, other._x[:, :6] * math.sqrt(2), rtol=1e-4, atol=1e-4)
    assert (other._x[:, 6:] == 0).all()


def test_training_moves_w1_only_in_the_span_of_the_evaluated_arms():
    bandit = trained()
    bandit.predict()
    basis = torch.linalg.qr(bandit._x[list(COUNTS)].T).Q
    moved = bandit._net.whole().w1.detach() - bandit._net.initial["w1"]
    assert moved.norm() > 0.01
    torch.testing.assert_close(moved @ basis @ basis.T, moved, rtol=1e-4, atol=1e-5)


def test_training_fits_and_warm_start_agrees_with_cold():
    x = features(60, 6)
    rewards = torch.sigmoid(x[:, 0] - x[:, 1]).tolist()
    warm, cold = (NeuralBandit(BanditConfig(hidden=32, seed=1)) for _ in range(2))
    for bandit in (warm, cold):
        bandit.add_arms(x)
    for arm in range(0, 40, 4):
        warm.observe(list(range(arm, arm + 4)), rewards[arm : arm + 4])
        warm.predict()
    cold.observe(list(range(40)), rewards[:40])
    truth, held_out = torch.tensor(rewards, dtype=torch.float64), slice(40, 60)
    for bandit in (warm, cold):
        mean = bandit.predict()[0]
        assert (mean[:40] - truth[:40]).abs().mean() < 0.1 * truth.std()
        assert torch.corrcoef(torch.stack([mean[held_out], truth[held_out]]))[0, 1] > 0.8
    assert torch.corrcoef(torch.stack([warm.predict()[0], cold.predict()[0]]))[0, 1] > 0.9


def test_same_seed_same_picks_whatever_is_asked_in_between():
    first, second = trained(), trained()
    second.predict()
    second.predict()
    assert first.nu == second.nu and first.select(4) == second.select(4) == second.select(4)
    assert not torch.equal(trained(seed=1).predict()[0], first.predict()[0])


def landscape(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """600 arms on a 3-dimensional manifold in 24 dimensions, one smooth peak."""
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(600, 3, generator=generator)
    x = torch.tanh(latent @ torch.randn(3, 24, generator=generator))
    return x, (-(latent - 1).square().sum(1) / 2).exp()


def test_finds_the_best_arm_where_random_does_not():
    found, found_at_random = 0, 0
    for seed in range(5):
        x, reward = landscape(seed)
        order = torch.randperm(600, generator=torch.Generator().manual_seed(seed)).tolist()
        bandit = NeuralBandit(BanditConfig(hidden=32, seed=seed))
        bandit.add_arms(x)
        bandit.observe(order[:10], reward[order[:10]].tolist())
        while len(bandit.evaluated) < 40:
            picks = bandit.select(3)
            bandit.observe(picks, reward[picks].tolist())
        best = int(reward.argmax())
        found += best in bandit.evaluated
        found_at_random += best in order[:40]
    assert found == 5 and found_at_random == 0


# -- edges ---------------------------------------------------------------------------------------------------


def test_select_exhausts_the_pool():
    bandit = NeuralBandit(BanditConfig(hidden=4))
    bandit.add_arms(features(5, 3))
    bandit.observe(2, 0.5)
    assert sorted(bandit.select(9)) == [0, 1, 3, 4]
    bandit.observe([0, 1, 3, 4], [0.1, 0.2, 0.3, 0.4])
    assert bandit.select() == []


def test_more_evaluated_arms_than_features():
    bandit = NeuralBandit(BanditConfig(hidden=4))
    bandit.add_arms(features(30, 2))
    bandit.observe(list(range(20)), [i / 20 for i in range(20)])
    assert len(bandit.select(3)) == 3


def test_misuse_is_named():
    bandit = NeuralBandit()
    bandit.add_arms(features(5, 3))
    with pytest.raises(ValueError, match="observe at least one"):
        bandit.select()
    with pytest.raises(ValueError, match="not in the pool"):
        bandit.observe([0, 5], [0.1, 0.2])
    with pytest.raises(ValueError, match="finite"):
        bandit.observe([0, 1], [0.1, math.nan])
    assert bandit.evaluated == {}  # nothing half recorded
    with pytest.raises(ValueError, match="2 arms, 1 rewards"):
        bandit.observe([0, 1], 0.1)
    with pytest.raises(ValueError, match="3 features"):
        bandit.add_arms(features(5, 4))
    with pytest.raises(ValueError, match="finite"):
        bandit.add_arms(torch.full((2, 3), math.inf))


@pytest.mark.parametrize(
    "wrong",
    [{"policy": "egreedy"}, {"exploration": "much"}, {"exploration": -1}, {"ridge": 0}, {"hidden": 0}],
)
def test_wrong_settings_are_user_errors(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        BanditConfig(**wrong)
