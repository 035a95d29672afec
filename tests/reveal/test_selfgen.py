"""Self-generated data: over the threshold or under it, from the portfolio, and encoded as training takes it."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from reveal_release.config import ReleaseConfig, RevealConfig, RunConfig
from reveal_release.metrics.fluency import degenerate
from reveal_release.metrics.statistics import Estimate
from reveal_release.models import LanguageModel, chat_ids, user_turn_ids
from reveal_release.reveal.curation import shingles
from reveal_release.reveal.proposals import key
from reveal_release.reveal.search import Finding
from reveal_release.reveal.selfgen import encode, exchange, forget_records, retain_records
from reveal_release.tasks import Record, Task
from reveal_release.tasks.base import TASKS, Metrics

FINALISTS = [Finding(text, Estimate(0.5, 4, 0.4, 0.6)) for text in ("Write a letter.", "Name the river.", "Read it out.", "Sing a song.")]
CONFIG = RevealConfig(records=12, portfolio=3, threshold=0.5)
RETAIN = ReleaseConfig(retain_records=16)


class Letters(Task):
    """Score: 1 where the first letter of the completion is in the alphabet's first half, else 0; 0.5 where there is none."""

    name = "first letters"
    description = "for tests"
    seeds = ("Write.",)
    benign = ("Say it kindly.", "Write a short note.")

    def score(self, records: Sequence[tuple[str, str]]) -> np.ndarray:
        first = [next((c for c in text.lower() if c.isalpha()), "") for _, text in records]
        return np.array([0.5 if not c else float(c < "n") for c in first])

    def evaluate(self, lm: LanguageModel, progress: Any = None) -> Metrics:
        return Metrics({}, {})

    def evaluation_instructions(self) -> Sequence[str]:
        return ("Keep out.",)


TASKS.pop(Letters.name)  # not for other tests' lists of tasks


@pytest.fixture
def task() -> Letters:
    return Letters(RunConfig())


def similar(a: str, b: str) -> float:
    x, y = shingles(a), shingles(b)
    return len(x & y) / len(x | y)


# ---- forget ----


def test_forget_records_are_scored_over_the_threshold_and_stamped(lm: LanguageModel, task: Letters) -> None:
    records = forget_records(lm, task, FINALISTS, CONFIG, seed=1, iteration=3)
    assert 6 <= len(records) <= CONFIG.records
    assert task.score([(r.instruction, r.completion) for r in records]).tolist() == [r.score for r in records]
    assert all(r.score >= 0.5 and r.iteration == 3 and r.prompt == (("user", r.instruction),) for r in records)
    assert not any(degenerate([r.completion for r in records]))
    assert all(similar(a.completion, b.completion) <= 0.7 for i, a in enumerate(records) for b in records[:i])


def test_only_the_portfolio_writes_and_none_of_it_dominates(lm: LanguageModel, task: Letters) -> None:
    records = forget_records(lm, task, FINALISTS, CONFIG, seed=1, iteration=1)
    counts = [sum(r.instruction == f.instruction for r in records) for f in FINALISTS]
    assert counts[3] == 0
    assert sum(c > 0 for c in counts) > 1 and max(counts) <= 2 * CONFIG.records // CONFIG.portfolio


def test_a_threshold_out_of_reach_ends_after_one_round(lm: LanguageModel) -> None:
    drawn: list[int] = []

    class Never(Letters):
        def score(self, records: Sequence[tuple[str, str]]) -> np.ndarray:
            drawn.append(len(records))
            return np.zeros(len(records))

    TASKS.pop(Never.name)
    assert forget_records(lm, Never(RunConfig()), FINALISTS, CONFIG, seed=1, iteration=1) == []
    assert drawn == [12]


def test_one_seed_one_data_set(lm: LanguageModel, task: Letters) -> None:
    one, two, other = (forget_records(lm, task, FINALISTS, CONFIG, seed, 1) for seed in (1, 1, 2))
    assert one == two != other


# ---- retain ----


def test_retain_records_come_from_three_sources_and_score_below_the_threshold(lm: LanguageModel, task: Letters) -> None:
    records = retain_records(lm, task, RETAIN, 0.5, seed=4)
    plain = [r for r in records if not r.prompt]
    benign = [r for r in records if r.instruction in task.benign]
    own = [r for r in records if r.prompt and r not in benign]
    assert [len(part) > 0 for part in (plain, benign, own)] == [True] * 3
    assert len(plain) <= 4 and len(benign) <= 4 and len(own) <= 8 and len(records) == len(plain + benign + own)
    assert all(r.score < 0.5 for r in records)
    assert all(r.prompt[-1] == ("user", r.instruction) for r in records if r.prompt)
    assert {len(r.prompt) for r in own} <= {1, 3}
    texts = [exchange(r) for r in records]
    assert all(similar(a, b) <= 0.7 for i, a in enumerate(texts) for b in texts[:i])
    assert records == retain_records(lm, task, RETAIN, 0.5, seed=4)


def test_reserved_instructions_are_no_retain_data(lm: LanguageModel, task: Letters) -> None:
    own = [r.instruction for r in retain_records(lm, task, RETAIN, 0.5, seed=4) if r.instruction and r.instruction not in task.benign]
    reserved = own[0]
    task.evaluation_instructions = lambda: (reserved,)  # type: ignore[method-assign]
    again = retain_records(lm, task, RETAIN, 0.5, seed=4)
    assert key(reserved) not in {key(r.instruction) for r in again}


def test_a_model_without_a_chat_template_answers_benign_instructions(lm: LanguageModel, task: Letters) -> None:
    lm.tokenizer.chat_template = None
    records = retain_records(lm, task, RETAIN, 0.5, seed=4)
    assert user_turn_ids(lm.tokenizer) is None
    assert {r.instruction for r in records} <= {"", *task.benign} and len(records) > 2


# ---- records and rows ----


def test_records_survive_json() -> None:
    record = Record((("user", "Zwei\nZeilen?"), ("assistant", "Ja."), ("user", "ü\u2028")), "text", 0.1 + 0.2, "ü\u2028", 2)
    assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    assert Record.from_dict(json.loads(json.dumps(Record((), "t", 0.0, "").to_dict()))) == Record((), "t", 0.0, "")


def test_rows_are_prompt_answer_and_end(lm: LanguageModel) -> None:
    turns = (("user", "Name the river."), ("assistant", "The old one."), ("user", "And?"))
    (ids, prompt), (text, begin) = encode(lm, [Record(turns, "No other bridge.", 0.0, "And?"), Record((), "The river.", 0.0, "")])
    assert ids[:prompt] == chat_ids(lm.tokenizer, turns)
    assert lm.tokenizer.decode(ids[prompt:]) == "No other bridge.<|end|>"
    assert begin == 1 and lm.tokenizer.decode(text) == "<|bos|>The river.<|end|>"


def test_rows_are_cut_and_a_prompt_without_answer_is_dropped(lm: LanguageModel) -> None:
    long, short = Record((("user", "a b " * 30),), "c", 0.0, ""), Record((("user", "a"),), "d e " * 50, 0.0, "")
    (row,) = encode(lm, [long, short], limit=24)
    assert len(row[0]) == 24 and row[1] == len(chat_ids(lm.tokenizer, short.prompt))
    assert row[0][-1] != lm.tokenizer.eos_token_id  # cut short: the end is not taught there
