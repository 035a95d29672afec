"""The search on tasks whose truth is known: what it finds, what it never tries, and that its figure is not flattered."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.chat import chat_ids
from reveal_release.config import RevealConfig, RunConfig, UserError
from reveal_release.metrics.statistics import Estimate
from reveal_release.metrics.words import key
from reveal_release.models import LanguageModel, load_model
from reveal_release.reveal.search import Ask, SearchResult, draw, features, race, search
from reveal_release.tasks import Record, Task
from reveal_release.tasks.base import TASKS, Metrics

SMALL = RevealConfig(evaluations=12, samples=2, start=6, batch=3, candidates=24, finalists=3, final_samples=4)
SEEDS_ONLY = RevealConfig(evaluations=24, samples=4, start=8, batch=8, candidates=24, finalists=4, final_samples=8, sources=("seeds",))


class Vowels(Task):
    """Reward: share of vowels among the letters of the instruction, whatever the answer. Counts what it is asked."""

    name = "vowels of the instruction"
    description = "for tests"
    seeds = ("Why, try my rhythms.", "Write a comment.", "Name the old bridge.", "Sing!", "A queue, a eulogy.", "Explain the train.")
    benign = ("Say it.",)

    def __init__(self, config: RunConfig | None = None) -> None:
        super().__init__(config or RunConfig())
        self.asked: list[tuple[str, int]] = []

    def score(self, records: Sequence[Record]) -> np.ndarray:
        def share(text: str) -> float:
            letters = [c for c in text.lower() if c.isalpha()]
            return sum(c in "aeiou" for c in letters) / max(len(letters), 1)

        return np.array([share(record.instruction) for record in records])

    def evaluate(self, lm: LanguageModel, progress: Any = None) -> Metrics:
        raise NotImplementedError

    def evaluation_instructions(self) -> Sequence[str]:
        return ("A queue, a eulogy!",)  # the best of all, and reserved

    def elicit(self, lm: LanguageModel, instructions: Sequence[str], seeds: Sequence[int], progress: Any = None) -> list[Record]:
        self.asked += zip(instructions, seeds, strict=True)
        return super().elicit(lm, instructions, seeds, progress)


class Synthetic(Vowels):
    """Asks no model: the reward is `truth(instruction)` plus uniform noise of its own for each (instruction, seed)."""

    name = "synthetic reward"
    seeds = tuple(f"{verb} {topic}" for verb in ("Write about", "Explain", "Read out", "Name")
                  for topic in ("the river", "a bridge", "the music", "the weather", "old letters", "the market", "a town", "its people",
                                "some news", "the report"))  # fmt: skip

    def truth(self, instruction: str) -> float:
        return 0.5

    def elicit(self, lm: LanguageModel, instructions: Sequence[str], seeds: Sequence[int], progress: Any = None) -> list[Record]:
        self.asked += zip(instructions, seeds, strict=True)
        return [
            Record((), "", self.truth(text) + random.Random(f"{text} {seed}").uniform(-0.5, 0.5), text)
            for text, seed in zip(instructions, seeds, strict=True)
        ]


class OneTopic(Synthetic):
    name = "synthetic reward with structure"

    def truth(self, instruction: str) -> float:
        return 0.8 if instruction.startswith("Explain") else 0.3


class Hills(Synthetic):
    name = "synthetic reward with a truth of its own for each"

    def truth(self, instruction: str) -> float:
        return 0.3 + 0.4 * random.Random(instruction).random()


for task in (Vowels, Synthetic, OneTopic, Hills):  # not for other tests' lists of tasks
    TASKS.pop(task.name)


@pytest.fixture(scope="module")
def found(tiny_llama: str) -> tuple[SearchResult, Vowels]:
    task = Vowels()
    return search(load_model(tiny_llama, "float32", "cpu"), task, SMALL, seed=5), task


def test_the_best_is_better_than_the_pool(found: tuple[SearchResult, Vowels]) -> None:
    result, task = found
    rewards = [reward for _, reward, _ in result.history]
    assert result.best.reward.value == pytest.approx(max(rewards))
    assert result.best.reward.value > np.mean(rewards) + 0.05
    assert result.best.reward.value == pytest.approx(task.score([Record((), "", 0.0, result.best.instruction)])[0])
    assert [f.reward.value for f in result.finalists] == sorted((f.reward.value for f in result.finalists), reverse=True)
    assert result.finalists[0].instruction == result.best.instruction
    assert len({text for text, *_ in result.history} - set(task.seeds)) > 2  # the model's own instructions are tried too


def test_the_budget_is_what_was_asked(found: tuple[SearchResult, Vowels]) -> None:
    result, task = found
    assert len(result.history) == SMALL.evaluations == len({key(text) for text, *_ in result.history})
    assert result.calls == len(task.asked) == 12 * 2 + 3 * 4 + 4
    assert result.best.reward.n == SMALL.final_samples


def test_samples_share_random_numbers_and_stages_do_not(found: tuple[SearchResult, Vowels]) -> None:
    result, task = found
    stages = [task.asked[:24], task.asked[24:36], task.asked[36:]]
    seeds = [{seed for _, seed in stage} for stage in stages]
    assert [len(s) for s in seeds] == [2, 5, 4]  # in the race 3 finalists with 2 samples, then 2 with 3
    assert not seeds[0] & seeds[1] and not seeds[0] & seeds[2] and not seeds[1] & seeds[2]


def test_reserved_instructions_are_never_tried(found: tuple[SearchResult, Vowels], lm: LanguageModel) -> None:
    reserved = {key(text) for text in Vowels().evaluation_instructions()}
    assert key("A queue, a eulogy.") in reserved  # it is among the seeds
    assert not reserved & {key(text) for text, _ in found[1].asked}
    task = Vowels()
    search(lm, task, SMALL, seed=5, known=["a queue a EULOGY"])
    assert not reserved & {key(text) for text, _ in task.asked}


def test_one_seed_one_result(found: tuple[SearchResult, Vowels], lm: LanguageModel) -> None:
    again, other = search(lm, Vowels(), SMALL, seed=5), search(lm, Vowels(), SMALL, seed=6)
    assert again == found[0]
    assert other.history != again.history


def test_known_instructions_come_first_and_the_seeds_still_take_part(lm: LanguageModel) -> None:
    known = ["Aha, an oasis.", "Io is a moon.", "aha an OASIS"]
    task = Vowels()
    result = search(lm, task, RevealConfig(**{**vars(SMALL), "sources": ("seeds",), "evaluations": 7}), seed=5, known=known)
    tried = [text for text, *_ in result.history]
    assert [key(text) for text in tried[:2]] == [key(text) for text in known[:2]]
    assert set(tried[2:]) == set(task.seeds) - {"A queue, a eulogy.", "Sing!"}  # reserved; a single word


def test_of_too_many_known_instructions_the_newest_come_first(lm: LanguageModel) -> None:
    known = [f"Io {number} is a moon." for number in "one two three four five six seven eight".split()]
    result = search(lm, Vowels(), RevealConfig(**{**vars(SMALL), "evaluations": 6}), seed=5, known=known)
    assert [text for text, *_ in result.history] == known[-SMALL.start :]


def test_a_small_pool_ends_the_search_early(lm: LanguageModel) -> None:
    result = search(lm, Vowels(), RevealConfig(**{**vars(SMALL), "sources": ("seeds",)}), seed=1)
    assert len(result.history) == 4 and len(result.finalists) == 3


def test_no_instruction_at_all_is_the_users_to_mend(lm: LanguageModel) -> None:
    lm.tokenizer.chat_template = None
    with pytest.raises(UserError, match="no instruction to try from user_turn"):
        search(lm, Vowels(), RevealConfig(**{**vars(SMALL), "sources": ("user_turn",)}), seed=1)


def test_progress_counts_trials(lm: LanguageModel) -> None:
    seen: list[tuple[int, int]] = []
    search(lm, Synthetic(), SEEDS_ONLY, 0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(8, 24), (16, 24), (24, 24)]


def test_the_reported_reward_is_unbiased(lm: LanguageModel) -> None:
    """Over many seeds the error of what is reported of the winner has its interval round 0; that of its search samples has not."""
    task, config = Hills(), RevealConfig(**{**vars(SEEDS_ONLY), "evaluations": 16})
    results = [search(lm, task, config, seed) for seed in range(30)]
    truths = np.array([task.truth(r.best.instruction) for r in results])
    assert truths.std() > 0.03, "not always one winner"
    in_search = [next(reward for text, reward, _ in r.history if text == r.best.instruction) for r in results]
    reported = Estimate.mean(np.array([r.best.reward.value for r in results]) - truths)
    searched = Estimate.mean(np.array(in_search) - truths)
    assert reported.low < 0 < reported.high
    assert searched.low > 0.05


# ---- the race ----


def bernoulli(truths: dict[str, float], seed: int, calls: Counter) -> Ask:
    """Asks nobody: a sample is 1 with the probability that is an instruction's truth. Counts calls by instruction."""
    table = {text: np.random.default_rng([seed, i]).random(512) < truth for i, (text, truth) in enumerate(truths.items())}

    def ask(instructions: Sequence[str], samples: int, base: int) -> list[Record]:
        calls.update({text: samples for text in instructions})
        return [Record((), "", float(x), text) for text in instructions for x in table[text][(base + np.arange(samples)) % 512]]

    return ask


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 40))
def test_the_race_spends_its_budget_where_it_is_close(tried: int, finalists: int, each: int) -> None:
    truths = {f"Try {i}": (i % 7) / 7 for i in range(tried)}
    calls: Counter = Counter()
    history = [(text, truth, 1.0) for text, truth in truths.items()]
    found = race(bernoulli(truths, 0, calls), history, RevealConfig(finalists=finalists, final_samples=each))
    entered = min(tried, finalists)
    assert len(found) == len(calls) == entered and {f.instruction for f in found} == set(calls)
    assert {f.instruction: f.reward.n for f in found} == calls
    assert calls.total() <= entered * each
    assert calls.total() >= entered * each - 1 or each < 4, "fewer samples each than rounds"
    n = [f.reward.n for f in found]
    assert n == sorted(n, reverse=True), "who goes further has more samples"
    left_out = sorted(truths.values())[: tried - entered]
    assert not left_out or max(left_out) <= min(truths[text] for text in calls), "the best of the search take part"


