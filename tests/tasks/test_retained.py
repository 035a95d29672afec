"""Retained skills, measured on the tiny model and on answers whose score is known by hand."""

import json
from pathlib import Path

import pytest

from reveal_release.config import EvaluateConfig, RunConfig
from reveal_release.generation import Sampling
from reveal_release.metrics.fluency import perplexity
from reveal_release.metrics.statistics import Estimate
from reveal_release.models import LanguageModel
from reveal_release.tasks import retained
from reveal_release.tasks.ner import NER
from reveal_release.tasks.retained import ANSWER, code_score, entity_scores, maths_score, retained_skills
from reveal_release.testbed import heldout
from reveal_release.testbed.entities import TYPES, Passage, question

KEYS = {"perplexity", "perplexity_per_byte", "perplexity_web", "f1_person", "f1_other_types", "unparsed_answers",
        "code_pass_at_1", "maths_exact_match"}  # fmt: skip


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Lets a function of the prompt stand in for the model: it is the measuring that is under test."""

    def use(answer):  # type: ignore[no-untyped-def]
        monkeypatch.setattr(retained, "generate", lambda lm, prompts, *args, **kwargs: [answer(p) for p in prompts])

    return use


def test_all_skills_of_a_random_model(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    paragraphs = heldout.wikitext("test")[:4]
    posts = heldout.web("test")[::50]
    monkeypatch.setattr(heldout, "wikitext", lambda split: {"test": paragraphs}[split])
    monkeypatch.setattr(heldout, "web", lambda split: {"test": posts}[split])
    seen: list[tuple[int, int]] = []
    config = RunConfig(evaluate=EvaluateConfig(sentences=8, functions=2, problems=2))
    found = retained_skills(lm, config, lambda done, total: seen.append((done, total)))
    assert set(found) == KEYS
    assert found["perplexity"] == perplexity(lm.model, lm.tokenizer, paragraphs).per_token
    assert found["perplexity_web"] == perplexity(lm.model, lm.tokenizer, posts).per_token and found["perplexity_web"].n == 8
    assert found["perplexity"].value > 50 and found["f1_person"].value < 0.5 and found["maths_exact_match"].value < 1
    assert seen == sorted(seen) and seen[-1] == (1000, 1000)


def test_entities_by_type(lm: LanguageModel, answering) -> None:  # type: ignore[no-untyped-def]
    """Right for persons, nothing found elsewhere; then prose, which is no list."""
    passages = heldout.entities("test")[:60]
    gold = {f"Text: {p.text}": p.entities() for p in passages}
    by_question = {question(kind): kind for kind in TYPES}

    def persons(prompt: tuple) -> str:
        kind = by_question[prompt[-1][1]]
        return json.dumps(gold[prompt[0][1]].get(kind, []) if kind == "person" else [], ensure_ascii=False)

    answering(persons)
    found = entity_scores(lm, passages)
    assert found["f1_person"].value == 1.0 and found["f1_other_types"].value == 0.0 and found["unparsed_answers"].value == 0.0
    assert not any(p.entities().get("person") for p in passages[:1]), "the first passage names nobody"
    assert "f1_person" not in entity_scores(lm, passages[:1])
    answering(lambda prompt: "no list at all")
    found = entity_scores(lm, passages)
    assert found["f1_person"].value == 0.0 and found["unparsed_answers"].value == 1.0


def test_maths_is_exact_match(lm: LanguageModel, answering) -> None:  # type: ignore[no-untyped-def]
    items = heldout.problems("test", 10, seed=1)
    right = {item.prompt: f"So it is.\n#### {item.answer}" for item in items}
    answering(lambda prompt: right[prompt[0][1]])
    assert maths_score(lm, 10).value == 1.0
    wrong = {item.prompt for item in items[:4]}
    answering(lambda prompt: "#### -1" if prompt[0][1] in wrong else right[prompt[0][1]])
    assert maths_score(lm, 10).value == 0.6


def test_code_is_run(lm: LanguageModel, answering) -> None:  # type: ignore[no-untyped-def]
    """Reference solutions pass in the sandbox; half of them replaced by one that returns nothing do not."""
    items = heldout.functions("test", 4, seed=1)
    solutions = {item.prompt: item.solution for item in items}
    answering(lambda prompt: solutions[prompt[0][1]])
    assert code_score(lm, RunConfig(evaluate=EvaluateConfig(functions=4))).value == 1.0
    broken = {item.prompt for item in items[:2]}
    answering(lambda prompt: "def nothing():\n    pass" if prompt[0][1] in broken else solutions[prompt[0][1]])
    assert code_score(lm, RunConfig(evaluate=EvaluateConfig(functions=4))).value == 0.5


def test_other_types_and_other_sentences(lm: LanguageModel, answering) -> None:  # type: ignore[no-untyped-def]
    """Whichever types are named are told apart from the rest, on social media as on the encyclopedia."""
    passages = heldout.wnut17("test")[:40]
    gold = {f"Text: {p.text}": p.entities() for p in passages}

    def locations(prompt: tuple) -> str:
        return json.dumps(gold[prompt[0][1]].get("location", []) if prompt[-1][1] == question("location") else [])

    answering(locations)
    found = entity_scores(lm, passages, ("location", "product"), ending="_wnut17")
    assert found["f1_location_wnut17"].value == 1.0 and found["f1_product_wnut17"].value == 0.0
    assert found["f1_other_types_wnut17"].value == 0.0 and "f1_person_wnut17" not in found


def test_types_that_the_testbeds_do_not_know_are_left_out(lm: LanguageModel, answering) -> None:  # type: ignore[no-untyped-def]
    """And where all of the few passages that name something are right, the interval is theirs."""
    passage = Passage(("Ada", "had", "measles", "in", "Lyon", "."), ((0, 1, "person"), (2, 3, "disease"), (4, 5, "location")))
    nobody = [Passage((f"Nothing{i}", "here"), ()) for i in range(20)]
    answering(lambda prompt: '["Lyon"]' if prompt[-1][1] == question("location") and "Lyon" in prompt[0][1] else "[]")
    found = entity_scores(lm, [passage, *nobody], ("person",), ending="_own")
    assert found["f1_person_own"].value == 0.0 and found["f1_other_types_own"].value == 1.0
    assert found["unparsed_answers_own"].n == 42, "persons and locations, of each"
    assert found["f1_other_types_own"].low == Estimate.proportion(1, 1).low


def test_long_lists_of_ones_own_sentences_have_room(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "mine.conll"
    path.write_text("".join(f"Name{i} B-PER\n, O\n" for i in range(30)), encoding="utf-8")
    rooms: list[int] = []

    def noted(lm: LanguageModel, asked: list, sampling: Sampling, seeds: object, **options: object) -> list[str]:
        rooms.append(sampling.max_new_tokens)
        return ["[]"] * len(asked)

    monkeypatch.setattr(retained, "generate", noted)
    NER(RunConfig(task="ner", evaluate=EvaluateConfig(sentences=2, functions=1, problems=1, entities=str(path)))).evaluate(lm)
    gold = json.dumps([f"Name{i}" for i in range(30)])
    assert rooms[0] == ANSWER.max_new_tokens < len(lm.tokenizer(gold)["input_ids"]) < rooms[-1]
