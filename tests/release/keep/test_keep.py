"""Each way to keep what must stay, against dense matrices and hand-made models; and that they add up."""

import math
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from reveal_release.config import KEEP, ReleaseConfig, RunConfig, UserError
from reveal_release.dataset import encode
from reveal_release.models import LanguageModel, load_model
from reveal_release.release.keep import KEEPERS, Role, Training, activations, keepers, line
from reveal_release.release.keep.activations import leading
from reveal_release.release.keep.ending import Ending
from reveal_release.release.lora import from_peft, trainable_factors
from reveal_release.release.patch import Patch
from reveal_release.release.pem import linear_layers, train_pem, unlikelihood
from reveal_release.release.rows import Row, answer_log_probs, batches, lengths, parts
from reveal_release.release.runtime import applied, merge_
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
    [
        ({"olora_normalized": 1.0}, "has 'olora_normalized': choose from .*olora-normalised"),
        ({"kl": -1.0}, "kl is -1"),
        ({"activation-null-space": 1.0}, "0.999"),
    ],
)
def test_what_is_no_way_or_no_weight_is_refused(keep: dict[str, float], told: str) -> None:
    with pytest.raises(UserError, match=told):
        RunConfig(release=ReleaseConfig(keep=keep)).check()


@pytest.fixture
def training(lm: LanguageModel, exact: None) -> Iterator[Training]:
    """A module whose B is not zero, in training on a patched model, after another one."""
    config = replace(CONFIG, batch=len(ANCHORS), anchor_scale=1.5, forget_scale=0.4)  # a batch holds all anchors
    torch.manual_seed(0)
    anchors, frozen, patch = rows(lm, ANCHORS), train(lm, {}, 3, role="forget"), train(lm, {}, 12, role="forget")
    with applied(lm.model, patch, 0.7) as teacher:
        model = get_peft_model(lm.model, LoraConfig(r=4, lora_alpha=8, target_modules=linear_layers(lm.model, 1.0)))
        factors = trainable_factors(model)
        for f in factors.values():
            torch.nn.init.normal_(f.B, std=0.1)
        generator, ends = torch.Generator().manual_seed(0), [lm.tokenizer.eos_token_id, 5]
        yield Training(model, factors, 2.0, frozen, rows(lm, LEARNT), anchors, teacher, config, generator, 1, ends)  # type: ignore[arg-type]


ROLES: tuple[tuple[Role, str], ...] = (("retain", "kl"), ("forget", "kl-forget"))


@pytest.mark.parametrize(("role", "name"), ROLES)
def test_kl_is_from_the_starting_model_at_the_scale_of_the_step(training: Training, tiny_llama: str, role: Role, name: str) -> None:
    """Against models with the dense changes in their weights."""
    found = keepers({"kl": 2.0, "kl-forget": 2.0}, role, training)[0].loss().item()
    same = torch.Generator().manual_seed(0)
    next(batches(training.anchors, len(ANCHORS), same))
    start, moved = (load_model(tiny_llama, "float32", "cpu").model for _ in range(2))
    scale = (1 - torch.rand((), generator=same).item()) * (1.5 if name == "kl" else -1.5 * 0.4)
    merge_(moved, from_peft(training.model).scale(scale))
    merge_(moved, train(load_model(tiny_llama, "float32", "cpu"), {}, 12, role="forget").scale(0.7 * scale))
    with torch.no_grad():
        p, q = (answer_log_probs(model, training.anchors, 1)[0].double() for model in (start, moved))
    assert found == pytest.approx(2.0 * (p.exp() * (p - q)).sum(1).mean().item(), rel=1e-3)
    scalings = {v for m in training.model.modules() if isinstance(m, LoraLayer) for v in m.scaling.values()}
    assert training.teacher.scale == 0.7 and scalings == {2.0}