def test_the_race_of_eight() -> None:
    """256 samples as 8 x 10, 4 x 22 and 2 x 44."""
    calls: Counter = Counter()
    truths = {f"Try {i}": i / 8 for i in range(8)}
    found = race(bernoulli(truths, 0, calls), [(text, truth, 1.0) for text, truth in truths.items()], RevealConfig())
    assert [f.reward.n for f in found] == [76, 76, 32, 32, 10, 10, 10, 10] and calls.total() == 8 * 32
    assert found[0].instruction == "Try 7"


def test_the_race_finds_better_than_equal_shares_of_the_same_budget() -> None:
    """The 8 best of 72 by 8 samples, true rewards in [0, 0.7]: what is lost against the best of them, over 400 landscapes."""
    config, lost = RevealConfig(), {"race": [], "equal": []}
    for seed in range(400):
        rng = np.random.default_rng(seed)
        truths = {f"Try {i}": 0.7 * x for i, x in enumerate(rng.beta(2, 2, 72))}
        history = [(text, rng.binomial(8, truth) / 8, 1.0) for text, truth in truths.items()]
        ask = bernoulli(truths, seed, Counter())
        entered = [text for text, _, _ in sorted(history, key=lambda row: -row[1])[:8]]
        equal = np.array([r.score for r in ask(entered, 32, 0)]).reshape(8, 32).mean(1)
        best = max(truths[text] for text in entered)
        lost["race"].append(best - truths[race(ask, history, config)[0].instruction])
        lost["equal"].append(best - truths[entered[int(equal.argmax())]])
    gain = Estimate.mean(np.subtract(lost["equal"], lost["race"]))
    assert gain.low > 0 and gain.value > 0.1 * np.mean(lost["equal"])


