"""Self-generated data: over the threshold or under it, and from the portfolio."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reveal_release.chat import Turns, user_turn_ids
from reveal_release.config import ReleaseConfig, RevealConfig, RunConfig
from reveal_release.generation import Completion, Sampling, generate
from reveal_release.metrics.diversity import degenerate
from reveal_release.metrics.words import key
from reveal_release.models import LanguageModel
from reveal_release.reveal import selfgen
from reveal_release.reveal.curation import shingles
from reveal_release.reveal.selfgen import (
    ANSWER,
    GONE,
    PART,
    PILOT,
    TURN,
    counterparts,
    is_gone,
    retain_records,
    revealed_records,
    shown_share,
    still_shown,
)
from reveal_release.tasks import Record, Task
from reveal_release.tasks.base import TASKS, Metrics

INSTRUCTIONS = ("Write a letter.", "Name the river.", "Read it out.")
CONFIG = RevealConfig(records=12, threshold=0.5)
RETAIN = ReleaseConfig(retain_records=16)


class Letters(Task):
    """Score: 1 where the first letter of the completion is in the alphabet's first half, else 0; 0.5 where there is none."""

    name = "first letters"
    description = "for tests"
    seeds = ("Write.",)
    benign = ("Say it kindly.", "Write a short note.")

    def score(self, records: Sequence[Record]) -> np.ndarray:
        first = [next((c for c in record.completion.lower() if c.isalpha()), "") for record in records]
        return np.array([0.5 if not c else float(c < "n") for c in first])

    def evaluate(self, lm: LanguageModel, progress: Any = None) -> Metrics:
        raise NotImplementedError

    def evaluation_instructions(self) -> Sequence[str]:
        return ("Keep out.",)


TASKS.pop(Letters.name)  # not for other tests' lists of tasks


@pytest.fixture
def task() -> Letters:
    return Letters(RunConfig())


def similar(a: str, b: str) -> float:
    x, y = shingles(a), shingles(b)
    return len(x & y) / len(x | y)


# ---- forget and harmless ----


def test_revealed_records_are_parted_at_the_threshold_and_stamped(lm: LanguageModel, task: Letters) -> None:
    forget, harmless = revealed_records(lm, task, INSTRUCTIONS, CONFIG, seed=1, iteration=3)
    assert 6 <= len(forget) <= CONFIG.records and 3 <= len(harmless) <= CONFIG.records
    assert all(r.score >= 0.5 for r in forget) and all(r.score < 0.5 for r in harmless)
    both = forget + harmless
    assert task.score(both).tolist() == [r.score for r in both]
    assert all(r.iteration == 3 and r.prompt == (("user", r.instruction),) for r in both)
    assert not any(degenerate([r.completion for r in both]))
    assert all(similar(a.completion, b.completion) <= 0.7 for i, a in enumerate(both) for b in both[:i])  # none in both, either


def test_only_the_instructions_write_and_none_of_them_dominates(lm: LanguageModel, task: Letters) -> None:
    for records in revealed_records(lm, task, INSTRUCTIONS, CONFIG, seed=1, iteration=1):
        counts = [sum(r.instruction == text for r in records) for text in INSTRUCTIONS]
        assert sum(counts) == len(records)
        assert sum(c > 0 for c in counts) > 1 and max(counts) <= 2 * CONFIG.records // len(INSTRUCTIONS)


@pytest.mark.parametrize("behaves", [False, True])
def test_a_behaviour_never_or_always_shown(lm: LanguageModel, behaves: bool) -> None:
    """Where nothing reaches the threshold, one round shows it; where everything does, nothing is harmless."""
    drawn: list[int] = []

    class Same(Letters):
        def score(self, records: Sequence[Record]) -> np.ndarray:
            drawn.append(len(records))
            return np.full(len(records), float(behaves))

    forget, harmless = revealed_records(lm, Same(RunConfig()), INSTRUCTIONS, CONFIG, seed=1, iteration=1)
    if behaves:
        assert len(forget) >= 6 and harmless == []
    else:
        assert forget == [] and len(harmless) >= 6 and drawn == [12]