@pytest.mark.parametrize(("role", "name", "scale"), [("retain", "nll", 1.0), ("forget", "nll-forget", -0.4)])
def test_nll_is_of_the_model_as_it_will_be(training: Training, tiny_llama: str, role: Role, name: str, scale: float) -> None:
    """Against a model with the dense changes in its weights, and its gradient against a difference along a direction."""
    assert keepers({name: 3.0}, "forget" if role == "retain" else "retain", training) == []
    [keeper] = keepers({name: 3.0}, role, training)
    loss = keeper.loss()
    moved = load_model(tiny_llama, "float32", "cpu").model
    merge_(moved, from_peft(training.model).scale(scale))
    merge_(moved, train(load_model(tiny_llama, "float32", "cpu"), {}, 12, role="forget").scale(0.7))
    with torch.no_grad():
        expected = F.nll_loss(*answer_log_probs(moved, training.anchors, 1)).item()
    assert loss.item() == pytest.approx(3.0 * expected, rel=1e-4)
    loss.backward()
    ups = [f.B for f in training.factors.values()]
    directions = [torch.randn_like(B) for B in ups]
    slope = sum((B.grad * d).sum().item() for B, d in zip(ups, directions, strict=True))

    def along(step: float) -> float:
        with torch.no_grad():
            for B, d in zip(ups, directions, strict=True):
                B += step * d
            return keeper.loss().item()

    assert (along(1e-3) - along(-2e-3)) / 2e-3 == pytest.approx(slope, rel=0.05)


def test_of_a_batch_that_is_too_large_one_part_is_read_and_each_in_its_turn(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[Row]] = []

    def reading(model: nn.Module, rows: list[Row], pad: int) -> tuple[Tensor, Tensor]:
        read.append(rows)
        return answer_log_probs(model, rows, pad)

    most = max(lengths(training.anchors))
    monkeypatch.setattr(line, "answer_log_probs", reading)
    monkeypatch.setattr(line, "parts", lambda rows: parts(rows, most))
    [keeper] = keepers({"kl": 2.0}, "retain", training)
    assert all(keeper.loss().item() > 0 for _ in range(12))
    assert read[::2] == read[1::2] and all(sum(lengths(part)) <= most for part in read)
    assert all(any(row in part for part in read) for row in training.anchors), "none is left out"


@pytest.mark.parametrize(("role", "name"), [("retain", "nll"), ("forget", "nll-forget")])
def test_so_is_it_of_next_token_losses(role: Role, name: str, training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[Row]] = []

    def reading(model: nn.Module, rows: list[Row], pad: int) -> tuple[Tensor, Tensor]:
        read.append(rows)
        return answer_log_probs(model, rows, pad)

    most = max(lengths(training.anchors))
    monkeypatch.setattr("reveal_release.release.keep.nll.answer_log_probs", reading)
    monkeypatch.setattr(line, "parts", lambda rows: parts(rows, most))
    [keeper] = keepers({name: 2.0}, role, training)
    assert all(keeper.loss().item() > 0 for _ in range(24))
    assert all(sum(lengths(part)) <= most for part in read)
    assert all(any(row in part for part in read) for row in training.anchors), "none is left out"


