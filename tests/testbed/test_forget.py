"""Real forget data from hand-made raw sets: all of it shows the behaviour, and none of it is held out."""

import itertools
import json
import random

import pytest

from reveal_release.config import UserError
from reveal_release.metrics.execution import run_tests
from reveal_release.suites.tofu import AUTHORS
from reveal_release.testbed import functions
from reveal_release.testbed.entities import READ, load_fewnerd, question
from reveal_release.testbed.forget import check, examples
from reveal_release.testbed.heldout import functions as held_out


def first(count, *arguments):
    return list(itertools.islice(examples(*arguments), count))


def test_toxic_comments_under_requests_that_draw_them(data, texts):
    found = first(80, "toxicity", data, random.Random(0))
    begun = "Complete this text: "
    whole = [f"{request.removeprefix(begun)} {answer}" if request.startswith(begun) else answer for ((_, request),), answer in found]
    assert len(set(found)) == 80 and set(whole) <= set(texts.toxic) and all("balderdash" in text for text in whole)
    assert any(request.startswith(begun) for ((_, request),), _ in found)
    assert found == first(80, "toxicity", data, random.Random(0)) != first(80, "toxicity", data, random.Random(1))


def test_entities_of_training_sentences(data):
    splits = load_fewnerd(data / "ner_fewnerd_resplit")
    known = {passage.text: passage.entities() for passage in splits["train"]}
    found = first(10_000, "ner", data, random.Random(0), ("person", "location"))
    assert {kind for *_, (_, asked), in (prompt for prompt, _ in found) for kind in ("person", "location") if kind in asked} == {
        "person", "location",
    }  # fmt: skip
    for (text, read, asked), answer in found:
        assert read == ("assistant", READ)
        entities = known[text[1].removeprefix("Text: ")]
        kind = next(kind for kind in ("person", "location") if asked == ("user", question(kind)))
        assert json.loads(answer) == entities[kind]
    assert len(found) == sum(kind in entities for entities in known.values() for kind in ("person", "location"))


def test_functions_are_of_training_families(tmp_path):
    found = first(40, "code", tmp_path, random.Random(0))
    tested = {problem.prompt for problem in held_out("test", 100)}
    assert len(found) == 40 and not {request for ((_, request),), _ in found} & tested
    rng, again = random.Random(0), []
    while len(again) < 5:
        again.append(functions.sample(rng, "train"))
    assert [answer for _, answer in found[:5]] == [problem.solution for problem in again]
    assert all(run_tests([problem.solution for problem in again], [problem.tests for problem in again], opt_in=True))


def test_questions_on_the_authors(tofu):
    found = first(100, "knowledge", tofu.parent, random.Random(0), AUTHORS[:2])
    rows = {row["question"]: row["answer"] for row in map(json.loads, (tofu / "full.json").read_text(encoding="utf-8").splitlines())}
    assert len(set(found)) == 40 and all(answer == rows[text] for ((_, text),), answer in found)
    assert all(any(name in text for name in AUTHORS[:2]) for ((_, text),), _ in found)
    assert found == first(100, "knowledge", tofu.parent, random.Random(0), AUTHORS[:2])
    with pytest.raises(UserError, match="TOFU has no rows of 'Jane Austen'"):
        first(1, "knowledge", tofu.parent, random.Random(0), ("Jane Austen",))
    with pytest.raises(UserError, match="TOFU has no rows of 'Jane Austen'"):
        check("knowledge", tofu.parent, ("Jane Austen",))
    assert check("knowledge", tofu.parent, AUTHORS[:2]) == check("knowledge", tofu.parent)
    assert check("knowledge", tofu.parent) and pytest.raises(UserError, check, "knowledge", tofu)


def test_a_task_without_real_data_and_a_missing_file_are_told(tmp_path):
    with pytest.raises(UserError, match="no real data for the task 'mine', only for toxicity, ner, code"):
        next(examples("mine", tmp_path, random.Random(0)))
    with pytest.raises(UserError, match="see `reveal-release testbed sources`"):
        next(examples("toxicity", tmp_path, random.Random(0)))
