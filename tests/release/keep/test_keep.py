"""Each way to keep what must stay, against dense matrices and hand-made models; and that they add up."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from reveal_release.config import KEEP, ReleaseConfig, RunConfig, UserError
from reveal_release.models import LanguageModel
from reveal_release.release.adapter import applied
from reveal_release.release.keep import KEEPERS
from reveal_release.release.keep.activations import leading
from reveal_release.release.patch import Patch
from reveal_release.release.pem import train_pem
from reveal_release.release.rows import Row, answer_log_probs
from reveal_release.reveal.selfgen import encode
from reveal_release.tasks import Record

CONFIG = ReleaseConfig(rank=4, layers=1.0, batch=4, learning_rate=5e-3, anchor_scale=1.0, keep={})
LEARNT = (("Name it.", "The river."), ("Write a comment.", "They read a letter about the old bridge."))
ANCHORS = (("Sing.", "No music here, she said."), ("Say what the weather is.", "New."), ("Who is it?", "The people of the town."))


def rows(lm: LanguageModel, texts: tuple[tuple[str, str], ...]) -> list[Row]:
    return encode(lm, [Record((("user", question),), answer, 0.0, question) for question, answer in texts])


def train(lm: LanguageModel, keep: dict[str, float], steps: int = 20, **others: object) -> Patch:
    config = replace(CONFIG, keep=keep)
    return train_pem(lm, rows(lm, LEARNT), config, steps=steps, seed=1, anchors=rows(lm, ANCHORS), **others)  # type: ignore[arg-type]


def inputs(lm: LanguageModel, texts: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """(tokens, in) of every linear map, one row after the other and unpadded."""
    seen: dict[str, list[Tensor]] = {}
    layers = {n: m for n, m in lm.model.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"}
    handles = [m.register_forward_pre_hook(lambda _, a, n=n: seen.setdefault(n, []).append(a[0][0])) for n, m in layers.items()]
    with torch.no_grad():
        for ids, _ in rows(lm, texts):
            lm.model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


def test_config_and_code_name_the_same_ways() -> None:
    assert tuple(KEEPERS) == KEEP


@pytest.mark.parametrize(
    ("keep", "told"),
    [({"olora_normalized": 1.0}, "did you mean olora-normalised"), ({"kl": -1.0}, "kl is -1"), ({"activation-null-space": 1.0}, "0.999")],
)
def test_what_is_no_way_or_no_weight_is_refused(keep: dict[str, float], told: str) -> None:
    with pytest.raises(UserError, match=told):
        RunConfig(release=ReleaseConfig(keep=keep)).check()


def test_ways_add_up(lm: LanguageModel) -> None:
    """After one step of Adam every entry of B has moved by the learning rate against the sign of the whole loss's gradient."""
    first = train(lm, {}, role="forget")
    keep = {"kl": 3.0, "olora": 0.1, "olora-normalised": 0.2, "gauge-free": 0.3, "l2": 0.5}
    single = {name: train(lm, {name: weight}, 3, frozen=first) for name, weight in keep.items()}
    plain, together = train(lm, {}, 3, frozen=first), train(lm, keep, 3, frozen=first)
    moved = {name: sum((plain[n].delta() - p[n].delta()).norm() for n in plain) for name, p in single.items()}
    assert moved["olora"] > 0 and moved["l2"] > 0 and moved["kl"] > 0
    assert all(torch.isfinite(together[n].delta()).all() for n in together)
    assert all(not torch.equal(together[n].B, plain[n].B) for n in plain)


def test_null_space_reads_nothing_that_the_first_module_reads(lm: LanguageModel) -> None:
    first = train(lm, {}, role="forget")
    free, bound = train(lm, {}, frozen=first), train(lm, {"null-space": 1.0}, frozen=first)
    for name in first:
        size = first[name].A.norm() * bound[name].A.norm()
        assert (first[name].A @ bound[name].A.T).norm() < 1e-5 * size < (first[name].A @ free[name].A.T).norm()
    before = F.nll_loss(*answer_log_probs(lm.model, rows(lm, LEARNT), 1))
    with applied(lm.model, bound):
        assert F.nll_loss(*answer_log_probs(lm.model, rows(lm, LEARNT), 1)) < before - 1.0, "it still learns"


@pytest.mark.parametrize("role", ["forget", "retain"])
def test_activation_null_space_reads_no_leading_input_of_the_anchors(lm: LanguageModel, role: str) -> None:
    free, bound = train(lm, {}, role=role), train(lm, {"activation-null-space": 0.8}, role=role)
    for name, x in inputs(lm, ANCHORS).items():
        x = x.double()
        u, s, _ = torch.linalg.svd(x.T @ x)
        k = int((s.cumsum(0) / s.sum() < 0.79).sum())  # a little fewer than are spared: theirs are of bfloat16 inputs
        spared = u[:, :k]
        for patch, most in ((bound, 0.08), (free, 2.0)):
            read = (patch.delta(name).double() @ spared).norm() / patch.delta(name).norm()
            assert read < most, name
        moved = {n: (x @ p.delta(name).double().T).norm() / p.delta(name).norm() for n, p in (("bound", bound), ("free", free))}
        assert moved["bound"] < moved["free"]


def test_activation_null_space_leaves_as_many_directions_as_the_rank(lm: LanguageModel) -> None:
    found = train(lm, {"activation-null-space": 0.999}, steps=2)
    for module in found.values():
        assert torch.linalg.matrix_rank(module.A, rtol=1e-4) == CONFIG.rank


@given(st.integers(2, 12), st.integers(0, 10_000), st.floats(0.05, 0.99))
@settings(deadline=None, max_examples=40)
def test_leading_directions_are_the_fewest_that_hold_the_share(size: int, seed: int, share: float) -> None:
    x = torch.randn(20, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    covariance = x.T @ x / 20
    basis = leading(covariance, share)
    held = (basis.T @ covariance @ basis).trace() / covariance.trace()
    fewer = basis[:, :-1]
    assert held >= share - 1e-9
    assert not fewer.shape[1] or (fewer.T @ covariance @ fewer).trace() / covariance.trace() < share
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64), atol=1e-8, rtol=0)


def test_l2_is_the_squared_norm_of_the_change(lm: LanguageModel) -> None:
    norms = [train(lm, {"l2": weight}, role="forget").norm() for weight in (0.0, 0.1, 10.0)]
    assert norms[0] > norms[1] > norms[2]


def test_ways_for_the_retain_module_leave_the_forget_module_alone(lm: LanguageModel) -> None:
    """And it is drawn from the same random numbers."""
    plain, kept = train(lm, {}, role="forget"), train(lm, {"kl": 4.0, "olora": 1.0, "null-space": 1.0}, role="forget")
    assert all(torch.equal(plain[n].A, kept[n].A) and torch.equal(plain[n].B, kept[n].B) for n in plain)
