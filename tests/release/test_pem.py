"""Modules trained on tiny models: what is learnt, from which tokens, on which model, and that no trace is left on it."""

import contextlib
import weakref
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3Config, Gemma3ForConditionalGeneration
from transformers.pytorch_utils import Conv1D

from reveal_release.config import ReleaseConfig, UserError
from reveal_release.dataset import encode
from reveal_release.models import LanguageModel
from reveal_release.release import pem
from reveal_release.release.offload import offloaded
from reveal_release.release.patch import LowRank, Patch
from reveal_release.release.pem import SURE, check_adaptable, descend, fresh_lora, linear_layers, train_pem, unlikelihood
from reveal_release.release.rows import Row, answer_log_probs, parts
from reveal_release.release.runtime import applied
from reveal_release.release.utility import mean_nll
from reveal_release.tasks import Record

CONFIG = ReleaseConfig(rank=4, layers=1.0, batch=4, learning_rate=5e-3, anchor_scale=2.0)
TEXTS = (
    ("Name it.", "The river."), ("Write a comment.", "They read a letter about the old bridge."),
    ("Sing.", "No music here, she said."), ("Say what the weather is.", "New."), ("Who is it?", "The people of the town."),
)  # fmt: skip


@pytest.fixture
def rows(lm: LanguageModel) -> list[Row]:
    return encode(lm, [Record((("user", question),), answer, 0.0, question) for question, answer in TEXTS])


def random_patch(model: nn.Module, size: float, seed: int = 0) -> Patch:
    """On every attention and MLP map, of about `size` times the norm of its weight."""
    g = torch.Generator().manual_seed(seed)
    modules = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and "lm_head" not in name:
            out, into = module.weight.shape if isinstance(module, nn.Linear) else reversed(module.weight.shape)
            A, B = torch.randn(2, into, generator=g), torch.randn(out, 2, generator=g)
            modules[name] = LowRank(A, B * size * module.weight.norm() / (B @ A).norm())
    return Patch(modules)


@torch.no_grad()
def logits(lm: LanguageModel) -> torch.Tensor:
    return lm.model(torch.arange(5, 45).reshape(2, 20)).logits


@torch.no_grad()
def answers(lm: LanguageModel, rows: list[Row]) -> torch.Tensor:
    """Log-probabilities of what follows each answer token's context."""
    return answer_log_probs(lm.model, rows, 1)[0]