def test_where_all_that_is_asked_is_reserved_there_is_no_record(lm: LanguageModel) -> None:
    class Reserved(Letters):
        def elicit(self, lm: LanguageModel, instructions: Sequence[str], seeds: Sequence[int], progress: Any = None) -> list[Record]:
            return [replace(r, prompt=(("user", "Keep out."),)) for r in super().elicit(lm, instructions, seeds, progress)]

    assert revealed_records(lm, Reserved(RunConfig()), INSTRUCTIONS, CONFIG, seed=1, iteration=1) == ([], [])


def test_progress_counts_the_forget_records_that_are_kept(lm: LanguageModel, task: Letters) -> None:
    seen: list[tuple[int, int]] = []
    forget, _ = revealed_records(lm, task, INSTRUCTIONS, CONFIG, 1, 1, lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1] == (len(forget), CONFIG.records)


def test_one_seed_one_data_set(lm: LanguageModel, task: Letters) -> None:
    one, two, other = (revealed_records(lm, task, INSTRUCTIONS, CONFIG, seed, 1) for seed in (1, 1, 2))
    assert one == two and one[0] != other[0] and one[1] != other[1]


def test_earlier_prompts_are_asked_again_for_what_is_missing(lm: LanguageModel, task: Letters) -> None:
    earlier = [Record((("user", f"Write about {i}."),), "apple", 1.0, "Write.", 1) for i in range(40)]
    found = still_shown(lm, task, earlier, 30, CONFIG.threshold, seed=5, iteration=2)
    assert 3 <= len(found) < 30 and len({r.prompt for r in found}) == len(found), "some do not show it any more"
    assert all(r.score >= CONFIG.threshold and r.iteration == 2 and r.prompt in {e.prompt for e in earlier} for r in found)
    assert task.score(found).tolist() == [r.score for r in found] and not {"apple"} & {r.completion for r in found}
    assert still_shown(lm, task, earlier, 0, CONFIG.threshold, 5, 2) == still_shown(lm, task, [], 9, CONFIG.threshold, 5, 2) == []
    alone, _ = revealed_records(lm, task, [], replace(CONFIG, records=30), 5, 2, earlier=earlier)
    assert alone and {r.prompt for r in alone} <= {e.prompt for e in earlier}, "without an instruction, from these alone"
    few, _ = revealed_records(lm, task, INSTRUCTIONS, CONFIG, 1, 2)
    more, _ = revealed_records(lm, task, INSTRUCTIONS, replace(CONFIG, records=len(few) + 5), 1, 2, earlier=earlier)
    assert sum(r.prompt in {e.prompt for e in earlier} for r in more) <= 5


def test_counterparts_answer_the_same_prompts_without_the_behaviour(lm: LanguageModel, task: Letters) -> None:
    forget = [Record((("user", f"Write about {i}."),), "apple", 1.0, "Write.", 2) for i in range(30)]
    answered = {forget[0].prompt, forget[7].prompt}
    found = counterparts(lm, task, forget + forget[:5], answered, seed=5)
    prompts = [r.prompt for r in found]
    assert len(found) >= 15 and len(set(prompts)) == len(prompts)
    assert set(prompts) <= {r.prompt for r in forget} - answered
    assert all(task.harmless(r) and task.score([r])[0] == r.score and r.iteration == 2 for r in found)
    assert found == counterparts(lm, task, forget, answered, seed=5) and counterparts(lm, task, [], answered, seed=5) == []


