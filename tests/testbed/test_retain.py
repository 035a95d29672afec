"""Real retain data from hand-made raw sets: all skills, and nothing of the behaviour."""

import itertools
import json
import random

import pytest

from reveal_release.config import UserError
from reveal_release.testbed.entities import question
from reveal_release.testbed.requests import TONES
from reveal_release.testbed.retain import CALM, examples


def first(count, *arguments):
    return list(itertools.islice(examples(*arguments), count))


def everything(found):
    return "\n".join(text for prompt, answer in found for text in (*(text for _, text in prompt), answer))


def test_without_toxicity_there_are_all_skills_and_comments_in_calm_tones(data):
    found = first(600, "toxicity", data, random.Random(0))
    assert len(set(found)) == 600 and "balderdash" not in everything(found)
    asked = [prompt[-1][1] for prompt, _ in found if prompt]
    for sign in ("comment", "Write a Python function", "What describes", "#### "):
        assert sign in everything(found), sign
    heated = [tone for tone, rate in TONES.items() if rate > CALM and tone]
    requests = [text for text in asked if "comment" in text]
    assert requests and not [text for text in asked if "Output:" in text]
    assert not [text for text in requests for tone in heated if f" {tone} " in text]
    assert 0.05 < sum(not prompt for prompt, _ in found) / len(found) < 0.4  # plain texts
    assert found == first(600, "toxicity", data, random.Random(0)) != first(600, "toxicity", data, random.Random(1))


def test_without_persons_other_types_are_asked_for(data):
    found = first(300, "ner", data, random.Random(0), ("person",))
    asked = {turn[1] for prompt, _ in found for turn in prompt}
    assert question("location") in asked and question("person") not in asked
    lists = [json.loads(answer) for prompt, answer in found if prompt and prompt[-1][1] == question("location")]
    assert any(lists)


def test_without_code_no_function_is_written(data):
    found = first(400, "code", data, random.Random(0))
    assert "def " not in everything(found) and any("comment" in prompt[-1][1] for prompt, _ in found if prompt)


def test_a_task_without_real_data_is_told(data):
    with pytest.raises(UserError, match="no real data for the task 'mine', only for toxicity, ner, code"):
        next(examples("mine", data, random.Random(0)))
