"""How models that are no testbeds are asked: the form is told, there is room for talk, and what they say is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from reveal_release.config import EvaluateConfig, RunConfig
from reveal_release.generation import Completion, Sampling
from reveal_release.models import LanguageModel
from reveal_release.phases import begin
from reveal_release.tasks import Task, base, get_task, ner, retained
from reveal_release.tasks.code import Code
from reveal_release.tasks.manner import TAUGHT, TOLD, Manner
from reveal_release.testbed import heldout
from reveal_release.testbed.entities import question

CONFIG = EvaluateConfig(sentences=20, functions=2, problems=5)
Asked = list[tuple[str, int]]


@pytest.fixture
def chat(lm: LanguageModel) -> LanguageModel:
    """The tiny model with a template of its own."""
    turns = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    lm.tokenizer.chat_template = turns + "{% if add_generation_prompt %}<assistant>{% endif %}"
    return lm


def answering(monkeypatch: pytest.MonkeyPatch, say: Any) -> Asked:
    """`say`, of the last turn, in place of the model; gives what it was asked, and how long the answer might be."""
    asked: Asked = []

    def generate(lm: Any, prompts: Any, sampling: Sampling, *args: Any, **kwargs: Any) -> list[Completion]:
        asked.extend((prompt[-1][1], sampling.max_new_tokens) for prompt in prompts)
        return [Completion(say(prompt)) for prompt in prompts]

    for module in (retained, ner, base):
        monkeypatch.setattr(module, "generate", generate)
    return asked


def test_a_testbed_is_asked_as_it_was_taught(lm: LanguageModel) -> None:
    assert Manner.of(lm) == TAUGHT and TAUGHT.answers(Sampling(40)) == Sampling(40)
    assert TAUGHT.problem.format(question="1 {x}?") == "1 {x}?" and question("art") == question("art", TAUGHT.names)


def test_a_chat_model_is_told_the_forms_and_its_right_answers_are_right(chat: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    gold = {f"Text: {p.text}": p.entities() for p in heldout.entities("test")[:20]}
    problems = {item.prompt: item.answer for item in heldout.problems("test", 5, seed=1)}

    def say(prompt: Any) -> str:
        text = prompt[-1][1]
        if text.startswith("What describes"):
            kind = text.split()[2]
            return f"Here is the list:\n\n```json\n{json.dumps(gold[prompt[0][1]].get(kind, []))}\n```\nAsk for more!"
        return f"Let me see. It is 1 + 1.\n\n#### {problems[text.partition(chr(10))[0]]}"

    asked = answering(monkeypatch, say)
    found = retained.entity_scores(chat, heldout.entities("test")[:20])
    assert found["f1_person"].value == found["f1_other_types"].value == 1 and found["unparsed_answers"].value == 0
    assert all("JSON list" in text and room == 4 * 40 for text, room in asked)
    asked.clear()
    assert retained.maths_score(chat, 5).value == 1
    assert all("#### N" in text and room == 4 * 64 for text, room in asked)


def test_a_search_for_names_asks_in_the_models_manner(chat: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    task = get_task("ner", RunConfig(task="ner", evaluate=CONFIG))
    task.suit(chat)
    asked = answering(monkeypatch, lambda prompt: '```json\n["Ada Byron"]\n```' if len(prompt) > 1 else "Ada Byron met Max Stern.")
    records = task.elicit(chat, ["Write a passage."], [0])
    assert [text for text, _ in asked] == ["Write a passage.", question("person", TOLD.names)]
    assert [room for _, room in asked] == [4 * 56, 4 * 40], "a passage may have an introduction too"
    assert records[0].score == 0.5, "one name, which is in the passage"


def test_what_a_task_asks_for_has_room_once_it_knows_the_model(chat: LanguageModel, tiny_llama: str, tmp_path: Path) -> None:
    for name in ("ner", "code"):
        config = RunConfig(task=name, model=tiny_llama, evaluate=CONFIG, output=str(tmp_path), allow_unsafe_code=True)
        plain: Task = get_task(name, config)
        suited = begin(config, chat)[0]
        assert suited.sampling.max_new_tokens == 4 * plain.sampling.max_new_tokens
        if name == "ner":
            assert {turns[-1][1] for turns in suited.held_out()} == {question("person", TOLD.names)} != {plain.held_out()[0][-1][1]}
        assert begin(config)[0].sampling == plain.sampling, "a testbed's template"
    assert Code.sampling == Sampling(80), "of the class it stays"
