"""Entity scores against hand-counted values and a second implementation; the parser against anything."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.config import UserError
from reveal_release.metrics.spans import normalise_entity, parse_entities, span_scores


@given(st.lists(st.text()))
def test_parsing_undoes_json(names):
    assert parse_entities(json.dumps(names)) == names
    assert parse_entities(f"  {json.dumps(names, ensure_ascii=False)}\nThat is all.") == names


@given(st.text() | st.text(alphabet='[]{}",\\u019e-. '))
def test_parsing_never_raises(text):
    found = parse_entities(text)
    assert found is None or all(isinstance(name, str) for name in found)


@pytest.mark.parametrize(
    "text", ["", "[", '["a"', "Ada", '"Ada"', '{"a": "b"}', "[1]", '["a", null]', "[[]]", "[" * 100_000, "1" * 9999]
)
def test_what_is_no_list_of_strings_is_none(text):
    assert parse_entities(text) is None


@pytest.mark.parametrize(
    "name, expected",
    [("  Ada\t Lovelace ", "ada lovelace"), ("The U.S. Army", "us army"), ("O'Neil", "oneil"), ("An", "an"),
     ("The  The", "the the"), ("!!!", "!!!"), ("", "")],
)  # fmt: skip
def test_normalisation(name, expected):
    assert normalise_entity(name) == expected


@given(st.text())
def test_normalisation_ignores_case_and_outer_space(name):
    assert normalise_entity(f" {name}\n") == normalise_entity(name) == normalise_entity(name.lower())
    assert normalise_entity(name).strip() == normalise_entity(name)


def test_hand_counted():
    gold = [["Ada Lovelace", "Babbage"], [], ["Paris"], ["Rome", "rome"], []]
    answers = [
        '["ada  lovelace", "Ada Lovelace", "Byron"]',  # 1 right, 1 wrong, 1 missed; the repeat counts once
        "[]",  # rightly nothing
        "Paris",  # unparsed: 1 missed, 1 wrong
        '["the Rome"]',  # 1 right
        "[",  # unparsed: 1 wrong
    ]
    scores = span_scores(gold, answers)
    assert scores.precision.value == pytest.approx(2 / 5)  # 2 of 2 + 0 + 1 + 1 + 1 named
    assert scores.recall.value == pytest.approx(2 / 4)
    assert scores.f1.value == pytest.approx(4 / 9)
    assert (scores.unparsed.value, scores.unparsed.n, scores.f1.n) == (0.4, 5, 5)
    assert scores.f1.low <= scores.f1.value <= scores.f1.high


@given(st.lists(st.tuples(st.sets(st.sampled_from("pqrst")), st.none() | st.sets(st.sampled_from("pqrst"))), min_size=1))
def test_against_pairs_of_question_and_name(questions):
    gold = [sorted(right) for right, _ in questions]
    answers = ["nothing" if named is None else json.dumps(sorted(named)) for _, named in questions]
    right = {(i, name) for i, names in enumerate(gold) for name in names}
    named = {(i, name) for i, (_, names) in enumerate(questions) for name in ({"?"} if names is None else names)}
    if not right:
        with pytest.raises(UserError, match="no gold name"):
            span_scores(gold, answers, resamples=10)
        return
    scores = span_scores(gold, answers, resamples=10)
    precision = len(right & named) / len(named) if named else 0.0
    recall = len(right & named) / len(right)
    assert scores.precision.value == pytest.approx(precision) and scores.recall.value == pytest.approx(recall)
    harmonic = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    assert scores.f1.value == pytest.approx(harmonic)


def test_perfect_and_silent_models():
    gold = [["Ada"], ["Bob", "Cy"], []]
    perfect = span_scores(gold, [json.dumps(names) for names in gold])
    assert (perfect.f1.low, perfect.f1.value, perfect.f1.high) == (1, 1, 1)
    silent = span_scores(gold, ["[]"] * 3)
    assert (silent.f1.value, silent.precision.value, silent.recall.value, silent.unparsed.value) == (0, 0, 0, 0)


def test_interval_narrows_with_questions_and_follows_its_seed():
    gold, answers = [["Ada"]] * 40, ['["Ada"]', '["Bob"]'] * 20
    few, many = span_scores(gold[:10], answers[:10]), span_scores(gold, answers)
    assert many.f1.high - many.f1.low < few.f1.high - few.f1.low
    assert span_scores(gold, answers, seed=3) == span_scores(gold, answers, seed=3)


def test_lengths_must_agree():
    with pytest.raises(UserError, match="2 gold lists and 1 answers"):
        span_scores([["a"], []], ["[]"])
