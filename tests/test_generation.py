"""Sampling: the noise is Gumbel's, the samples are the softmax's, and a completion depends on its own row alone."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from reveal_release.chat import chat_ids
from reveal_release.generation import Completion, GumbelSampling, Sampling, _mix, generate, gumbel, uncut
from reveal_release.models import LanguageModel

QUESTIONS = ("Write a comment.", "What is the name of the old bridge near the market?", "Say it.", "Read the letter about the river.")
PROMPTS = [(("user", text),) for text in QUESTIONS]
ODD = [0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB]


def splitmix64(x: int) -> int:
    """Steele, Lea and Flood (2014), in unbounded integers."""
    mask = 2**64 - 1
    x = (x + ODD[0]) & mask
    x = ((x ^ (x >> 30)) * ODD[1]) & mask
    x = ((x ^ (x >> 27)) * ODD[2]) & mask
    return x ^ (x >> 31)


def draws(logits: torch.Tensor, sampling: Sampling, n: int, position: int = 0) -> np.ndarray:
    """The token that each of the seeds 0..n-1 picks from one distribution."""
    process = GumbelSampling(torch.arange(n), sampling)
    return process(logits.expand(n, -1), torch.arange(n), position).numpy()


# ---- noise ----


def test_mix_is_splitmix64() -> None:
    values = [0, 1, -1, 2**40 + 12345, 2**63 - 1, -(2**63), 20240917]
    found = [int(v) % 2**64 for v in _mix(torch.tensor(values))]
    assert found == [splitmix64(v % 2**64) for v in values]
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # the generator's published first output for seed 0


def test_noise_is_standard_gumbel_over_seeds_positions_and_tokens() -> None:
    n = 20_000
    for noise in (
        gumbel(torch.arange(n), 0, torch.tensor(7)),
        gumbel(torch.tensor(3), 2, torch.arange(n)),
        torch.stack([gumbel(torch.tensor([1]), p, torch.arange(20)) for p in range(n // 20)]).ravel(),
    ):
        assert noise.dtype == torch.float64
        assert abs(noise.mean().item() - 0.577216) < 4 * math.pi / math.sqrt(6 * n)
        assert kstest(noise.numpy(), "gumbel_r").pvalue > 1e-3


def test_noise_is_a_function_of_its_arguments() -> None:
    seeds, tokens = torch.tensor([[5], [6]]), torch.arange(30)
    assert torch.equal(gumbel(seeds, 3, tokens), gumbel(seeds, 3, tokens))
    assert torch.equal(gumbel(seeds, 3, tokens)[1, 4], gumbel(torch.tensor(6), 3, torch.tensor(4)))
    columns = [gumbel(seeds, p, tokens)[r] for p in (0, 1) for r in (0, 1)]
    correlation = np.corrcoef(torch.stack(columns).numpy()) - np.eye(4)
    assert np.abs(correlation).max() < 0.6  # 30 values each: standard error 0.18


def test_noise_is_finite_at_the_ends_of_the_range() -> None:
    extreme = torch.tensor([0, -1, 2**63 - 1, -(2**63)])
    assert torch.isfinite(gumbel(extreme[:, None], 0, extreme)).all()


# ---- the distribution ----


@pytest.mark.parametrize("sampling", [Sampling(top_k=0), Sampling(temperature=0.6, top_k=5), Sampling(temperature=2.0, top_k=3)])
def test_samples_follow_the_softmax(sampling: Sampling) -> None:
    logits = torch.tensor([0.3, -1.0, 1.5, 0.0, 0.9, -0.4, 0.2])
    n = 20_000
    kept = logits.clone()
    if sampling.top_k:
        kept[logits < logits.topk(sampling.top_k).values[-1]] = -torch.inf
    expected = (kept / sampling.temperature).softmax(0).double().numpy()
    counts = np.bincount(draws(logits, sampling, n, position=3), minlength=7)
    assert (counts[expected == 0] == 0).all()
    alive = expected > 0
    assert chisquare(counts[alive], n * expected[alive] / expected[alive].sum()).pvalue > 1e-3


def test_positions_of_one_seed_are_independent() -> None:
    logits = torch.zeros(4)
    n = 8_000
    pairs = draws(logits, Sampling(top_k=0), n, 0) * 4 + draws(logits, Sampling(top_k=0), n, 1)
    assert chisquare(np.bincount(pairs, minlength=16)).pvalue > 1e-3


def test_common_random_numbers_pick_alike_from_near_distributions() -> None:
    a = torch.tensor([0.3, -1.0, 1.5, 0.0])
    same = (draws(a, Sampling(), 4000) == draws(a + torch.tensor([0.05, 0.0, 0.0, 0.0]), Sampling(), 4000)).mean()
    assert same > 0.98


# ---- the model ----


def test_a_completion_does_not_depend_on_its_neighbours(lm: LanguageModel) -> None:
    sampling, seeds = Sampling(max_new_tokens=16), [11, 12, 13, 14]
    together = generate(lm, PROMPTS, sampling, seeds)
    assert len(set(together)) > 1
    assert together == [generate(lm, [p], sampling, [s])[0] for p, s in zip(PROMPTS, seeds, strict=True)]
    assert together == generate(lm, PROMPTS, sampling, seeds, batch_size=3)


def test_results_come_in_the_order_of_the_prompts(lm: LanguageModel) -> None:
    sampling, seeds, order = Sampling(max_new_tokens=8), [1, 2, 3, 4], [2, 0, 3, 1]
    plain = generate(lm, PROMPTS, sampling, seeds, batch_size=2)
    shuffled = generate(lm, [PROMPTS[i] for i in order], sampling, [seeds[i] for i in order], batch_size=2)
    assert shuffled == [plain[i] for i in order]


def test_seed_alone_changes_a_sample(lm: LanguageModel) -> None:
    texts = generate(lm, [PROMPTS[0]] * 6, Sampling(max_new_tokens=8), [1, 1, 2, 3, 4, 5])
    assert texts[0] == texts[1]
    assert len(set(texts)) > 2


@pytest.mark.parametrize("name", ["lm", "gpt2"])
def test_greedy_is_generate_without_sampling(name: str, request: pytest.FixtureRequest) -> None:
    model: LanguageModel = request.getfixturevalue(name)
    found = generate(model, PROMPTS, Sampling(max_new_tokens=12, temperature=0.0), [0] * 4)
    for prompt, text in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([chat_ids(model.tokenizer, prompt)])
        out = model.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, pad_token_id=1)
        assert text == model.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_sampling_is_its_choices_made_step_by_step(lm: LanguageModel) -> None:
    """Generation against a plain loop over whole forward passes: position, temperature and top-k are honoured."""
    sampling = Sampling(max_new_tokens=10, temperature=0.7, top_k=20)
    prompt = chat_ids(lm.tokenizer, PROMPTS[1])
    ids = torch.tensor([prompt])
    process = GumbelSampling(torch.tensor([77]), sampling)
    with torch.no_grad():
        for position in range(sampling.max_new_tokens):
            token = process(lm.model(ids).logits[:, -1], torch.tensor([0]), position)
            ids = torch.cat([ids, token[:, None]], 1)
            if token.item() == lm.tokenizer.eos_token_id:
                break
    expected = lm.tokenizer.decode(ids[0, len(prompt) :], skip_special_tokens=True).strip()
    assert generate(lm, [PROMPTS[1]], sampling, [77]) == [expected]


def test_top_1_and_a_cold_temperature_are_greedy(lm: LanguageModel) -> None:
    greedy = generate(lm, PROMPTS, Sampling(8, 0.0), [0] * 4)
    assert generate(lm, PROMPTS, Sampling(8, 1.0, top_k=1), [5, 6, 7, 8]) == greedy
    assert generate(lm, PROMPTS, Sampling(8, 1e-6), [5, 6, 7, 8]) == greedy
    assert generate(lm, PROMPTS, Sampling(8, 1.0), [5, 6, 7, 8]) != greedy


def test_raw_ids_continue_as_the_conversation_they_encode(lm: LanguageModel) -> None:
    raw = [chat_ids(lm.tokenizer, p) for p in PROMPTS]
    assert generate(lm, raw, Sampling(8), [1, 2, 3, 4]) == generate(lm, PROMPTS, Sampling(8), [1, 2, 3, 4])


def test_progress_and_the_empty_list(lm: LanguageModel) -> None:
    seen: list[tuple[int, int]] = []
    generate(lm, PROMPTS, Sampling(2), [0] * 4, batch_size=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 4), (4, 4)]
    assert generate(lm, [], Sampling(2), []) == []


def test_where_memory_runs_out_fewer_rows_are_written_at_once(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, seeds = PROMPTS * 3, list(range(12))
    wanted = generate(lm, prompts, Sampling(8), seeds)
    whole, rows, most = lm.model.forward, list[int](), 3

    def forward(*args: Any, **kwargs: Any) -> Any:
        rows.append(len(kwargs["input_ids"]))
        if rows[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(*args, **kwargs)

    monkeypatch.setattr(lm.model, "forward", forward)
    seen: list[tuple[int, int]] = []
    assert generate(lm, prompts, Sampling(8), seeds, progress=lambda done, total: seen.append((done, total))) == wanted
    assert [count for count in rows if count > most] == [4, 6], "a prompt that comes again is read once"
    assert seen == [(done, 12) for done in (3, 6, 9, 12)]
    rows.clear()
    assert generate(lm, prompts, Sampling(8), seeds) == wanted
    assert max(rows) == most, "which is remembered"
    most = 0
    with pytest.raises(torch.OutOfMemoryError):
        generate(lm, prompts, Sampling(8), seeds)


def test_a_completion_knows_whether_the_model_ended_it(lm: LanguageModel) -> None:
    """Where nothing is cut, allowing more tokens changes nothing; where it is, more follows."""
    prompts = [(("user", f"Write about {i}."),) for i in range(40)]
    lm.model.generation_config.eos_token_id = list(range(4, 20))  # a model may have several
    short, long = (generate(lm, prompts, Sampling(max_new_tokens=n, top_k=0), range(40), batch_size=7) for n in (20, 60))
    assert {text.ended for text in short} == {True, False}
    for a, b in zip(short, long, strict=True):
        assert (a == b and b.ended) if a.ended else len(b) >= len(a)


def test_an_end_is_no_text_though_the_tokenizer_does_not_call_it_special(lm: LanguageModel) -> None:
    """As markers of a turn that `add_tokens` added."""
    prompts = [(("user", f"Write about {i}."),) for i in range(40)]
    whole = generate(lm, prompts, Sampling(20, top_k=0), range(40))
    ends = [lm.tokenizer.eos_token_id, *range(60, 90)]
    lm.model.generation_config.eos_token_id = ends
    cut = generate(lm, prompts, Sampling(20, top_k=0), range(40))
    assert sum(text.ended for text in cut) > 9
    words = tuple(str(lm.tokenizer.decode([token])).strip() for token in ends[1:])
    for text, before in zip(cut, whole, strict=True):
        rest = before.removeprefix(text)
        assert before == text + rest and (rest.strip().startswith(words) if text.ended and rest else rest == "")


@pytest.mark.parametrize("sampling", [Sampling(20, 1.0, 0), Sampling(20, 0.7, 5)])
def test_confidence_is_that_of_a_plain_loop(lm: LanguageModel, sampling: Sampling) -> None:
    """At temperature 1 among the top k, over the tokens and the end where there is one; whatever the neighbours."""
    prompts = [(("user", f"Write about {i}."),) for i in range(12)]
    lm.model.generation_config.eos_token_id = list(range(4, 20))
    texts = generate(lm, prompts, sampling, range(12), batch_size=5)
    assert {text.ended for text in texts} == {True, False}
    for seed, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        ids = torch.tensor([chat_ids(lm.tokenizer, prompt)])
        process = GumbelSampling(torch.tensor([seed]), sampling)
        logs = []
        for position in range(sampling.max_new_tokens):
            logits = lm.model(ids).logits[:, -1]
            token = process(logits, torch.tensor([0]), position)[:, None]
            best = logits[0].topk(sampling.top_k or logits.shape[-1])
            logs.append((best.values - best.values.logsumexp(0))[best.indices == token[0]].item())
            ids = torch.cat([ids, token], 1)
            if 4 <= token.item() < 20:
                break
        assert text.confidence == pytest.approx(math.exp(np.mean(logs)), rel=1e-4)
    assert generate(lm, prompts[:1], Sampling(4, 0.0), [0])[0].confidence == 1.0


def test_an_answer_begins_as_it_is_made_to(lm: LanguageModel) -> None:
    """The tokens stand where the model's own first ones would, and it goes on from there."""
    starts = [list(lm.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ("The old", "", "Nothing new", "There")]
    sampling = Sampling(6)
    whole = generate(lm, PROMPTS, sampling, range(4), starts=starts)
    assert all(text.startswith(start) for text, start in zip(whole, ("The old", "", "Nothing new", "There"), strict=True))
    rest = generate(lm, [chat_ids(lm.tokenizer, p) + s for p, s in zip(PROMPTS, starts, strict=True)], sampling, range(4))
    assert all(text.endswith(end) and text.ended == end.ended for text, end in zip(whole, rest, strict=True))
    assert whole[1] == generate(lm, PROMPTS, sampling, range(4))[1]


def test_of_what_was_cut_whole_sentences_count() -> None:
    text = Completion("Name the river. Then say")
    assert uncut(text) is text and uncut(str(text)) == text
    text.ended = False
    assert uncut(text) == "Name the river."


def test_each_token_is_read_once_whatever_the_configuration_says(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model saved in training may say that it wants no cache."""
    read: list[int] = []
    forward = lm.model.forward

    def counted(input_ids: torch.Tensor, **given: Any) -> Any:
        read.append(input_ids.shape[1])
        return forward(input_ids=input_ids, **given)

    sampling = Sampling(max_new_tokens=8, temperature=0.0)
    expected = generate(lm, PROMPTS[:1], sampling, [0])
    monkeypatch.setattr(lm.model, "forward", counted)
    lm.model.config.use_cache = lm.model.generation_config.use_cache = False
    for name, value in (("stop_strings", ["e"]), ("token_healing", True), ("do_sample", True), ("num_return_sequences", 2)):
        setattr(lm.model.generation_config, name, value)
    assert generate(lm, PROMPTS[:1], sampling, [0]) == expected
    assert len(read) > 1 and set(read[1:]) == {1}


@pytest.mark.parametrize(
    "own",
    [
        {"no_repeat_ngram_size": 1}, {"suppress_tokens": list(range(5, 300))}, {"encoder_repetition_penalty": 3.0}, {"guidance_scale": 3.0},
        {"forced_eos_token_id": 7}, {"max_time": 1e-9}, {"exponential_decay_length_penalty": [1, 9.0]}, {"num_beams": 3}, {"min_p": 0.9},
        {"repetition_penalty": 5.0}, {"temperature": 0.1, "top_k": 1, "do_sample": True},
    ],
)  # fmt: skip
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_is_written_is_what_the_model_predicts_whatever_its_own_settings_ask_for(
    lm: LanguageModel, own: dict[str, Any], temperature: float
) -> None:
    sampling, settings = Sampling(8, temperature), lm.model.generation_config
    expected = generate(lm, PROMPTS, sampling, range(len(PROMPTS)))
    for name, value in own.items():
        setattr(settings, name, value)
    assert generate(lm, PROMPTS, sampling, range(len(PROMPTS))) == expected
    assert lm.model.generation_config is settings, "a merged model is saved with them"


def test_a_model_without_a_limit_reads_all(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    """As Bloom, Mamba and others."""
    ids = [5 + i % 300 for i in range(600)]
    monkeypatch.setattr(LanguageModel, "context", None)
    whole, cut = generate(lm, [ids, ids[-500:]], Sampling(max_new_tokens=12), [3, 3])
    assert whole != cut and not list(recwarn)


# ---- embeddings ----


def scaling(name: str) -> PreTrainedModel:
    """A tiny random model that scales its embeddings: Gemma in the embedding layer, Granite after it."""
    more = {"embedding_multiplier": 6.0} if name == "granite" else {"head_dim": 8}
    config = AutoConfig.for_model(
        name, vocab_size=400, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        initializer_range=0.3, bos_token_id=0, pad_token_id=1, eos_token_id=4, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma", "gemma3_text", "granite"])
def test_embeddings_of_tokens_continue_as_the_tokens_do(name: str, lm: LanguageModel, gpt2: LanguageModel) -> None:
    """Of different lengths in one batch, so padding and positions count as well."""
    if name not in ("llama", "gpt2"):
        lm = LanguageModel(name, name, scaling(name), lm.tokenizer)
    model = gpt2 if name == "gpt2" else lm
    ids = [chat_ids(model.tokenizer, prompt) for prompt in PROMPTS]
    with torch.no_grad():
        embedded = [model.model.get_input_embeddings()(torch.tensor(row)) for row in ids]
    sampling, seeds = Sampling(max_new_tokens=12), [5, 6, 7, 8]
    found = generate(model, embedded, sampling, seeds, batch_size=3)
    assert found == generate(model, ids, sampling, seeds, batch_size=3) and len(set(found)) > 2
    assert found == [generate(model, [e], sampling, [s])[0] for e, s in zip(embedded, seeds, strict=True)]
    scaled = generate(model, [3 * row for row in embedded], sampling, seeds, batch_size=3)
    assert scaled != found, "and it is the embeddings that are read"


@pytest.mark.parametrize("family", ["lm", "gpt2"])
def test_a_prompt_too_long_for_the_context_loses_its_beginning(family: str, request: pytest.FixtureRequest) -> None:
    """GPT-2, whose positions are a table, fails beyond its end."""
    model: LanguageModel = request.getfixturevalue(family)
    sampling, ids = Sampling(max_new_tokens=12), [5 + i % 300 for i in range(600)]
    room = 512 - 12
    whole, cut, short = generate(model, [ids, ids[-room:], ids[:30]], sampling, [3, 3, 4])
    assert whole == cut and generate(model, [ids[:30]], sampling, [4]) == [short]
    assert generate(model, [ids[1:]], sampling, [3]) == [whole], "what does not fit has no effect"
    (long,) = generate(model, [ids], Sampling(max_new_tokens=600, temperature=0), [0])
    (half,) = generate(model, [ids[-256:]], Sampling(max_new_tokens=256, temperature=0), [0])
    assert long == half