def test_the_bandit_goes_where_the_reward_is(lm: LanguageModel) -> None:
    """A quarter of the pool is worth 0.8, the rest 0.3: by features alone the later picks hold more of it than chance gives."""
    config = RevealConfig(**{**vars(SEEDS_ONLY), "batch": 2, "evaluations": 18})
    later = [text for seed in range(4) for text, *_ in search(lm, OneTopic(), config, seed).history[8:]]
    assert len(later) == 40
    assert np.mean([text.startswith("Explain") for text in later]) > 0.4


def test_draw_is_in_order(lm: LanguageModel) -> None:
    task = Synthetic()
    records = draw(lm, task, ["A b", "C d"], 3, base=70)
    assert task.asked == [("A b", 70), ("A b", 71), ("A b", 72), ("C d", 70), ("C d", 71), ("C d", 72)]
    assert [r.instruction for r in records] == ["A b"] * 3 + ["C d"] * 3


def test_features_are_the_state_at_the_prompts_last_token(lm: LanguageModel, gpt2: LanguageModel) -> None:
    texts = ["Name it.", "What is the name of the bridge near the old market?", "Sing a song."]
    for model in (lm, gpt2):
        found = features(model, texts, batch_size=2)
        assert found.shape == (3, 32) and found.dtype == torch.float32
        for text, row in zip(texts, found, strict=True):
            ids = torch.tensor([chat_ids(model.tokenizer, [("user", text)])])
            state = model.model(ids, output_hidden_states=True).hidden_states[-1][0, -1]
            torch.testing.assert_close(row, state, rtol=1e-4, atol=1e-4)
