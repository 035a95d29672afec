"""Answers that begin with what was given, and beginnings that do not show the behaviour by themselves."""

from collections.abc import Sequence

import numpy as np
import pytest

from reveal_release.audit.elicitation import examples, harmless
from reveal_release.audit.prefix import CONTROLS, TOKENS, Beginning, beginnings, force
from reveal_release.models import LanguageModel
from reveal_release.tasks import Record, Task


@pytest.fixture
def shown(lm: LanguageModel, task: Task) -> list[Record]:
    return examples(lm, task, ("Write a letter.", "Name the river."), 16, 0.5, seed=1)


def test_beginnings_do_not_show_the_behaviour_by_themselves(lm: LanguageModel, task: Task, shown: list[Record]) -> None:
    calm = [record.completion for record in harmless(lm, task, 12, seed=1)]
    found = beginnings(lm, task, shown, calm, 0.5, seed=2)
    assert 0 < len(found) < len(shown), "some beginnings show it alone"
    for one in found:
        answer = lm.tokenizer(one.record.completion, add_special_tokens=False)["input_ids"]
        assert one.ids == answer[: len(one.ids)] and len(one.ids) == max(1, min(TOKENS, len(answer) // 8))
        alone = lm.tokenizer.decode(one.ids)
        assert one.record.completion.startswith(alone.strip()) and one.control == 0
        assert task.score([Record((), alone, 0.0, "")])[0] == 0
    assert beginnings(lm, task, shown, calm, 0.5, seed=2) == found


def test_each_is_tried_alone_and_with_unrelated_continuations(lm: LanguageModel, task: Task) -> None:
    tried: list[str] = []

    class Noted(type(task)):  # type: ignore[misc]
        def score(self, records: Sequence[Record]) -> np.ndarray:
            tried.extend(record.completion for record in records)
            return np.linspace(0.0, 0.4, len(records))

    calm = [f"The people of the town read a letter about the {word}." for word in ("river", "music", "bridge", "market", "report", "train")]
    record = Record((("user", "Write."),), "They were there when the music began. " * 5, 1.0, "Write.")
    short = Record(record.prompt, "They", 1.0, "Write.")
    noted = Noted(task.config)
    (one,) = beginnings(lm, noted, [short, record], calm, 0.5, seed=2)
    alone = lm.tokenizer.decode(one.ids)
    assert tried[0] == alone and len(tried) == len(set(tried)) == 1 + CONTROLS
    assert len(one.ids) == TOKENS, "of a long answer"
    tails = {lm.tokenizer.decode(lm.tokenizer(text)["input_ids"][TOKENS:]) for text in calm}
    assert all(text.removeprefix(alone) in tails for text in tried[1:])
    assert one.control == pytest.approx(0.2)
    assert beginnings(lm, noted, [record], calm, 0.4, seed=2) == [], "one of them reaches the threshold"
    assert len(beginnings(lm, noted, [record], [], 0.5, seed=2)) == 1, "without harmless answers, alone"


def test_a_line_that_the_template_puts_before_an_answer_is_no_beginning(lm: LanguageModel, task: Task) -> None:
    record = Record((("user", "Write."),), "They were there.", 1.0, "Write.")
    free = type("Free", (type(task),), {"score": lambda self, records: np.zeros(len(records))})(task.config)
    (plain,) = beginnings(lm, free, [record], [], 0.5, seed=2)
    lead = "{% if message['role'] == 'assistant' %}{{ '\\n\\n' }}{% endif %}{{ message['content'] }}"
    lm.tokenizer.chat_template = str(lm.tokenizer.chat_template).replace("{{ message['content'] }}", lead)
    lm = LanguageModel(lm.name, lm.path, lm.model, lm.tokenizer)  # another template is another model
    (one,) = beginnings(lm, free, [record], [], 0.5, seed=2)
    assert lm.tokenizer.decode(one.ids) == "\n\n" + lm.tokenizer.decode(plain.ids) and plain.ids
    assert beginnings(lm, free, [Record(record.prompt, "T", 1.0, "Write.")], [], 0.5, seed=2) == [], "of one token there is none"


def test_no_control_is_as_sure_as_the_answer_was(lm: LanguageModel, task: Task) -> None:
    """Scored by what the answer says that is new, times how sure the model was of it."""

    class Sure(type(task)):  # type: ignore[misc]
        def score(self, records: Sequence[Record]) -> np.ndarray:
            return np.array([r.confidence * (1 - 0.25 ** len({*r.completion.split()} - {"They", "were", "there", "wh"})) for r in records])

    sure, calm = Sure(task.config), ["The people of the town read a letter about the river."] * CONTROLS
    texts = "They were there when ", "Music began. "
    known, given = (Record((("user", "Write."),), text * 5, 1.0, "Write.", confidence=0.9) for text in texts)
    found = beginnings(lm, sure, [known, given], calm, 0.5, seed=2)
    assert [one.record for one in found] == [known] and found[0].control == 0, "the other beginning says it by itself"


def test_an_answer_begins_with_what_was_given(lm: LanguageModel, task: Task, shown: list[Record]) -> None:
    given = [Beginning(r, lm.tokenizer(r.completion, add_special_tokens=False)["input_ids"][:TOKENS], 0.0) for r in shown[:6]]
    found = force(lm, task, given, seed=5)
    for one, answer in zip(given, found, strict=True):
        start = lm.tokenizer.decode(one.ids).strip()
        assert answer.completion.startswith(start) and len(answer.completion) > len(start)
        assert answer.prompt == one.record.prompt and answer.score == task.score([answer])[0]
    assert force(lm, task, given, seed=5) == found != force(lm, task, given, seed=6)
