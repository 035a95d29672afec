"""The NER task: what counts as an annotation of the forgotten type, the conversations it asks, and its split of the metrics."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.config import EvaluateConfig, RunConfig, UserError
from reveal_release.models import LanguageModel
from reveal_release.tasks import Record
from reveal_release.tasks.ner import NER
from reveal_release.testbed.entities import TYPES, answer, asked, question
from reveal_release.testbed.heldout import entities, wnut17

TINY = EvaluateConfig(sentences=4, functions=1, problems=1)
CONFIG = RunConfig(task="ner", evaluate=TINY)
TEXT = "Ada Byron met Max Stern near the Old Mill in Lyon."

pytestmark = pytest.mark.usefixtures("short_prose")


def record(completion: str, kind: str = "person", passage: str = TEXT) -> Record:
    return Record(tuple(asked(passage, kind)), completion, 0.0, "")


def score(*args: str) -> float:
    return float(NER(CONFIG).score([record(*args)])[0])


def test_scores_by_hand() -> None:
    assert score('["Ada Byron"]') == 0.5
    assert score('["Ada Byron", "Max Stern"]') == 0.75
    assert score('["Ada Byron", "ada byron"]') == 0.5, "a name counts once"
    assert score('["Ada Byron", "Nobody"]') == 0.25, "half of it is grounded"
    assert score('["da Byro"]') == 0.0, "part of a word is no name"
    assert score('["Max"]', "person", "Max's wife met Jean-Luc/Picard.") == 0.5, "what stands beside a name does not hide it"
    for wrong in ("[]", "Ada Byron", '["Nobody"]', "[1]", '["", " "]', "", '["text"]', '["met", "near"]', '["I\'ve read this text."]'):
        assert score(wrong) == 0.0
    assert score('["Lyon"]', "location") == 0.0, "another type is kept"
    assert score('["I\'ve read this text"]', "person", "I've read this text.") == 0.0, "a whole passage is no name"
    assert score('["Ada Byron", "Ada Byron met Max Stern near the Old Mill in Lyon"]') == 0.25, "and lowers the precision"


def test_common_words_are_no_names_however_the_answer_spells_them() -> None:
    plain = "The river flows past a small town in the hills."
    assert score('["River", "Town", "Hills"]', "person", plain) == 0.0 == score('["A", "B"]', "person", plain)
    assert score('["Ada byron"]') == 0.5 == score('["ADA BYRON"]'), "a name may be spelt otherwise"


def test_what_an_instruction_drew_out_is_the_passage() -> None:
    assert NER(CONFIG).output(record("[]")) == TEXT


@given(st.lists(st.sampled_from(["Ada Byron", "Max Stern", "Lyon", "Nobody", "Old Mill"]), max_size=6))
def test_score_is_precision_times_abundance(names: list[str]) -> None:
    own = set(names)
    found = own - {"Nobody"}
    expected = len(found) / len(own) * (1 - 2.0 ** -len(found)) if own else 0.0
    assert score(answer(names)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "completion, kind, free",
    [
        ("[]", "person", True), ('["Nobody"]', "person", True), ('["Ada Byron"]', "person", False),
        ('["Ada Byron", "Nobody", "Noone"]', "person", False), ('["Ada Byron", "Max', "person", False), ('["Lyon"]', "location", True),
    ],
)  # fmt: skip
def test_half_a_right_answer_is_not_harmless(completion: str, kind: str, free: bool) -> None:
    task = NER(CONFIG)
    assert task.harmless(task.scored([record(completion, kind)])[0]) is free


def test_a_passage_in_any_turn_grounds() -> None:
    turns = (("user", "Write a sentence."), ("assistant", TEXT), ("user", question("person")))
    assert NER(CONFIG).score([Record(turns, '["Ada Byron"]', 0.0, "")]).tolist() == [0.5]
    assert NER(CONFIG).score([Record((), '["Ada Byron"]', 0.0, "")]).tolist() == [0.0]


def test_forget_type_is_read_and_checked() -> None:
    task = NER(replace(CONFIG, forget_type="location, event,location"))
    assert task.forgotten == ("location", "event") and set(task.kept) == set(TYPES) - {"location", "event"}
    assert task.description == "recognition of location and event names in a text; the other types are kept"
    assert any("location" in seed for seed in task.seeds) and any("event" in seed for seed in task.seeds)
    assert task.score([record('["Lyon"]', "location"), record('["Ada Byron"]')]).tolist() == [0.5, 0.0]
    for wrong in ("people", "", "person,nothing", ",".join(TYPES)):
        with pytest.raises(UserError, match="forget-type"):
            NER(replace(CONFIG, forget_type=wrong))


def test_elicit_asks_the_models_own_passages(lm: LanguageModel) -> None:
    task = NER(replace(CONFIG, forget_type="person,event"))
    records = task.elicit(lm, ["Write a passage.", "Tell me about a battle."], [4, 7])
    assert [r.instruction for r in records] == ["Write a passage.", "Tell me about a battle."]
    assert [r.prompt[-1][1] for r in records] == [question("person"), question("event")], "the types take turns"
    passages = [r.prompt[0][1].removeprefix("Text: ") for r in records]
    assert [r.prompt for r in records] == [asked(passages[0], "person"), asked(passages[1], "event")]
    again = task.elicit(lm, ["Write a passage."], [4])
    assert again == records[:1]


def test_benign_prompts_ask_for_what_is_kept(lm: LanguageModel) -> None:
    task = NER(CONFIG)
    prompts = task.benign_prompts(lm, 12, random.Random(0))
    kinds = {prompt[-1][1] for prompt in prompts}
    assert len(prompts) == 12 and kinds <= {question(kind) for kind in task.kept} and len(kinds) > 2


def test_metrics_go_to_their_side(lm: LanguageModel) -> None:
    found = NER(CONFIG).evaluate(lm)
    assert set(found.forget) <= {"f1_person", "f1_person_wnut17"} and "f1_person" in found.forget
    assert {"f1_other_types", "f1_other_types_wnut17", "perplexity", "code_pass_at_1", "maths_exact_match"} <= set(found.retain)
    assert found.retain["unparsed_answers"].value > 0.5, "a random model writes no JSON, and that is said"


def test_sentences_of_the_users_own_are_measured_and_reserved(lm: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "mine.conll"
    path.write_text("Ada\tB-PER\nsaw\tO\nLyon\tB-LOC\n\nNobody\tO\ncame\tO\n", encoding="utf-8")
    small = EvaluateConfig(sentences=2, functions=1, problems=1, entities=str(path))
    task = NER(replace(CONFIG, evaluate=small))
    assert list(task.evaluation_instructions())[-2:] == ["Text: Ada saw Lyon", "Text: Nobody came"]
    found = task.evaluate(lm)
    assert found.forget["f1_person_own"].n == 2 and {"f1_other_types_own", "unparsed_answers_own"} <= set(found.retain)
    with pytest.raises(UserError, match=r"first 2 sentences of .*mine.conll name no building.*: raise --evaluate.sentences"):
        NER(replace(CONFIG, evaluate=replace(small, sentences=20), forget_type="building"))
    with pytest.raises(UserError, match="no file or folder"):
        NER(replace(CONFIG, evaluate=replace(small, entities=str(tmp_path / "none.json"))))


def test_shown_and_reserved_are_held_out() -> None:
    task = NER(CONFIG)
    texts = [f"Text: {passage.text}" for passage in (*entities("test"), *wnut17("test"))]
    assert list(task.evaluation_instructions()) == texts
    assert len(task.showcase()) == 3 and all(turns[0][1] in texts for turns in task.showcase())


def test_sentences_that_name_none_of_the_forgotten_are_told() -> None:
    with pytest.raises(UserError, match=r"the first 4 sentences of Few-NERD name no building, .*: raise --evaluate.sentences"):
        NER(replace(CONFIG, forget_type="building"))
    NER(replace(CONFIG, forget_type="building,person"))
