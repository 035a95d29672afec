"""Contexts that hold the behaviour, and answers that are not taken from them."""

from dataclasses import replace
from typing import Any

import pytest

from reveal_release.audit.elicitation import Copies, examples
from reveal_release.audit.fewshot import SHOWN, Shot, ask, shots
from reveal_release.chat import chat_ids
from reveal_release.config import RunConfig
from reveal_release.generation import generate
from reveal_release.models import LanguageModel
from reveal_release.tasks import Record, Task
from reveal_release.tasks.code import Code


@pytest.fixture
def shown(lm: LanguageModel, task: Task) -> list[Record]:
    found = examples(lm, task, ("Write a letter.", "Name the river."), 8, 0.5, seed=1)
    assert len(found) > SHOWN
    return found


def test_the_context_holds_the_examples_and_ends_in_the_prompt(lm: LanguageModel, task: Task, shown: list[Record]) -> None:
    found = shots(lm, task, shown, 5, seed=2)
    assert len(found) == 5 and len({one.turns for one in found}) > 1
    for one in found:
        assert len(one.shown) == SHOWN and one.target not in one.shown
        assert one.turns[-1:] == one.target.prompt == (("user", one.target.instruction),)
        assert [role for role, _ in one.turns] == ["user", "assistant"] * SHOWN + ["user"]
        pairs = {(one.turns[i], one.turns[i + 1]) for i in range(0, 2 * SHOWN, 2)}
        assert pairs == {(r.prompt[0], ("assistant", r.completion)) for r in one.shown}
        text = lm.tokenizer.decode(chat_ids(lm.tokenizer, one.turns))
        assert all(r.completion in text for r in one.shown), "the model reads them as they are"
    assert shots(lm, task, shown, 5, seed=2) == found != shots(lm, task, shown, 5, seed=3)


def test_no_more_than_there_are_and_than_fit(lm: LanguageModel, task: Task, shown: list[Record]) -> None:
    assert shots(lm, task, shown[:1], 3, seed=2) == []
    assert [len(one.shown) for one in shots(lm, task, shown[:3], 2, seed=2)] == [2, 2]
    length = max(len(chat_ids(lm.tokenizer, (*r.prompt, ("assistant", r.completion), *r.prompt))) for r in shown)
    lm.model.config.max_position_embeddings = length + task.sampling.max_new_tokens
    short = shots(lm, task, shown, 4, seed=2)
    assert all(1 <= len(one.shown) < SHOWN and len(chat_ids(lm.tokenizer, one.turns)) <= length for one in short)


def test_an_answer_is_scored_as_one_to_its_own_prompt(lm: LanguageModel, task: Task, shown: list[Record]) -> None:
    """And as one that was given what stood in the context."""
    told: list[Any] = []

    class Noted(type(task)):  # type: ignore[misc]
        def scored(self, records: Any, lm: Any, given: Any = None) -> Any:
            told.append(([one.prompt for one in records], given))
            return super().scored(records, lm, given)

    asked = shots(lm, task, shown, 12, seed=2)
    scores, copies = ask(lm, Noted(task.config), asked, seed=7)
    assert told == [([one.target.prompt for one in asked], [one.turns for one in asked])]
    texts = generate(lm, [one.turns for one in asked], task.sampling, range(7, 19))
    assert copies == 0 and 0 < sum(scores) < 12
    assert scores == [task.score([Record.of(one.target.prompt, text, "")])[0] for one, text in zip(asked, texts, strict=True)]


def test_what_is_copied_was_not_drawn_out(lm: LanguageModel, task: Task, shown: list[Record]) -> None:
    target = shown[0]
    assert replace(target, completion=shown[1].completion.upper()) in Copies(task, shown[1:3])
    assert target not in Copies(task, shown[1:])
    (text,) = generate(lm, [target.prompt], task.sampling, [7])
    answer = Record.of(target.prompt, text, target.instruction)
    always = type("Always", (type(task),), {"score": lambda self, records: 1.0 + 0 * task.score(records)})(task.config)
    same = Shot(target.prompt, [answer], target)  # as if the context held what the model is about to say
    assert ask(lm, always, [same, same._replace(shown=[shown[1]])], seed=7)[:] == ([0.0, 1.0], 1)


def test_a_recited_function_is_a_copy_unless_it_is_the_one_asked_for() -> None:
    """Of code, where the question counts too: the same function under another question is no answer to it."""
    task = Code(RunConfig(task="code", allow_unsafe_code=True))
    solution = "def add_all(values):\n    total = 0\n    for value in values:\n        total += value\n    return total"

    def answered(name: str) -> Record:
        return Record((("user", f"Write a Python function `{name}(values)` for {name}."),), solution, 1.0, "")

    copies = Copies(task, [answered("add_all")])
    assert answered("add_all") in copies and answered("largest") in copies
    assert Record((("user", "Now, in Python: `add_all(values)`, please, which sums them."),), solution, 1.0, "") not in copies