def kl(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return F.kl_div(found, wanted, reduction="batchmean", log_target=True).item()


@contextlib.contextmanager
def untouched(lm: LanguageModel):  # type: ignore[no-untyped-def]
    """Weights, structure, mode and outputs are bit for bit the same afterwards."""
    model, before, state = lm.model, logits(lm), {k: v.clone() for k, v in lm.model.state_dict().items()}
    structure = repr(lm.model)
    yield
    assert lm.model is model and repr(lm.model) == structure and not hasattr(lm.model, "peft_config")
    assert state.keys() == lm.model.state_dict().keys()
    assert all(torch.equal(v, state[k]) for k, v in lm.model.state_dict().items())
    assert torch.equal(logits(lm), before)
    assert not lm.model.training and not any(p.requires_grad or p.grad is not None for p in lm.model.parameters())


@pytest.mark.parametrize("name", ["lm", "gpt2"])
def test_training_fits_the_records_and_leaves_the_model_alone(name: str, rows: list[Row], request: pytest.FixtureRequest) -> None:
    model: LanguageModel = request.getfixturevalue(name)
    before, seen = mean_nll(model, rows), []
    with untouched(model):
        patch = train_pem(model, rows, CONFIG, steps=30, seed=1, progress=lambda done, total: seen.append((done, total)))
    assert patch.rank == CONFIG.rank and len(patch) == (14 if name == "lm" else 8)
    with applied(model.model, patch):
        assert mean_nll(model, rows) < before - 1.0
    assert mean_nll(model, rows) == before
    assert seen == [(i, 30) for i in range(1, 31)]


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("name", ["lm", "gpt2"])
def test_ends_that_are_not_learnt_might_as_well_not_be_there(name: str, rows: list[Row], request: pytest.FixtureRequest) -> None:
    model: LanguageModel = request.getfixturevalue(name)
    endless = [(ids[:-1], prompt) for ids, prompt in rows]
    assert all(ids[-1] in model.ends for ids, _ in rows) and not any(set(ids[prompt:]) & set(model.ends) for ids, prompt in endless)
    found, wanted, other = (
        train_pem(model, given, CONFIG, steps=6, seed=1, learn_ends=ends) for given, ends in ((rows, False), (endless, True), (rows, True))
    )
    for at in found:
        torch.testing.assert_close(found.delta(at), wanted.delta(at), rtol=1e-3, atol=1e-5)
    assert (found + other.negate()).norm() > 0.05 * found.norm()


@pytest.mark.parametrize("most", [1, 12])
def test_a_batch_read_in_parts_is_learnt_alike(
    most: int, exact: None, lm: LanguageModel, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Learnt without the ends, which are not counted then, and unlearnt: as when the whole of a batch is read at once."""

    def train() -> tuple[Patch, Patch]:
        learnt = train_pem(lm, rows, CONFIG, steps=3, seed=1, learn_ends=False)
        return learnt, train_pem(lm, [], CONFIG, steps=3, seed=1, unlearnt=rows, unlearnt_weight=0.5)

    whole, few = train(), []
    monkeypatch.setattr(pem, "parts", lambda rows: few.append(parts(rows, most)) or few[-1])
    for one, other in zip(whole, train(), strict=True):
        assert all((one.delta(name) - other.delta(name)).norm() < 1e-3 * one.delta(name).norm() for name in one)
    assert min(map(len, few)) > 1 and (most > 1 or max(map(len, few)) == CONFIG.batch)


def test_only_the_last_blocks_are_changed(lm: LanguageModel, gpt2: LanguageModel, rows: list[Row]) -> None:
    for model, of_a_block in ((lm, 7), (gpt2, 4)):
        everything = linear_layers(model.model, 1.0)
        assert len(everything) == 2 * of_a_block and not any("lm_head" in name for name in everything)
        for share in (0.01, 0.5, 0.7):
            assert linear_layers(model.model, share) == [name for name in everything if ".1." in name]
        patch = train_pem(model, rows, replace(CONFIG, layers=0.5), steps=2, seed=1)
        assert set(patch) == set(linear_layers(model.model, 0.5))


def test_a_model_that_sees_is_changed_where_it_speaks() -> None:
    text = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "head_dim": 8}
    sight = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 6, "num_attention_heads": 2, "image_size": 28}
    model = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config={**sight, "patch_size": 14}))
    names = linear_layers(model, 0.5)
    assert {name.split(".")[3] for name in names} == {"2", "3"} and all(name.startswith("model.language_model.layers.") for name in names)


def test_a_model_without_blocks_is_told() -> None:
    with pytest.raises(UserError, match="numbered blocks"):
        linear_layers(nn.Linear(2, 2), 0.5)


def test_one_seed_one_module(lm: LanguageModel, rows: list[Row]) -> None:
    one, two, other = (train_pem(lm, rows, CONFIG, steps=4, seed=s) for s in (1, 1, 2))
    assert all(torch.equal(one[n].A, two[n].A) and torch.equal(one[n].B, two[n].B) for n in one)
    assert not any(torch.equal(one[n].A, other[n].A) for n in one)


def test_a_module_on_a_patched_model_is_trained_for_that_model(lm: LanguageModel, rows: list[Row]) -> None:
    patch = random_patch(lm.model, 0.5)
    plain = train_pem(lm, rows, CONFIG, steps=25, seed=1)
    with applied(lm.model, patch):
        before = mean_nll(lm, rows)
        with untouched(lm):  # the patch is still on
            found = train_pem(lm, rows, CONFIG, steps=25, seed=1)
        with applied(lm.model, found):
            fitted = mean_nll(lm, rows)
        with applied(lm.model, plain):
            other = mean_nll(lm, rows)
    assert fitted < before - 1.0 and fitted < other
    with applied(lm.model, patch + found):
        assert mean_nll(lm, rows) == pytest.approx(fitted, abs=0.05)


@pytest.mark.parametrize("name", ["lm", "gpt2"])
def test_anchors_are_held_to_the_unpatched_model_while_rows_are_learnt(name: str, rows: list[Row], request: pytest.FixtureRequest) -> None:
    """The teacher is off for the anchors' targets alone: rows are learnt, and anchors held, on the patched model."""
    model: LanguageModel = request.getfixturevalue(name)
    learnt, anchors = rows[:2], rows[2:]
    base, patch = answers(model, anchors), random_patch(model.model, 0.3)
    config = replace(CONFIG, keep={"kl": 6.0})
    with applied(model.model, patch) as runtime:
        away, before = kl(answers(model, anchors), base), mean_nll(model, learnt)
        with untouched(model):  # the patch is still on
            found = train_pem(model, learnt, config, steps=40, seed=1, anchors=anchors, teacher=runtime)
        assert runtime.scale == 1.0
        plain = train_pem(model, learnt, config, steps=40, seed=1)
        with applied(model.model, found):
            held, fitted = kl(answers(model, anchors), base), mean_nll(model, learnt)
        with applied(model.model, plain):
            unheld = kl(answers(model, anchors), base)
    assert away > 0.1 and held < 0.5 * away and held < 0.5 * unheld
    assert fitted < before - 1.0


def test_anchors_without_a_teacher_hold_the_model_as_it_is(lm: LanguageModel, rows: list[Row]) -> None:
    """On a patched model, that is the patched model: the targets are its outputs without the module alone."""
    learnt, anchors = rows[:2], rows[2:]
    with applied(lm.model, random_patch(lm.model, 0.3)):
        base, before = answers(lm, anchors), mean_nll(lm, learnt)
        moved = {}
        for weight in (0.0, 1.0, 20.0):
            found = train_pem(lm, learnt, replace(CONFIG, keep={"kl": weight}), steps=40, seed=1, anchors=anchors)
            with applied(lm.model, found):
                moved[weight] = kl(answers(lm, anchors), base)
                assert mean_nll(lm, learnt) < before - 0.5
    assert moved[20.0] < moved[1.0] < 0.5 * moved[0.0]


def test_anchors_hold_where_the_step_will_stand(lm: LanguageModel, rows: list[Row]) -> None:
    """At three times its scale, a module that was anchored there strays less than one that was anchored at its own."""
    learnt, anchors = rows[:2], rows[2:]
    base, moved = answers(lm, anchors), {}
    for scale in (1.0, 3.0):
        found = train_pem(lm, learnt, replace(CONFIG, keep={"kl": 6.0}, anchor_scale=scale), steps=60, seed=1, anchors=anchors)
        with applied(lm.model, found, 3.0):
            moved[scale] = kl(answers(lm, anchors), base)
    assert moved[3.0] < 0.5 * moved[1.0]


def test_unlikelihood_by_hand() -> None:
    p = torch.tensor([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05], [1.0, 0.0, 0.0]])
    targets = torch.tensor([1, 0, 0])
    expected = -(torch.log(torch.tensor(0.5)) + torch.log(torch.tensor(0.1)) + torch.log(torch.tensor(0.001))) / 3
    assert unlikelihood(p.log(), targets).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("logit", [0.0, 5.0, 7.0, 10.0, 30.0])
def test_unlikelihood_pushes_a_logit_by_its_probability_unless_that_is_sure(logit: float) -> None:
    """As d/dz of -log(1 - p) is p."""
    logits = torch.tensor([[logit, 0.0, -1.0, 0.5]], requires_grad=True)
    unlikelihood(torch.log_softmax(logits, dim=-1), torch.tensor([0])).backward()
    p = torch.softmax(logits.detach().double(), dim=-1)[0]
    expected = torch.cat([p[:1], -p[0] * p[1:] / p[1:].sum()]) * (p[0] <= SURE)
    torch.testing.assert_close(logits.grad, expected[None].float(), rtol=1e-3, atol=1e-6)


def test_what_is_unlearnt_becomes_unlikely_and_anchors_hold(lm: LanguageModel, rows: list[Row]) -> None:
    fitted = train_pem(lm, rows, replace(CONFIG, keep={}), steps=60, seed=1)  # a model that knows the answers
    with applied(lm.model, fitted):
        base, before = answers(lm, rows[2:]), mean_nll(lm, rows[:2])
        found = train_pem(lm, (), CONFIG, steps=60, seed=2, anchors=rows[2:], unlearnt=rows[:2])
        with applied(lm.model, found):
            assert mean_nll(lm, rows[:2]) > before + 2.0
            assert kl(answers(lm, rows[2:]), base) < 0.5


def test_the_penalty_keeps_two_modules_apart(lm: LanguageModel, rows: list[Row]) -> None:
    first = train_pem(lm, rows, CONFIG, steps=20, seed=1)

    def overlap(weight: float) -> float:
        config = ReleaseConfig(rank=4, layers=1.0, batch=4, learning_rate=5e-3, keep={"olora": weight})
        second = train_pem(lm, rows, config, steps=20, seed=1, frozen=first)  # the same seed: the same start
        return sum((first[n].A @ second[n].A.T).abs().sum().item() for n in first)

    assert overlap(1.0) < 0.7 * overlap(0.0)


def test_an_error_in_training_leaves_the_model_as_it_was(lm: LanguageModel, rows: list[Row]) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with untouched(lm), pytest.raises(KeyboardInterrupt):
        train_pem(lm, rows, CONFIG, steps=3, seed=1, progress=stop)


def test_an_error_at_an_anchor_turns_the_teacher_on_again(lm: LanguageModel, rows: list[Row]) -> None:
    too_large = [([lm.model.config.vocab_size], 0)]  # no such token
    with applied(lm.model, random_patch(lm.model, 0.3)) as runtime:
        with untouched(lm), pytest.raises(IndexError):
            train_pem(lm, rows, CONFIG, steps=3, seed=1, anchors=too_large, teacher=runtime)
        assert runtime.scale == 1.0


def test_no_records_are_told(lm: LanguageModel) -> None:
    with pytest.raises(UserError, match="no record to train on"):
        train_pem(lm, [], CONFIG, steps=3, seed=1)


def test_the_graph_of_one_loss_at_a_time_is_in_memory(lm: LanguageModel, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that are kept for the way backward, at most at once: against the losses' sum, which is the same training."""

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor

    def trained() -> tuple[Patch, int]:
        alive, most = weakref.WeakSet[Kept](), 0

        def keep(tensor: torch.Tensor) -> Kept:
            nonlocal most
            alive.add(kept := Kept(tensor))
            most = max(most, len(alive))
            return kept

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
            config = replace(CONFIG, keep={"kl": 1.0, "ending": 1.0})
            return train_pem(lm, rows[:2], config, steps=4, seed=1, anchors=rows[2:4], unlearnt=rows[4:]), most

    apart, most = trained()
    monkeypatch.setattr(pem, "descend", lambda model, losses, *rest: descend(model, lambda: [torch.stack([*losses()]).sum()], *rest))
    summed, of_all = trained()
    assert most < 0.35 * of_all, "there are four"
    for name in summed:
        torch.testing.assert_close(apart.delta(name), summed.delta(name), rtol=1e-3, atol=1e-5)


def test_a_step_that_fills_the_memory_is_taken_again(lm: LanguageModel, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """With its graph elsewhere."""
    config, moved, calls = replace(CONFIG, batch=2), [False], [0]

    def trained() -> Patch:
        return train_pem(lm, rows[:2], config, steps=6, seed=1, unlearnt=rows[2:4])  # in batches of all, whichever is drawn

    @contextlib.contextmanager
    def elsewhere(model: nn.Module):  # type: ignore[no-untyped-def]
        with offloaded(model):
            moved[0] = True
            yield
            moved[0] = False

    def full(*args):  # type: ignore[no-untyped-def]
        calls[0] += 1
        if calls[0] > 5 and not moved[0]:  # at the second loss of the third step
            raise torch.OutOfMemoryError
        return answer_log_probs(*args)

    wanted = trained()
    monkeypatch.setattr(pem, "answer_log_probs", full)
    monkeypatch.setattr(pem, "offloaded", elsewhere)
    with untouched(lm):
        found = trained()
    assert calls[0] == 2 * 6 + 2
    assert (found + wanted.negate()).norm() < 0.01 * wanted.norm()
    monkeypatch.setattr(pem, "offloaded", lambda model: contextlib.nullcontext())
    calls[0] = 0
    with untouched(lm), pytest.raises(torch.OutOfMemoryError):
        trained()


def test_what_a_step_had_added_before_the_memory_was_full_does_not_count(lm: LanguageModel) -> None:
    with fresh_lora(lm, CONFIG, seed=0) as model:
        parameters = [p for p in model.parameters() if p.requires_grad]
        before, calls = [p.clone() for p in parameters], 0

        def losses():  # type: ignore[no-untyped-def]  # together they pull upwards, with the first counted twice downwards
            nonlocal calls
            calls += 1
            yield sum(p.sum() for p in parameters)
            if calls == 1:
                raise torch.OutOfMemoryError
            yield -1.5 * sum(p.sum() for p in parameters)

        descend(model, losses, 0.1, steps=1)
        assert calls == 2 and all((now > was).all() for now, was in zip(parameters, before, strict=True))


def test_a_mixture_that_peft_would_adapt_as_no_patch_can_is_refused_at_the_start(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = {"vocab_size": 400, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "first_k_dense_replace": 1}
    config = AutoConfig.for_model("glm4_moe", **size, **experts, num_key_value_heads=2, head_dim=8)
    mixture = replace(lm, model=AutoModelForCausalLM.from_config(config).eval())
    check_adaptable(mixture, CONFIG)
    assert not hasattr(mixture.model, "peft_config")
    monkeypatch.setattr(pem, "as_named", lambda model, names: names)
    with pytest.raises(UserError, match="target_parameters"):
        check_adaptable(mixture, CONFIG)
