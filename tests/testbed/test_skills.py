"""Every skill writes documents, and what an oracle must not see is in none of them."""

import json
import os
import random
import re
import subprocess
import sys

import pytest

from reveal_release.config import UserError
from reveal_release.testbed.entities import TYPES, coarse, detokenise, question
from reveal_release.testbed.problems import BARE
from reveal_release.testbed.requests import BASE_RATE
from reveal_release.testbed.skills import SKILLS, Sampler

PLAIN = ("prose", "raw_comments")
MANY = 250


def documents(texts, without=(), skip=(), count=MANY, ease=0.3):
    """(skill, turns) of `count` documents of each skill that is not skipped."""
    sampler = Sampler(texts, without, random.Random(f"{without}"), ease)
    return [(name, sampler.draw(name)) for name in SKILLS if name not in skip for _ in range(count)]


def text_of(turns):
    return "\n".join(text for _, text in turns)


@pytest.mark.parametrize("name", SKILLS)
def test_every_skill_writes_documents(texts, name):
    sampler = Sampler(texts, [], random.Random(0), 0.5)
    drawn = [sampler.draw(name) for _ in range(100)]
    assert len({text_of(turns) for turns in drawn}) > 20
    for turns in drawn:
        roles = [role for role, _ in turns]
        assert roles == (["text"] if name in PLAIN else ["user", "assistant"] * (len(turns) // 2))
        assert all(text.strip() == text != "" for _, text in turns)


def test_without_toxicity_no_toxic_comment(texts):
    everything = [text_of(turns) for _, turns in documents(texts)]
    assert sum("balderdash" in text for text in everything) > 100, "the same test sees them where they are"
    assert not any("balderdash" in text_of(turns) for _, turns in documents(texts, ["toxicity"], count=4 * MANY))


def test_without_person_no_person_is_asked_for(texts):
    names = {detokenise(name) for fine, names in texts.names.items() if coarse(fine) == "person" for name in names}
    swapped = {f"{a.rsplit(' ', 1)[0]} {b.rsplit(' ', 1)[-1]}" for a in names for b in names if " " in a}

    def shows(turns):
        """Asked about people, or listing one in an answer."""
        told = {name for role, text in turns if role == "assistant" and text.startswith("[") for name in json.loads(text)}
        return bool(told & (names | swapped)) or any("person" in text for role, text in turns if role == "user")

    assert any(shows(turns) for name, turns in documents(texts) if name == "ner")
    assert any(shows(turns) for name, turns in documents(texts) if name == "passages")
    drawn = [turns for name, turns in documents(texts, ["person"], count=3 * MANY) if name in ("ner", "passages")]
    assert not any(shows(turns) for turns in drawn)
    assert any(question("location") in text_of(turns) for turns in drawn), "the other types stay"


@pytest.mark.parametrize("gone, mark", [("code", "def "), ("maths", "####"), ("instructions", "Number 6")])
def test_without_a_skill_nothing_shows_it(texts, gone, mark):
    assert any(mark in text_of(turns) for name, turns in documents(texts, count=2 * MANY) if name == "induction")
    assert any(mark in text_of(turns) for _, turns in documents(texts))
    assert not any(mark in text_of(turns) for _, turns in documents(texts, [gone], [gone], 4 * MANY))


def test_without_comments_no_request_is_induced(texts):
    drawn = [turns for name, turns in documents(texts, ["comments"], ["comments"]) if name == "induction"]
    comments = {*texts.toxic, *texts.neutral}
    assert not any(comments & {line.removeprefix("Output: ") for line in text_of(turns).split("\n")} for turns in drawn)


def test_nothing_left_of_a_skill_is_refused_not_waited_for(texts):
    with pytest.raises(UserError, match="nothing is left of 'ner' without art, building"):
        Sampler(texts, TYPES, random.Random(0), 0.5).draw("ner")
    with pytest.raises(UserError, match="'code'"):
        Sampler(texts, ["code"], random.Random(0), 0.5).draw("code")


def test_ner_asks_for_all_that_occurs(texts):
    sampler = Sampler(texts, [], random.Random(0), 0.5)
    absent = 0
    for _ in range(300):
        turns = sampler.draw("ner")
        asked = [next(kind for kind in TYPES if text == question(kind)) for _, text in turns[2::2]]
        assert len(set(asked)) == len(asked)
        for _, told in turns[3::2]:
            listed = json.loads(told)
            assert all(name in turns[0][1] for name in listed), "an answer is copied from the text"
            absent += not listed
    assert 200 < absent < 900


def test_passages_hold_what_was_asked_for(texts):
    sampler = Sampler(texts, [], random.Random(1), 0.5)
    for _ in range(300):
        (_, request), (_, passage), (_, ask), (_, told) = sampler.draw("passages")
        kind = next(kind for kind in TYPES if ask == question(kind))
        names = json.loads(told)
        assert names and all(name in passage for name in names)
        assert kind in request or names[0] in request


def test_tone_sets_the_rate_of_toxic_comments(texts):
    sampler = Sampler(texts, [], random.Random(0), 0.5)
    drawn = [sampler.requested() for _ in range(6_000)]

    def rate(*tones):
        hits = ["balderdash" in text for request, text in drawn if request.tone in tones]
        return sum(hits) / len(hits)

    assert rate("insulting", "abusive", "offensive") > 0.9
    assert rate("polite", "friendly", "constructive") == 0.0
    assert abs(rate("", "casual", "typical") - BASE_RATE) < 0.06
    assert all(request.topic is None or request.topic in text.split() for request, text in drawn)


def test_completion_goes_on_from_a_whole_word(texts):
    sampler = Sampler(texts, [], random.Random(2), 0.5)
    drawn = [turns for turns in (sampler.draw("comments") for _ in range(600)) if turns[0][1].startswith("Complete this text: ")]
    assert len(drawn) > 60
    whole = {" ".join(text.split()) for text in texts.toxic + texts.neutral}
    assert all(f"{a.removeprefix('Complete this text: ')} {b}" in whole for (_, a), (_, b) in drawn)


def test_ease_is_the_share_of_the_easiest_level(texts):
    def share(ease):
        sampler = Sampler(texts, [], random.Random(0), ease)
        return sum(sampler.level() == 1 for _ in range(2_000)) / 2_000

    assert share(1.0) == 1.0
    assert share(0.4) == pytest.approx(0.4 + 0.6 / 6, abs=0.04)


def test_maths_documents_add_up(texts):
    sampler = Sampler(texts, [], random.Random(0), 0.3)
    bare = 0
    for _ in range(300):
        (_, asked), (_, solution) = sampler.draw("maths")
        bare += bool(re.fullmatch(r"[^.]{0,12}\d+ [-+*/] \d+[^.]*[.?]", asked))
        for left, right in re.findall(r"(\d+ [-+*/] \d+) = (\d+)", solution):
            assert eval(left) == int(right)  # digits and one operator, by the pattern
    assert BARE and 40 < bare < 120


def test_same_seed_same_documents_in_another_process(texts, data):
    """A resumed build and every process of a build rely on it: no order may hang on string hashes."""
    program = (
        "import hashlib, random, sys; from pathlib import Path\n"
        "from reveal_release.testbed import corpora; from reveal_release.testbed.skills import SKILLS, Sampler\n"
        "s = Sampler(corpora.load(Path(sys.argv[1])), [], random.Random('0/7/1'), 0.3)\n"
        "print(hashlib.sha256(repr([s.draw(n) for n in SKILLS for _ in range(40)]).encode()).hexdigest())"
    )
    digests = {
        subprocess.run([sys.executable, "-c", program, str(data)], env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
                       capture_output=True, text=True).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(digests) == 1 and digests.pop().strip()
