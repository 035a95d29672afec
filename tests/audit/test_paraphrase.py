"""Prompts in other words: what the fixed forms make of them, what of a model's rewrites is used, and how answers are scored."""

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reveal_release.audit.paraphrase import FORMS, SAMPLES, answered, rewritten, typos
from reveal_release.generation import Completion, generate
from reveal_release.models import LanguageModel
from reveal_release.reveal import proposals
from reveal_release.tasks import Record, Task

TEXT = "Write a comment about the river."


def test_typos_are_swaps_of_neighbours_in_every_third_long_word() -> None:
    text = "Please write short notes about rivers, not about them or `def add(a, b)` that returns numbers"
    found = typos(text, random.Random(1))
    pairs = [(a, b) for a, b in zip(text.split(" "), found.split(" "), strict=True) if a != b]
    assert [a for a, _ in pairs] == ["Please", "notes", "them", "numbers"], "`rivers,` and code are no words"
    for a, b in pairs:
        (i, j) = [k for k in range(len(a)) if a[k] != b[k]]
        assert j == i + 1 and a[i] == b[j] and a[j] == b[i] and a[0] == b[0]
    assert typos(text, random.Random(1)) == found
    assert typos("Go on.", random.Random(1)) == "Go on."


def test_every_form_changes_the_prompt_and_keeps_its_words() -> None:
    forms = {name: put(TEXT, random.Random(0)) for name, put in FORMS.items()}
    assert len(set(forms.values()) | {TEXT}) == len(FORMS) + 1
    assert forms["in lower case"] == TEXT.lower() and forms["in capitals"] == TEXT.upper()
    assert all(TEXT.lower() in text.lower() for name, text in forms.items() if name != "with typos")


def test_what_of_the_models_rewrites_is_used(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rewritten(lm, [TEXT, "Name it."], random.Random(3)) == rewritten(lm, [TEXT, "Name it."], random.Random(3))
    said = {"a": "  Say it so.\nand on", "b": "", "c": "One", "d e": "D, e!", "f": 'Sure! In other words:\n\n"Say it so."'}
    monkeypatch.setattr(proposals, "generate", lambda *_: list(map(Completion, said.values())))
    assert rewritten(lm, list(said), random.Random(3)) == ["Say it so.", "", "", "", "Say it so."]


def test_an_answer_is_scored_as_one_to_the_prompt_as_it_was(lm: LanguageModel, task: Task) -> None:
    asked: list[Any] = []

    class Noted(type(task)):  # type: ignore[misc]
        def score(self, records: Any) -> np.ndarray:
            asked.extend(records)
            return super().score(records)

    record = Record((("user", TEXT),), "river", 1.0, "Name the river.")
    turns = [(("user", TEXT.upper()),), (("user", TEXT.lower()),)]
    pair: Any = SimpleNamespace(task=Noted(task.config), seed=lambda name: 7)
    scores = answered(pair, lm, [(record, one) for one in turns])
    assert scores.shape == (2, SAMPLES) and all(one.prompt == record.prompt for one in asked)
    texts = generate(lm, [turns[1]] * SAMPLES, task.sampling, range(7 + SAMPLES, 7 + 2 * SAMPLES))
    assert scores[1].tolist() == task.score([Record.of(record.prompt, text, "") for text in texts]).tolist()


def test_a_greedy_task_answers_once(lm: LanguageModel, task: Task) -> None:
    """Copies of one answer would count as so many."""
    task.sampling = replace(task.sampling, temperature=0.0)
    record = Record((("user", TEXT),), "river", 1.0, "Name the river.")
    pair: Any = SimpleNamespace(task=task, seed=lambda name: 7)
    assert answered(pair, lm, [(record, record.prompt)] * 2).shape == (2, 1)