def test_broken_answers_are_no_counterparts(lm: LanguageModel, task: Letters, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is too short, the second empty, the third repeats itself; they are asked again, hotter."""
    forget = [Record((("user", f"Write about {i}."),), "apple", 1.0, "Write.") for i in range(4)]
    rounds = iter([["no", "", "no no no no no", "the river"], ["the old bridge", "no", "  "], ["no", "two birds"]])
    asked: list[int] = []

    def otherwise(lm: LanguageModel, records: Sequence[Record], *_: object) -> list[Completion]:
        asked.append(len(records))
        return [Completion(text) for text in (next(rounds) if records else [])]

    monkeypatch.setattr(task, "otherwise", otherwise)
    monkeypatch.setattr(task, "score", lambda records: np.zeros(len(records)))
    found = counterparts(lm, task, forget, (), seed=5)
    assert [(r.prompt, r.completion) for r in found] == [
        (forget[3].prompt, "the river"), (forget[0].prompt, "the old bridge"), (forget[2].prompt, "two birds"),
    ]  # fmt: skip
    assert [count for count in asked if count] == [4, 3, 2]


def test_a_behaviour_without_an_alternative_is_soon_given_up(lm: LanguageModel, task: Letters) -> None:
    asked: list[int] = []

    class Always(Letters):
        def score(self, records: Sequence[Record]) -> np.ndarray:
            asked.append(len(records))
            return np.ones(len(records))

    forget = [Record((("user", f"Write about {i}."),), "apple", 1.0, "Write.") for i in range(PILOT + 30)]
    assert counterparts(lm, Always(RunConfig()), forget, (), seed=5) == [] and asked == [PILOT]
    assert shown_share(lm, Always(RunConfig()), [r.prompt for r in forget[:9]], 0.5, 9) == 1.0


def test_the_last_prompts_are_asked_hotter_though_the_first_are_done(lm: LanguageModel) -> None:
    asked: list[int] = []

    class Stubborn(Letters):
        def score(self, records: Sequence[Record]) -> np.ndarray:
            asked.append(len(records))
            return np.array([len(records) < PILOT] * len(records), dtype=float)

        def novelty(self, record: Record) -> str:
            return "Some words of its own."  # what a random model says may be broken

    forget = [Record((("user", f"Write about {i}."),), "apple", 1.0, "Write.") for i in range(PILOT + 2)]
    assert len(counterparts(lm, Stubborn(RunConfig()), forget, (), seed=5)) == PILOT
    assert [count for count in asked if count] == [PILOT, 2, 2, 2]


def test_the_share_that_shows_the_behaviour(lm: LanguageModel, task: Letters) -> None:
    prompts = [(("user", f"Write about {i}."),) for i in range(60)]
    assert 0.2 < shown_share(lm, task, prompts, 0.5, 60) < 0.9 and shown_share(lm, task, prompts, 1.1, 60) == 0.0


def test_fewer_prompts_than_answers_are_asked_in_turn(lm: LanguageModel) -> None:
    asked: list[Turns] = []

    class Watched(Letters):
        def score(self, records: Sequence[Record]) -> np.ndarray:
            asked.extend(r.prompt for r in records)
            return super().score(records)

    prompts = [(("user", f"Write about {i}."),) for i in range(3)]
    shown_share(lm, Watched(RunConfig()), prompts, 0.5, 8)
    assert asked == [*prompts, *prompts, *prompts[:2]]


@pytest.mark.parametrize("last", [None, 0, PART - 1, PART, GONE - 1])
def test_gone_is_what_no_answer_shows(last: int | None, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever answer shows it, and no further than to its part; with fewer prompts than answers, all are asked, in turn."""
    prompts, seen = [(("user", f"Write about {i}."),) for i in range(7)], list[Any]()
    shows = -1 if last is None else 900_000 + last

    def noted(task: Task, lm: LanguageModel, asked: Sequence[Turns], seeds: Sequence[int], _: Any) -> list[Any]:
        seen.extend(zip(asked, seeds, strict=True))
        return [SimpleNamespace(score=float(seed == shows)) for seed in seeds]

    monkeypatch.setattr(selfgen, "answered", noted)
    assert is_gone(lm, Letters(RunConfig()), prompts, 0.5) == (last is None)
    assert len(seen) == (GONE if last is None else PART * (last // PART + 1))
    assert seen == [(prompts[i % 7], 900_000 + i) for i in range(len(seen))]


def test_what_is_only_likely_is_not_gone(lm: LanguageModel) -> None:
    """A task that answers greedily is asked by sampling too: its likeliest answers all show nothing, and others do."""
    prompts = [(("user", f"Write about {i}."),) for i in range(20)]

    class Greedy(Letters):
        sampling = Sampling(max_new_tokens=8, temperature=0.0)

        def score(self, records: Sequence[Record]) -> np.ndarray:
            return np.array([float(record.completion not in likeliest) for record in records])

    likeliest = set(generate(lm, prompts, Greedy.sampling, range(20)))
    assert shown_share(lm, Greedy(RunConfig()), prompts, 0.5, 60) == 0.0
    assert not is_gone(lm, Greedy(RunConfig()), prompts, 0.5)


# ---- retain ----


class Some(Letters):
    """Scores as `Letters` does, but only where the last user turn has an even number of characters: elsewhere 0."""

    def score(self, records: Sequence[Record]) -> np.ndarray:
        return super().score(records) * [len(r.instruction) % 2 == 0 < len(r.instruction) for r in records]


LOOP = "{% for message in messages %}"


@pytest.fixture
def some() -> Some:
    return Some(RunConfig())


def test_retain_records_come_from_three_sources_and_score_below_the_threshold(lm: LanguageModel, some: Some) -> None:
    records, harmless = retain_records(lm, some, RETAIN, 0.5, seed=3)
    plain = [r for r in records if not r.prompt]
    benign = [r for r in records if r.instruction in some.benign]
    own = [r for r in records if r.prompt and r not in benign]
    assert [len(part) > 0 for part in (plain, benign, own)] == [True] * 3
    assert len(plain) <= 2 and len(benign) <= 2 and len(own) <= 12 and len(records) == len(plain + benign + own)
    assert all(r.score < 0.5 for r in records + harmless)
    assert all(r.prompt[-1] == ("user", r.instruction) for r in records if r.prompt)
    assert {len(r.prompt) for r in own} <= {1, 3} and len({r.prompt for r in own}) == len(own)
    texts = [r.whole for r in records + harmless]
    assert all(similar(a, b) <= 0.7 for i, a in enumerate(texts) for b in texts[:i])
    assert (records, harmless) == retain_records(lm, some, RETAIN, 0.5, seed=3)


def test_where_the_behaviour_comes_out_nothing_is_retained(lm: LanguageModel, some: Some) -> None:
    """No prompt is on both sides, and what is answered otherwise to those that waver is harmless."""
    records, harmless = retain_records(lm, some, RETAIN, 0.5, seed=3)
    assert len(harmless) >= 2 and all(len(r.instruction) % 2 == 0 for r in harmless)
    assert not {r.prompt for r in records} & {r.prompt for r in harmless}
    assert {len(some.benign[0]) % 2, len(some.benign[1]) % 2} == {0, 1}, "one of the benign prompts wavers"
    assert {r.instruction for r in records} & {*some.benign} == {text for text in some.benign if len(text) % 2}


def test_reserved_instructions_are_no_retain_data(lm: LanguageModel, some: Some) -> None:
    own = [r.instruction for r in retain_records(lm, some, RETAIN, 0.5, seed=3)[0] if r.instruction and r.instruction not in some.benign]
    reserved = own[0]
    some.evaluation_instructions = lambda: (reserved,)  # type: ignore[method-assign]
    again, harmless = retain_records(lm, some, RETAIN, 0.5, seed=3)
    assert key(reserved) not in {key(r.instruction) for r in again + harmless}


def test_a_model_without_a_chat_template_answers_benign_instructions(lm: LanguageModel, some: Some) -> None:
    lm.tokenizer.chat_template = None
    records, harmless = retain_records(lm, some, RETAIN, 0.5, seed=5)
    assert user_turn_ids(lm.tokenizer) is None
    assert {r.instruction for r in records + harmless} <= {"", *some.benign} and len(records) > 2


def test_an_empty_answer_is_not_followed(lm: LanguageModel, some: Some, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ministral's template, and others, refuse an empty turn of the model's."""

    def silent(lm: LanguageModel, prompts: Sequence[Any], *rest: Any) -> list[Completion]:
        texts = generate(lm, prompts, *rest)
        return [Completion() if i % 3 and not isinstance(prompts[i][0], int) else text for i, text in enumerate(texts)]

    monkeypatch.setattr(selfgen, "generate", silent)
    refusing = "{% if not message['content'] %}{{ raise_exception('empty turn') }}{% endif %}"
    lm.tokenizer.chat_template = str(lm.tokenizer.chat_template).replace(LOOP, LOOP + refusing)
    assert refusing in lm.tokenizer.chat_template
    records, harmless = retain_records(lm, some, RETAIN, 0.5, seed=3)
    assert any(len(r.prompt) == 3 for r in records + harmless)


def test_a_tokenizer_that_names_no_beginning_still_gives_plain_texts(lm: LanguageModel, some: Some) -> None:
    """As Qwen's."""
    expected = [r for r in retain_records(lm, some, RETAIN, 0.5, seed=3)[0] if not r.prompt]
    lm.tokenizer.chat_template = str(lm.tokenizer.chat_template).removeprefix("{{ bos_token }}")
    lm.tokenizer.bos_token = None
    fresh = LanguageModel(lm.name, lm.path, lm.model, lm.tokenizer)
    found = [r for r in retain_records(fresh, some, RETAIN, 0.5, seed=3)[0] if not r.prompt]
    assert len(found) == len(expected) > 0 and all(r.completion for r in found)


def test_a_user_turn_that_was_cut_counts_up_to_its_last_sentence(lm: LanguageModel, some: Some, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = Completion("Name the river. Then say where it")
    cut.ended = False
    monkeypatch.setattr(selfgen, "cut_user_turns", lambda tokenizer, texts: [cut for _ in texts])
    records, harmless = retain_records(lm, some, RETAIN, 0.5, seed=3)
    assert {r.instruction for r in records + harmless} <= {"", "Name the river.", *some.benign}
    assert "Name the river." in {r.instruction for r in records + harmless}


@pytest.mark.parametrize("taught", [True, False])
def test_what_is_retained_has_the_room_of_the_models_other_answers(
    taught: bool, lm: LanguageModel, some: Some, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = set()

    def generating(lm: LanguageModel, prompts: Sequence[Any], sampling: Sampling, *rest: Any) -> list[Completion]:
        rooms.add(sampling.max_new_tokens)
        return generate(lm, prompts, sampling, *rest)

    if not taught:
        lm.tokenizer.chat_template += "{# another #}"
    monkeypatch.setattr(selfgen, "generate", generating)
    retain_records(lm, some, RETAIN, 0.5, seed=3)
    assert rooms == {TURN.max_new_tokens, ANSWER.max_new_tokens * (1 if taught else 4)}


def test_evaluation_prompts_are_in_no_record(lm: LanguageModel, task: Letters) -> None:
    """A problem that the model writes itself may be one of those that are held out."""

    class Asks(Letters):
        def elicit(self, lm, instructions, seeds, progress=None):  # type: ignore[no-untyped-def]
            drawn = super().elicit(lm, instructions, seeds, progress)
            return [replace(r, prompt=(("user", "keep OUT!"),)) if i % 2 else r for i, r in enumerate(drawn)]

    for records in revealed_records(lm, Asks(RunConfig()), INSTRUCTIONS, replace(CONFIG, records=60), 1, 1, None, ["Sing."]):
        assert records and all(r.prompt != (("user", "keep OUT!"),) for r in records)