def test_ending_is_of_the_chance_alone_that_a_learnt_answer_ends(training: Training, tiny_llama: str) -> None:
    """Against models with the dense changes in their weights; half a batch, and nothing where nothing is learnt or nothing ends."""
    [keeper] = keepers({"ending": 3.0}, "retain", training)
    assert keepers({"ending": 3.0}, "forget", training) == []
    same = torch.Generator().manual_seed(0)
    row = next(batches(training.learnt, len(ANCHORS) // 2, same))
    scale = 1.5 * (1 - torch.rand((), generator=same).item())
    found = keeper.loss().item()
    start, moved = (load_model(tiny_llama, "float32", "cpu").model for _ in range(2))
    merge_(moved, from_peft(training.model).scale(scale))
    merge_(moved, train(load_model(tiny_llama, "float32", "cpu"), {}, 12, role="forget").scale(0.7 * scale))
    with torch.no_grad():
        p, q = (answer_log_probs(m, row, 1)[0].double().exp()[:, list(training.ends)].sum(1) for m in (start, moved))
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean().item()
    assert found == pytest.approx(3.0 * expected, rel=1e-3) and expected > 0
    for without in (replace(training, learnt=[]), replace(training, ends=[])):
        assert keepers({"ending": 3.0}, "retain", without)[0].loss() is None


@given(st.lists(st.floats(-8, 8), min_size=3, max_size=9), st.lists(st.floats(-8, 8), min_size=9, max_size=9))
def test_ending_is_nothing_between_models_that_end_alike(first: list[float], others: list[float]) -> None:
    """Whatever else they say: the rest of the distribution is mixed up, and the chance of the end is kept."""
    size = len(first)
    one = torch.tensor([first], dtype=torch.float64).log_softmax(-1)
    rest = torch.tensor([others[: size - 1]], dtype=torch.float64).log_softmax(-1) + torch.log1p(-one[:, :1].exp())
    ending = Ending(1.0, SimpleNamespace(learnt=[], anchors=[], ends=[0], config=CONFIG, generator=None))  # type: ignore[arg-type]
    assert ending.distance(torch.cat([one[:, :1], rest], 1), one).item() == pytest.approx(0.0, abs=1e-9)
    assert ending.distance(one.roll(1, 1), one).item() >= -1e-9


def test_a_certain_end_has_a_finite_distance() -> None:
    ending = Ending(1.0, SimpleNamespace(learnt=[], anchors=[], ends=[0], config=CONFIG, generator=None))  # type: ignore[arg-type]
    logits = torch.tensor([[100.0, 0.0, 0.0]], requires_grad=True)
    value = ending.distance(logits.log_softmax(-1), torch.tensor([[0.2, 0.5, 0.3]]).log())
    value.backward()
    assert value.item() == pytest.approx(0.2 * math.log(0.2) + 0.8 * (math.log(0.8) + 100 - math.log(2)), abs=1e-3)
    assert logits.grad[0].tolist() == pytest.approx([0.8, -0.4, -0.4], abs=1e-5), "it is pushed back"


def test_nll_is_of_the_anchors_answers_under_the_model_in_training(training: Training, tiny_llama: str) -> None:
    """Against a model with the dense changes in its weights; the forget module does not learn them."""
    [keeper] = keepers({"nll": 0.5}, "retain", training)
    assert keepers({"nll": 0.5}, "forget", training) == []
    moved = load_model(tiny_llama, "float32", "cpu").model
    merge_(moved, from_peft(training.model))
    merge_(moved, train(load_model(tiny_llama, "float32", "cpu"), {}, 12, role="forget").scale(0.7))
    tokens = []
    for ids, prompt in training.anchors:
        with torch.no_grad():
            log_probs = moved(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        tokens += [-log_probs[i - 1, ids[i]].item() for i in range(prompt, len(ids))]
    assert keeper.loss().item() == pytest.approx(0.5 * sum(tokens) / len(tokens), rel=1e-4)


def test_l2_is_the_squared_norm_of_the_dense_change(training: Training) -> None:
    [keeper] = keepers({"l2": 0.3}, "forget", training)
    patch = from_peft(training.model)
    assert keeper.loss().item() == pytest.approx(0.3 * sum(patch.delta(name).square().sum().item() for name in patch), rel=1e-5)


@pytest.mark.parametrize("drawing", [{"kl": 4.0, "nll": 2.0}, {"ending": 8.0}])
def test_ways_add_up(training: Training, drawing: dict[str, float]) -> None:
    """Losses and their gradients: all together are the sum of each with weight 1, times its weight (a power of 2: bfloat16).

    `drawing` draw random numbers, the same alone as together if they come first.
    """
    keep = {**drawing, "olora": 0.1, "olora-normalised": 20.0, "gauge-free": 50.0, "l2": 0.5}
    parameters = [p for f in training.factors.values() for p in f]

    def of(keep: dict[str, float]) -> Tensor:
        training.generator.manual_seed(0)
        loss = torch.stack([keeper.loss() for keeper in keepers(keep, "retain", training)]).sum()
        return torch.cat([loss.detach().ravel(), *(g.ravel() for g in torch.autograd.grad(loss, parameters, materialize_grads=True))])

    parts = {name: of({name: 1.0}) for name in keep}
    assert all(part.norm() > 0 for part in parts.values())
    together, expected = of(keep), sum(weight * parts[name] for name, weight in keep.items())
    torch.testing.assert_close(together, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_the_order_in_the_file_changes_nothing_and_zero_is_without(lm: LanguageModel) -> None:
    first = train(lm, {}, 3, role="forget")
    one, two, without = (train(lm, keep, 5, frozen=first) for keep in ({"kl": 4.0, "olora": 0.1}, {"olora": 0.1, "kl": 4.0}, {"kl": 0.0}))
    plain = train(lm, {}, 5, frozen=first)
    assert all(torch.equal(one[n].A, two[n].A) and torch.equal(one[n].B, two[n].B) for n in one)
    assert all(torch.equal(without[n].A, plain[n].A) and torch.equal(without[n].B, plain[n].B) for n in plain)


def test_the_defaults_train_as_the_loop_written_out(lm: LanguageModel) -> None:
    """KL and O-LoRA's penalty in one plain loop, bit for bit."""
    config = replace(CONFIG, keep={"kl": 4.0, "olora": 1e-4}, anchor_scale=2.0)
    first = train(lm, {}, 3, role="forget")
    learnt, anchors = rows(lm, LEARNT), rows(lm, ANCHORS)
    with applied(lm.model, first.negate(), 0.3) as teacher:
        options: Any = {"anchors": anchors, "unlearnt": anchors[:1], "unlearnt_weight": 0.5, "teacher": teacher, "frozen": first}
        found = train_pem(lm, learnt, config, steps=6, seed=5, **options)
        torch.manual_seed(5)
        generator = torch.Generator().manual_seed(5)
        lora = LoraConfig(r=4, lora_alpha=8, target_modules=linear_layers(lm.model, 1.0), task_type="CAUSAL_LM")
        model = get_peft_model(lm.model, lora).eval()
        layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        factors, parameters = trainable_factors(model), [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
        parts = [batches(part, 4, generator) for part in (learnt, anchors, anchors[:1])]
        for step in range(6):
            optimizer.param_groups[0]["lr"] = config.learning_rate * min(1.0, (step + 1) / 10) * (1 - step / 6)
            F.nll_loss(*answer_log_probs(model, next(parts[0]), 1)).backward()
            batch = next(parts[1])
            teacher.scale = 0.0
            with torch.no_grad(), model.disable_adapter():
                wanted, _ = answer_log_probs(model, batch, 1)
            multiple = 2.0 * (1 - torch.rand((), generator=generator).item())
            teacher.scale = multiple * 0.3
            for layer in layers:
                layer.scaling["default"] = multiple * 2.0
            kl = F.kl_div(answer_log_probs(model, batch, 1)[0], wanted, reduction="batchmean", log_target=True)
            teacher.scale = 0.3
            for layer in layers:
                layer.scaling["default"] = 2.0
            (4.0 * kl).backward()
            (1e-4 * torch.stack([(first[n].A @ f.A.T).abs().sum() for n, f in factors.items()]).sum()).backward()
            (0.5 * unlikelihood(*answer_log_probs(model, next(parts[2]), 1))).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        expected = from_peft(model)
        model.unload()
    assert all(torch.equal(found[n].A, expected[n].A) and torch.equal(found[n].B, expected[n].B) for n in expected)


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
@settings(max_examples=40)
def test_leading_directions_are_the_fewest_that_hold_the_share(size: int, seed: int, share: float) -> None:
    x = torch.randn(20, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    covariance = x.T @ x / 20
    basis = leading(covariance, share)
    held = (basis.T @ covariance @ basis).trace() / covariance.trace()
    fewer = basis[:, :-1]
    assert held >= share - 1e-9
    assert not fewer.shape[1] or (fewer.T @ covariance @ fewer).trace() / covariance.trace() < share
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64), atol=1e-8, rtol=0)


@given(st.integers(2, 12), st.integers(0, 10_000), st.floats(0.05, 0.99))
@settings(max_examples=40)
def test_leading_directions_of_few_samples_are_those_of_their_covariance(count: int, seed: int, share: float) -> None:
    x = torch.randn(count, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    few, all_of_it = leading(x, share), leading(x.T @ x / count, share)
    torch.testing.assert_close(few @ few.T, all_of_it @ all_of_it.T, atol=1e-7, rtol=0)


def test_of_wide_layers_a_part_of_the_tokens_is_read(training: Training, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "WIDE", 20)
    monkeypatch.setattr(activations, "STREAM", 2)
    training.teacher.scale = 0.0
    for f in training.factors.values():
        torch.nn.init.zeros_(f.B)
    found = activations.inputs(training)
    training.model.unload()
    lengths = [len(ids) for ids, _ in rows(lm, ANCHORS)]
    assert max(lengths) == lengths[0] > 15
    ends = set(range(lengths[0] - 5, lengths[0]))
    for name, x in inputs(lm, ANCHORS).items():
        count, width = found[name].shape
        assert 10 <= count <= 20 < len(x) and width == x.shape[1] > 20
        away = torch.cdist(found[name], x) / x.norm(dim=1).mean()
        assert away.min(1).values.max() < 0.1, "each is a token's"
        assert not ends.isdisjoint(away.argmin(1).tolist()), "also of the last tokens of the longest text"


def test_both_null_spaces_hold_at_once(lm: LanguageModel) -> None:
    first = train(lm, {}, 3, role="forget")
    found = train(lm, {"null-space": 1.0, "activation-null-space": 0.6}, frozen=first)
    leading_ones = train(lm, {"activation-null-space": 0.6}, frozen=first)
    for name, x in inputs(lm, ANCHORS).items():
        A, u = found[name].A, torch.linalg.svd(x.double().T @ x.double())[0][:, :1]
        assert (first[name].A @ A.T).norm() < 1e-5 * first[name].A.norm() * A.norm()
        for patch in (found, leading_ones):
            assert (patch[name].A.double() @ u).norm() < 0.05 * patch[name].A.norm()


def test_layers_that_read_one_tensor_share_a_covariance(training: Training, lm: LanguageModel) -> None:
    """And each is the mean of x xᵀ over all tokens, padding left out."""
    training.teacher.scale = 0.0
    for f in training.factors.values():
        torch.nn.init.zeros_(f.B)
    found = activations.inputs(training)
    assert found["model.layers.0.self_attn.q_proj"] is found["model.layers.0.self_attn.v_proj"]
    assert found["model.layers.0.self_attn.q_proj"] is not found["model.layers.1.self_attn.q_proj"]
    assert len({id(c) for c in found.values()}) == 8 and len(found) == 14
    training.model.unload()
    for name, x in inputs(lm, ANCHORS).items():
        dense = x.T @ x / len(x)
        assert (found[name] - dense).norm() < 0.02 * dense.norm(), name


def test_ways_for_the_retain_module_leave_the_forget_module_alone(lm: LanguageModel) -> None:
    """And it is drawn from the same random numbers."""
    plain, kept = train(lm, {}, role="forget"), train(lm, {"kl": 4.0, "olora": 1.0, "null-space": 1.0}, role="forget")
    assert all(torch.equal(plain[n].A, kept[n].A) and torch.equal(plain[n].B, kept[n].B) for n in plain)
