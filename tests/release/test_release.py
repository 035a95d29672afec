"""A release on the tiny model: utility as defined, the step's algebra, and a scale that keeps the budget."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reveal_release.config import ReleaseConfig
from reveal_release.dataset import encode
from reveal_release.generation import Progress
from reveal_release.models import LanguageModel
from reveal_release.release.patch import LowRank, Patch
from reveal_release.release.pem import train_pem
from reveal_release.release.release import MARGIN, averaged, choose_scale, direction, suited, train_modules
from reveal_release.release.rows import Row, answer_log_probs
from reveal_release.release.runtime import applied
from reveal_release.release.utility import Utility, mean_nll
from reveal_release.tasks import Record

CONFIG = ReleaseConfig(
    anchor_scale=2.0, rank=4, layers=1.0, batch=4, steps=20, retain_steps=20, learning_rate=5e-3, forget_scale=1.0,
    keep={"kl": 8.0, "olora": 1e-4},
)  # fmt: skip
FORGET = ("They read a letter.", "No music here, she said.", "The people of the town.", "Old news about the bridge.")
HARMLESS = ("It was there.", "What she said is new.", "The north of the river.", "They explain the weather.")


@pytest.fixture
def forget(lm: LanguageModel) -> list[Row]:
    return encode(lm, [Record((("user", f"Write number {i}."),), text, 1.0, "") for i, text in enumerate(FORGET)])


@pytest.fixture
def harmless(lm: LanguageModel) -> list[Row]:
    """Other answers to the same instructions."""
    return encode(lm, [Record((("user", f"Write number {i}."),), text, 0.0, "") for i, text in enumerate(HARMLESS)])


def test_the_step_is_retain_minus_forget() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (Patch({"m": LowRank(torch.randn(2, 5, generator=g), torch.randn(4, 2, generator=g))}) for _ in range(2))
    step = direction(a, b, ReleaseConfig(forget_scale=0.7))
    torch.testing.assert_close(step.delta("m"), b.delta("m") - 0.7 * a.delta("m"))
    torch.testing.assert_close(direction(a, Patch(), ReleaseConfig(forget_scale=0.5)).delta("m"), -0.5 * a.delta("m"))


def test_the_retain_module_repairs_and_learns_the_harmless_answers(
    lm: LanguageModel, forget: list[Row], harmless: list[Row], retain: list[Row]
) -> None:
    """Outputs on the retain records come back to what they were; the harmless answers become likely."""
    config = replace(CONFIG, forget_scale=3.0, retain_steps=40)
    seen: list[tuple[int, int]] = []
    pems = train_modules(lm, forget, harmless, retain, config, seed=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 60) for i in range(1, 61)]

    @torch.no_grad()
    def measured(patch: Patch) -> tuple[float, float]:
        with applied(lm.model, patch):
            log_probs = answer_log_probs(lm.model, retain, 1)[0]
            return F.kl_div(log_probs, base, reduction="batchmean", log_target=True).item(), mean_nll(lm, harmless)

    with torch.no_grad():
        base, untrained = answer_log_probs(lm.model, retain, 1)[0], mean_nll(lm, harmless)
    broken, repaired = measured(direction(pems[0], Patch(), config)), measured(direction(*pems, config))
    assert repaired[0] < 0.5 * broken[0]
    assert repaired[1] < broken[1] - 1.0 and repaired[1] < untrained
    assert torch.equal(answer_log_probs(lm.model, retain, 1)[0], base)  # nothing is left on the model


def test_without_retain_steps_there_is_no_retain_module(lm: LanguageModel, forget: list[Row], retain: list[Row]) -> None:
    forget_pem, retain_pem = train_modules(lm, forget, retain, retain, ReleaseConfig(rank=2, layers=1.0, steps=2, retain_steps=0), seed=3)
    assert len(forget_pem) == 14 and not retain_pem


def test_a_step_is_the_mean_of_pairs_that_were_trained_apart(
    lm: LanguageModel, forget: list[Row], harmless: list[Row], retain: list[Row]
) -> None:
    config, seen = replace(CONFIG, pairs=3, steps=3, retain_steps=2), list[tuple[int, int]]()

    def train(seed: int, progress: Progress | None = None) -> tuple[Patch, Patch]:
        return train_modules(lm, forget, harmless, retain, config, seed, progress)

    step = averaged(train, config, 3, lambda done, total: seen.append((done, total)))
    assert seen == [(i, 15) for i in range(1, 16)]
    each = [direction(*train(seed), config) for seed in (3, 5, 7)]
    for name in step:
        torch.testing.assert_close(step.delta(name), sum(one.delta(name) for one in each) / 3, rtol=1e-4, atol=1e-7)
    assert all(abs(a.inner(b)) < 0.9 * a.norm() * b.norm() for a, b in zip(each, each[1:], strict=False)), "each from a start of its own"
    alone = averaged(train, replace(config, pairs=1), 3)
    assert all(torch.equal(alone.delta(name), each[0].delta(name)) for name in alone)


def test_the_scale_keeps_the_budget_and_forgets(
    lm: LanguageModel, forget: list[Row], harmless: list[Row], retain: list[Row], short_prose: list[str]
) -> None:
    """A step that costs something: it takes away what utility is measured on as well."""
    config = replace(CONFIG, retain_steps=0)
    step = direction(*train_modules(lm, forget + retain[:2], harmless, retain[2:], config, seed=3), config)
    utility, before = Utility.of(lm, retain[:2], short_prose), mean_nll(lm, forget)
    chosen = {budget: choose_scale(lm, step, utility, budget, 1e9, 2.0, lambda: False) for budget in (0.0, 0.05, 0.15, 1e9)}
    scales = [found.scale for found in chosen.values()]
    assert scales == sorted(scales) and 0 < scales[1] < scales[2] < scales[3] == 2.0
    for budget, found in chosen.items():
        assert found.cost <= budget
        if found.scale:
            with applied(lm.model, step.scale(found.scale)):
                assert utility.loss() == pytest.approx(found.cost, abs=0.02)
                assert mean_nll(lm, forget) > before
    assert utility.loss() == pytest.approx(0.0, abs=1e-9)  # taken off again

    def is_gone() -> bool:
        """Once the forget records are well less likely than they were."""
        return bool(mean_nll(lm, forget) >= before + 0.3 * (far - before))

    def gone(scale: float) -> bool:
        with applied(lm.model, step.scale(scale)):
            return is_gone()

    with applied(lm.model, step.scale(2.0)):
        far = mean_nll(lm, forget)
    mildest = next(scale for scale in np.arange(1, 17) / 8 if gone(scale))
    assert mildest < 2.0
    enough = choose_scale(lm, step, utility, 1e9, 1e9, 2.0, is_gone)
    assert enough.scale == pytest.approx(min(MARGIN * mildest, 2.0))
    narrow = choose_scale(lm, step, utility, chosen[0.15].cost, chosen[0.15].cost, 2.0, is_gone)
    assert narrow.cost <= chosen[0.15].cost
    # Gone within the share of this step, it may take of the whole budget what the margin asks for.
    threshold = next(scale for scale in np.linspace(0.02, 2.0, 100) if gone(scale))
    with applied(lm.model, step.scale(1.15 * threshold)):
        share = utility.loss()
    beyond = choose_scale(lm, step, utility, share, 1e9, 2.0, is_gone)
    within = choose_scale(lm, step, utility, share, 1e9, 2.0, lambda: False)
    assert gone(within.scale) and within.cost <= share
    mildest = next(scale for scale in np.arange(1, 17) / 16 * within.scale if gone(scale))
    assert beyond.scale == pytest.approx(MARGIN * mildest) and beyond.cost > share
    # With a part of the step on the model, the margin is on all of it.
    with applied(lm.model, step.scale(0.5)):
        mildest = next(scale for scale in np.arange(1, 17) / 8 if gone(scale))
        more = choose_scale(lm, step, utility, 1e9, 1e9, 2.0, is_gone, utility.loss(), taken=0.5)
    assert more.gone and more.scale == pytest.approx(MARGIN * (0.5 + mildest) - 0.5)


@pytest.mark.parametrize("ending", [0.0, 1.0])
def test_unanswered_records_count_as_much_as_they_are_of_the_behaviour(
    ending: float, lm: LanguageModel, forget: list[Row], harmless: list[Row], retain: list[Row]
) -> None:
    """The retain module is what `train_pem` makes where half of the forget records are unanswered, and weigh half.

    Where answers end it learns unless that is held.
    """
    config = replace(CONFIG, steps=2, retain_steps=4, keep={"kl": 8.0, "ending": ending})
    forget_pem, found = train_modules(lm, [*forget, *forget], harmless, retain, config, 3, None, forget)
    with applied(lm.model, forget_pem.negate(), config.forget_scale) as teacher:
        common: Any = {"anchors": retain, "unlearnt": forget, "teacher": teacher, "frozen": forget_pem, "learn_ends": not ending}
        half, whole = (train_pem(lm, harmless, config, steps=4, seed=4, **common, unlearnt_weight=weight) for weight in (0.5, 1.0))
    for name in found:
        torch.testing.assert_close(found.delta(name), half.delta(name))
    assert (found + whole.negate()).norm() > 1e-4 * found.norm()


def test_a_skill_is_kept_apart_and_a_style_is_not(lm: LanguageModel, forget: list[Row], harmless: list[Row], retain: list[Row]) -> None:
    """Where more than half of the forget records are unanswered there is one pair, of an activation null space, else as without."""
    config = replace(CONFIG, pairs=2, steps=2, retain_steps=2, ascent=0.5, keep={"kl": 1.0, "skill-null-space": 0.6})
    longer = replace(config, pairs=1, steps=4, retain_steps=4, ascent=0.0, max_scale=CONFIG.max_scale / 2)
    apart = replace(longer, keep={"kl": 1.0, "activation-null-space": 0.6})
    for unanswered, like in ((forget[:2], replace(config, keep={"kl": 1.0})), (forget[:3], apart)):
        data, kept = (forget, harmless, retain), suited(config, forget, unanswered)
        assert kept == replace(like, keep=kept.keep)
        found, wanted = (train_modules(lm, *data, c, 3, None, unanswered) for c in (kept, like))
        for patch, other in zip(found, wanted, strict=True):
            for name in patch:
                torch.testing.assert_close(patch.delta(name), other.delta(name))
