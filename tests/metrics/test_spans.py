"""Entity scores against hand-counted values and a second implementation; the parser against anything."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.config import UserError
from reveal_release.metrics.spans import mean_f1, normalise_entity, parse_entities, span_counts, type_f1
from reveal_release.metrics.statistics import Estimate


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


@given(
    st.lists(st.text()),
    st.sampled_from(["", "Here they are:\n\n", "The names, as a list: \n"]),
    st.sampled_from(["", "```json\n", "```\n"]),
)
def test_a_lead_in_and_a_fence_are_passed_over(names, lead_in, fence):
    assert parse_entities(f"{lead_in}{fence}{json.dumps(names)}\n```\nThat is all.") == names


@pytest.mark.parametrize("text", ['Sure! ["a"]', 'The list ["a"] is it.', 'See:\nhere ["a"]', '```["a"]', 'a ["b"]:\n["c"]'])
def test_a_list_within_a_sentence_is_no_answer(text):
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
    assert span_counts(gold, answers).tolist() == [[1, 2, 2], [0, 0, 0], [0, 1, 1], [1, 1, 1], [0, 1, 0]]
    assert f1(gold, answers).value == pytest.approx(4 / 9) and f1(gold, answers).n == 5  # precision 2 / 5, recall 2 / 4


def f1(gold, answers, **more):
    """Of questions of one type."""
    return type_f1(span_counts(gold, answers)[:, None], ["a"], **more)["f1_a"]


@given(st.lists(st.tuples(st.sets(st.sampled_from("pqrst")), st.none() | st.sets(st.sampled_from("pqrst"))), min_size=1))
def test_against_pairs_of_question_and_name(questions):
    gold = [sorted(right) for right, _ in questions]
    answers = ["nothing" if named is None else json.dumps(sorted(named)) for _, named in questions]
    right = {(i, name) for i, names in enumerate(gold) for name in names}
    named = {(i, name) for i, (_, names) in enumerate(questions) for name in ({"?"} if names is None else names)}
    if right:
        precision = len(right & named) / len(named) if named else 0.0
        recall = len(right & named) / len(right)
        harmonic = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        assert f1(gold, answers, resamples=10).value == pytest.approx(harmonic)


def test_perfect_and_silent_models():
    gold = [["Ada"], ["Bob", "Cy"], []]
    perfect, silent = f1(gold, [json.dumps(names) for names in gold]), f1(gold, ["[]"] * 3)
    assert (perfect.value, perfect.high, silent.value, silent.low) == (1, 1, 0, 0)


def test_interval_narrows_with_questions_and_follows_its_seed():
    gold, answers = [["Ada"]] * 40, ['["Ada"]', '["Bob"]'] * 20
    few, many = f1(gold[:10], answers[:10]), f1(gold, answers)
    assert many.high - many.low < few.high - few.low
    assert f1(gold, answers, seed=3) == f1(gold, answers, seed=3)


def test_lengths_must_agree():
    with pytest.raises(UserError, match="2 gold lists and 1 answers"):
        span_counts([["a"], []], ["[]"])


# ---- by type ----

NAMES = st.sets(st.sampled_from("pqr"))
QUESTIONS = st.lists(st.tuples(*[st.tuples(NAMES, st.none() | NAMES)] * 3), min_size=1, max_size=6)


def counted(passages):
    """(passages, types, 3) of passages that each have (right names, named or None) for every type."""
    gold = [sorted(right) for passage in passages for right, _ in passage]
    answers = ["nothing" if named is None else json.dumps(sorted(named)) for passage in passages for _, named in passage]
    return span_counts(gold, answers).reshape(len(passages), -1, 3)


@given(QUESTIONS)
@pytest.mark.filterwarnings("error")
def test_f1_by_type_and_its_mean(passages):
    expected = {}
    for i, kind in enumerate("abc"):
        right = sum(len(named & gold) for gold, named in (p[i] for p in passages) if named is not None)
        given = sum(1 if named is None else len(named) for _, named in (p[i] for p in passages))
        if total := sum(len(gold) for gold, _ in (p[i] for p in passages)):
            expected[f"f1_{kind}"] = 2 * right / (given + total)
    found = type_f1(counted(passages), "abc", resamples=5)
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(expected)
    mean = mean_f1(counted(passages))
    assert mean == pytest.approx(sum(expected.values()) / len(expected)) if expected else np.isnan(mean)


@pytest.mark.filterwarnings("error")
def test_types_without_a_gold_name_have_no_f1():
    passages = [(({"p"}, {"p"}), (set(), {"q"})), (({"q"}, {"p"}), (set(), None))]
    counts = counted(passages)
    assert list(type_f1(counts, ["person", "art"])) == ["f1_person"] and mean_f1(counts) == 0.5
    assert np.isnan(mean_f1(counts[:, 1:])) and type_f1(counts[:, 1:], ["art"]) == {}


def test_type_intervals_hold_the_value_and_pass_over_resamples_without_a_name():
    counts = counted([(({"p"}, {"p"}),), *[((set(), {"q"}),)] * 3, (({"p"}, set()),)])
    found = type_f1(counts, ["person"])["f1_person"]
    assert (found.n, found.value) == (5, pytest.approx(2 / 6))
    assert 0 <= found.low < found.value < found.high <= 1
    # A resample without a name is NaN, not 0: by force over all 5^5 resamples.
    rows = np.stack(np.meshgrid(*[range(5)] * 5), axis=-1).reshape(-1, 5)
    every = [mean_f1(counts[row]) for row in rows]
    assert np.isnan(every).mean() == pytest.approx((3 / 5) ** 5)
    exact = np.nanquantile(every, [0.025, 0.975])
    assert found.low == pytest.approx(exact[0], abs=0.05) and found.high == pytest.approx(exact[1], abs=0.1)


def test_no_name_found_is_as_sure_as_the_passages_with_one_make_it():
    counts = counted([*[(({"p"}, set()),)] * 12, *[((set(), set()),)] * 28])
    found = type_f1(counts, ["person"])["f1_person"]
    recall, precision = Estimate.proportion(0, 12).high, 1.0  # at most, where no wrong name was given
    f1 = 2 * recall * precision / (recall + precision)
    assert (found.value, found.n, found.low) == (0.0, 40, 0.0) and found.high == pytest.approx(f1)


def test_types_and_counts_must_agree():
    with pytest.raises(UserError, match=r"\(1, 2, 3\) for 1 types"):
        type_f1(np.ones((1, 2, 3)), ["person"])
