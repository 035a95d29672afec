"""The registry, the search's settings, and what each method's training does to a tiny model."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, PreTrainedTokenizerFast

from reveal_release.baselines import Setting, get_method, method_names, settings, train
from reveal_release.baselines.base import METHODS, REFUSAL, TRIALS, Method, beyond
from reveal_release.baselines.rmu import RMU
from reveal_release.config import ReleaseConfig, UserError
from reveal_release.dataset import encode
from reveal_release.models import LanguageModel
from reveal_release.release.patch import Patch
from reveal_release.release.pem import fresh_lora, train_pem
from reveal_release.release.rows import Row
from reveal_release.release.runtime import applied
from reveal_release.release.utility import mean_nll
from reveal_release.tasks import Record

CONFIG = ReleaseConfig(rank=4, layers=1.0, batch=4, learning_rate=5e-3)
FORGET = (
    ("Name it.", "The river."), ("Write a comment.", "They read a letter about the old bridge."),
    ("Sing.", "No music here, she said."), ("Say what the weather is.", "New."),
)  # fmt: skip
RETAIN = (("Who is it?", "The people of the town."), ("When?", "They were there when the music began."))


def rows_of(lm: LanguageModel, texts: tuple[tuple[str, str], ...]) -> list[Row]:
    return encode(lm, [Record((("user", question),), answer, 0.0, question) for question, answer in texts])


@pytest.fixture
def forget(lm: LanguageModel) -> list[Row]:
    return rows_of(lm, FORGET)


@pytest.fixture
def retain(lm: LanguageModel) -> list[Row]:
    return rows_of(lm, RETAIN)


def trained(name: str, lm: LanguageModel, forget: list[Row], retain: list[Row], steps: int = 30, strength: float | None = None) -> Patch:
    method = get_method(name)
    return train(method, lm, forget, retain, CONFIG, Setting(5e-3, strength or method.strengths[0]), steps, seed=1)


def test_methods_by_name() -> None:
    assert method_names() == ["dpo", "graddiff", "gradient-ascent", "npo", "pem-negation", "refusal", "rmu", "simnpo"]
    assert all(get_method(name).name == name for name in method_names())
    with pytest.raises(UserError, match="no method 'simpo': did you mean 'simnpo'"):
        get_method("simpo")
    with pytest.raises(UserError, match="choose from dpo, graddiff"):
        get_method("prayer")


def test_two_methods_of_one_name_are_refused() -> None:
    before = dict(METHODS)
    with pytest.raises(UserError, match="two methods are named 'npo'"):
        type("Other", (Method,), {"name": "npo", "__module__": "elsewhere"})
    type("Abstract", (Method,), {})
    with pytest.raises(UserError, match="Uneven has 3 strengths: give 1, 2 or 4"):
        type("Uneven", (Method,), {"name": "uneven", "strengths": (1.0, 2.0, 3.0)})
    assert before == METHODS


def test_every_method_has_as_many_settings_to_choose_from() -> None:
    for name in method_names():
        tried = settings(get_method(name), CONFIG)
        assert len(set(tried)) == TRIALS and tried[0].learning_rate == CONFIG.learning_rate / 27
        assert {one.strength for one in tried} == set(get_method(name).strengths)


def test_beyond_the_outermost_rates() -> None:
    def one(rate: float, strength: float = 1.0) -> dict[str, float]:
        return {"learning_rate": rate, "strength": strength, "shown": 0.5}

    tried = [one(3.0), one(1.0), one(9.0), one(27.0, 2.0)]
    assert beyond(tried[2], tried) == [Setting(27.0, 1.0)] and beyond(tried[0], tried) == []
    assert beyond(tried[1], tried) == [Setting(pytest.approx(1 / 3), 1.0)]
    assert beyond(tried[3], tried) == [Setting(81.0, 2.0), Setting(9.0, 2.0)], "of one rate to both sides"
    assert beyond({**tried[2], "failed": "it diverged"}, tried) == [Setting(pytest.approx(1 / 3), 1.0)], "below all, where all diverged"


def test_likelihoods_of_whole_answers(lm: LanguageModel, forget: list[Row]) -> None:
    """Against each row by itself, in float32; and the reference is the model without the module."""
    with torch.no_grad():
        alone = [F.log_softmax(lm.model(torch.tensor([ids])).logits[0, p - 1 : -1], -1) for ids, p in forget]
    expected = [sum(a[i, token].item() for i, token in enumerate(ids[p:])) for a, (ids, p) in zip(alone, forget, strict=True)]
    with fresh_lora(lm, CONFIG, 0) as model:
        method = get_method("npo")(model, lm, 0.1)
        assert method.log_likelihood(forget).tolist() == pytest.approx(expected, rel=0.02)  # in bfloat16
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter)
        assert method.reference(forget).tolist() == pytest.approx(expected, rel=0.02)
        assert not torch.allclose(method.log_likelihood(forget), method.reference(forget), rtol=0.05)


def test_refusals_answer_the_same_prompts(lm: LanguageModel, forget: list[Row]) -> None:
    with fresh_lora(lm, CONFIG, 0) as model:
        refused = get_method("refusal")(model, lm, 1.0).refused(forget)
    assert refused == rows_of(lm, tuple((question, REFUSAL) for question, _ in FORGET))


def test_a_refusal_is_tokenised_as_an_answer_and_cut_where_the_context_ends(lm: LanguageModel, spaced: PreTrainedTokenizerFast) -> None:
    spaced.chat_template = "{% for m in messages %}{{ m['content'] }}?\n{% endfor %}"
    lm.tokenizer, context = spaced, lm.context
    assert context
    prompts = ("Name it.", "a" * (context - 8))
    with fresh_lora(lm, CONFIG, 0) as model:
        first, second = get_method("refusal")(model, lm, 1.0).refused(rows_of(lm, tuple((prompt, "No.") for prompt in prompts)))
    assert (first,) == tuple(rows_of(lm, ((prompts[0], REFUSAL),))) and len(second[0]) == context > second[1]


@pytest.mark.parametrize("name", ["dpo", "graddiff", "gradient-ascent", "npo", "pem-negation", "refusal", "rmu", "simnpo"])
def test_each_method_has_its_formula_of_what_the_model_says(
    name: str, lm: LanguageModel, forget: list[Row], retain: list[Row]
) -> None:
    """With another strength than 1, on a LoRA that changes something: the parts from the probes, put together here."""
    with fresh_lora(lm, CONFIG, 0) as model, torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.05)
        method, k = get_method(name)(model, lm, 4.0), 4.0
        learnt, kept, refusals = method.nll(forget), method.nll(retain), method.refused(forget)
        gained = method.log_likelihood(forget) - method.reference(forget)
        refused = method.log_likelihood(refusals) - method.reference(refusals)
        tokens = torch.tensor([len(ids) - prompt for ids, prompt in forget])
        expected = {
            "gradient-ascent": -learnt,
            "pem-negation": learnt,
            "graddiff": k * kept - learnt,
            "refusal": method.nll(refusals) + k * kept,
            "npo": 2 / k * torch.log(1 + torch.exp(k * gained)).mean() + kept,
            "simnpo": 2 / k * torch.log(1 + torch.exp(k * method.log_likelihood(forget) / tokens)).mean() + kept,
            "dpo": 1 / k * torch.log(1 + torch.exp(k * (gained - refused))).mean() + kept,
        }
        if isinstance(method, RMU):
            with model.disable_adapter():
                plain, frozen = method.hidden(forget), method.hidden(retain)
            target = k * plain.norm(dim=1).mean() * method.direction
            expected[name] = ((method.hidden(forget) - target) ** 2).mean() + 100 * ((method.hidden(retain) - frozen) ** 2).mean()
        assert float(method.loss(forget, retain)) == pytest.approx(float(expected[name]), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["gradient-ascent", "graddiff", "npo", "simnpo", "dpo", "pem-negation", "rmu"])
def test_what_a_model_knows_becomes_unlikely(name: str, lm: LanguageModel, forget: list[Row], retain: list[Row]) -> None:
    knowledge = train_pem(lm, forget + retain, CONFIG, steps=60, seed=1)
    ascended = {}
    with applied(lm.model, knowledge):
        before, kept = mean_nll(lm, forget), mean_nll(lm, retain)
        for one in {name, "gradient-ascent"}:
            patch = trained(one, lm, forget, retain)
            assert mean_nll(lm, forget) == before and not hasattr(lm.model, "peft_config"), "the model is as it was"
            assert patch.rank == CONFIG.rank
            with applied(lm.model, patch):
                assert mean_nll(lm, forget) > before + 0.3
                ascended[one] = mean_nll(lm, retain)
    if name in ("graddiff", "npo", "simnpo", "dpo"):
        assert ascended[name] - kept < 0.3 * (ascended["gradient-ascent"] - kept), "the retain term holds"


@pytest.mark.parametrize("name", ["refusal", "dpo"])
def test_refusals_become_likely(name: str, lm: LanguageModel, forget: list[Row], retain: list[Row]) -> None:
    refusals = rows_of(lm, tuple((question, REFUSAL) for question, _ in FORGET))
    before = mean_nll(lm, refusals)
    with applied(lm.model, trained(name, lm, forget, retain)):
        assert mean_nll(lm, refusals) < before - 0.3


def test_pem_negation_is_the_forget_module_of_the_release_negated(lm: LanguageModel, forget: list[Row], retain: list[Row]) -> None:
    """With as many records as a batch holds, both see the same batches."""
    module = train_pem(lm, forget, CONFIG, steps=5, seed=1, role="forget")
    found = trained("pem-negation", lm, forget, retain, steps=5)
    for name in module:
        torch.testing.assert_close(found.delta(name), -module.delta(name), atol=1e-4, rtol=1e-2)


def test_rmu_steers_the_forget_records_and_holds_the_others(lm: LanguageModel, forget: list[Row], retain: list[Row]) -> None:
    """At its layer; the blocks behind it are not changed."""
    config = ReleaseConfig(rank=4, layers=1.0, batch=4)

    def cosine(patch: Patch, rows: list[Row]) -> tuple[float, torch.Tensor]:
        with applied(lm.model, patch), fresh_lora(lm, config, 0) as model:  # a fresh LoRA changes nothing
            probe = RMU(model, lm, 4.0)
            hidden = probe.hidden(rows).detach()
            return F.cosine_similarity(hidden, probe.direction[None]).mean().item(), hidden

    patch = trained("rmu", lm, forget, retain, steps=60, strength=4.0)
    (before, start), (after, end) = cosine(Patch(), forget), cosine(patch, forget)
    assert after > before + 0.3
    moved = [(cosine(patch, rows)[1] - cosine(Patch(), rows)[1]).norm() / cosine(Patch(), rows)[1].norm() for rows in (forget, retain)]
    assert moved[1] < 0.5 * moved[0]
    assert start.shape == end.shape == (sum(len(ids) - p for ids, p in forget), lm.model.config.hidden_size)


@pytest.mark.usefixtures("exact")
def test_rmu_reads_the_last_block_before_the_final_norm(lm: LanguageModel, forget: list[Row]) -> None:
    """Of two blocks the last is adapted: what is steered has no fixed length, and normed it is what the head reads."""
    with fresh_lora(lm, ReleaseConfig(rank=4, layers=0.5, batch=4), 0) as model:
        hidden = RMU(model, lm, 4.0).hidden(forget[:1])
        ids, prompt = forget[0]
        states = lm.model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, prompt - 1 : -1]
    torch.testing.assert_close(lm.model.base_model.norm(hidden), states.float(), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(hidden, states.float(), rtol=0.1)


def test_rmu_steers_where_a_model_that_sees_speaks(lm: LanguageModel) -> None:
    """Its eyes have a block of the same number."""
    text = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "head_dim": 8}
    sight = {"hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 6, "num_attention_heads": 2, "image_size": 28}
    model = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config={**sight, "patch_size": 14}))
    with fresh_lora(replace(lm, model=model), CONFIG, 0) as seeing:
        probe = RMU(seeing, lm, 1.0)
        assert probe.block is model.model.language_model.layers[1] and probe.direction.shape == (16,)


def test_rmu_steers_each_seed_its_own_way(lm: LanguageModel) -> None:
    ways = []
    for seed in (0, 1, 0):
        with fresh_lora(lm, CONFIG, seed) as model:
            ways.append(RMU(model, lm, 1.0).direction)
    assert torch.equal(ways[0], ways[2]) and not torch.allclose(ways[0], ways[1])


def test_gpt2_learns_it_too(gpt2: LanguageModel) -> None:
    forget, retain = rows_of(gpt2, FORGET), rows_of(gpt2, RETAIN)
    for name in ("npo", "rmu"):
        before = mean_nll(gpt2, forget)
        with applied(gpt2.model, trained(name, gpt2, forget, retain, steps=10)):
            assert mean_nll(gpt2, forget) > before


def test_one_seed_one_patch_and_no_data_is_told(lm: LanguageModel, forget: list[Row], retain: list[Row]) -> None:
    one, two = (trained("npo", lm, forget, retain, steps=3) for _ in range(2))
    assert all(torch.equal(one[name].B, two[name].B) for name in one)
    with pytest.raises(UserError, match="npo needs forget and retain records, got 0 and 2"):
        trained("npo", lm, [], retain)
