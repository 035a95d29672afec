"""Reading, spacing, swapping and asking: against brute force, and on anything hypothesis writes."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.config import UserError
from reveal_release.testbed.entities import (
    READ,
    Passage,
    answer,
    coarse,
    complete,
    conversation,
    detokenise,
    load_fewnerd,
    pools,
    question,
    read_conll,
    swap,
)

WORDS = st.sampled_from("Ada and Lyon , . ( ) `` '' 's n't $ 5 % “ ” # ' é [ ] \"".split())
TAGS = st.sampled_from(["O", "B-person_x", "I-person_x", "B-art_y", "I-art_y"])


@st.composite
def passages(draw):
    """Words with random disjoint spans; words are either marks that spacing turns on or any text."""
    words = tuple(draw(st.lists(WORDS | st.text("abcXYZ'’-", min_size=1, max_size=5), min_size=1, max_size=14)))
    cuts = sorted(draw(st.sets(st.integers(0, len(words)), max_size=8)))
    fines = st.sampled_from(["person_a", "person_b", "art_film"])
    spans = [(a, b, draw(fines)) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    return Passage(words, tuple(spans))


def spans_by_force(tags):
    """Every maximal run that starts at a tag that opens a span and goes on with I- of the same type."""
    kinds = [tag[2:] for tag in tags]
    opens = [t != "O" and not (t[0] == "I" and i and tags[i - 1] != "O" and kinds[i - 1] == kinds[i]) for i, t in enumerate(tags)]
    return tuple(
        (i, j, kinds[i])
        for i in range(len(tags))
        for j in range(i + 1, len(tags) + 1)
        if opens[i]
        and all(tags[k] == f"I-{kinds[i]}" for k in range(i + 1, j))
        and (j == len(tags) or tags[j] != f"I-{kinds[i]}")
    )


@given(st.lists(st.lists(TAGS, min_size=1, max_size=8), min_size=1, max_size=4), st.integers(1, 3))
def test_bio_tags_against_brute_force(tmp_path_factory, sentences, blanks):
    path = tmp_path_factory.getbasetemp() / "bio.txt"
    blocks = ["".join(f"w{i}\t{tag}\n" for i, tag in enumerate(tags)) for tags in sentences]
    path.write_text(("\n" * blanks).join(blocks), encoding="utf-8")
    found = read_conll(path)
    assert [p.spans for p in found] == [spans_by_force(tags) for tags in sentences]
    assert [len(p.words) for p in found] == [len(tags) for tags in sentences]


@pytest.mark.parametrize(
    "line",
    ["Lyon\tNNP\tB-location", "Lyon B-location", "Lyon\tX-location", "Lyon\tlocation", "Lyon\tB-", "Lyon\to", "Lyon\t", "\tO"],
)
def test_anything_but_word_tab_tag_is_refused_with_its_line(tmp_path, line):
    path = tmp_path / "bad.txt"
    path.write_text(f"In\tO\nMay\tO\n\nto\tO\n{line}\nby\tO\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"^bad\.txt, line 5: "):
        read_conll(path)


def test_only_a_newline_ends_a_line(tmp_path):
    path = tmp_path / "odd.txt"
    path.write_bytes("a\u2028b\tB-art\r\n\u0085\tO\n".encode())
    assert read_conll(path) == [Passage(("a\u2028b", "\u0085"), ((0, 1, "art"),))]


@given(passages())
def test_every_entity_occurs_in_the_passage_text(passage):
    for names in passage.entities().values():
        assert len(set(names)) == len(names)
        assert all(name in passage.text for name in names)


@given(passages())
def test_entities_are_the_spans_by_coarse_type(passage):
    found = passage.entities()
    wanted = {(coarse(fine), detokenise(passage.words[a:b])) for a, b, fine in passage.spans}
    assert {(kind, name) for kind, names in found.items() for name in names} == wanted


def test_spacing():
    words = "He did n't pay $ 5 , 10 % ( or more ) for Ada 's `` kite '' .".split()
    assert detokenise(words) == "He didn't pay $5, 10% (or more) for Ada's \" kite \"."


def test_complete():
    def sentence(text, *spans):
        return complete(Passage(tuple(text.split()), spans))

    assert sentence("Then Ada left .", (1, 2, "person"))
    assert not sentence("Then Ada Byron left .", (1, 2, "person"))
    assert sentence("Ada left in May , as I said .")  # a sentence's first word, the calendar and "I" are no entities
    assert sentence("He said : They left . We stayed .")  # nor is what follows a stop
    assert not sentence("He met Ada .")


@given(passages(), st.integers(0, 2**32))
def test_swap_keeps_spans_on_their_entities(passage, seed):
    names = {fine: [("New",), ("Two", "Words"), ("Port", "of", "Call")] for fine in ("person_a", "person_b", "art_film")}
    swapped = swap(passage, names, random.Random(seed))
    assert [fine for *_, fine in swapped.spans] == [fine for *_, fine in passage.spans]
    chosen: dict = {}
    at = new_at = 0
    for (a, b, _), (c, d, _) in zip(passage.spans, swapped.spans, strict=True):
        assert swapped.words[new_at:c] == passage.words[at:a], "the words between entities stay"
        assert chosen.setdefault(passage.words[a:b], swapped.words[c:d]) == swapped.words[c:d], "one entity, one replacement"
        assert set(swapped.words[c:d]) <= {word for name in names["person_a"] for word in name}
        at, new_at = b, d
    assert swapped.words[new_at:] == passage.words[at:]


def test_swap_draws_from_the_same_fine_type():
    passage = Passage(("Ada", "in", "Lyon"), ((0, 1, "person_a"), (2, 3, "location_b")))
    names = {"person_a": [("Max",), ("Ruth", "Vale"), ("Ben", "Orr")], "location_b": [("Port", "Vela"), ("Mora",)]}
    drawn = [swap(passage, names, random.Random(seed)) for seed in range(300)]
    people = {p.words[slice(*p.spans[0][:2])] for p in drawn}
    mixed = {("Ruth", "Orr"), ("Ben", "Vale"), ("Ruth", "Max"), ("Ben", "Max")}
    assert people == {*names["person_a"], *mixed}
    assert {p.words[slice(*p.spans[1][:2])] for p in drawn} == {("Port", "Vela"), ("Mora",), ("Port", "Mora")}


def test_pools_hold_each_name_once():
    one = Passage(("Ada", "met", "Ada"), ((0, 1, "person_a"), (2, 3, "person_a")))
    other = Passage(("Ada", "Lyon"), ((0, 1, "art_film"), (1, 2, "person_a")))
    assert pools([one, other]) == {"person_a": [("Ada",), ("Lyon",)], "art_film": [("Ada",)]}


@given(passages())
def test_conversation_is_the_passage_once_and_a_question_a_type(passage):
    turns = list(conversation(passage, ["art", "person", "event"]))
    assert turns[:2] == [("user", f"Text: {passage.text}"), ("assistant", READ)]
    assert [role for role, _ in turns] == ["user", "assistant"] * 4
    assert [text for _, text in turns[2::2]] == [question(kind) for kind in ("art", "person", "event")]
    found = passage.entities()
    assert [json.loads(text) for _, text in turns[3::2]] == [found.get(kind, []) for kind in ("art", "person", "event")]


def test_answer_is_json_in_plain_letters():
    assert answer(["José", 'the "Kite"']) == '["José", "the \\"Kite\\""]'
    assert answer([]) == "[]"


def test_fewnerd_keeps_complete_sentences_once(data):
    splits = load_fewnerd(data / "ner_fewnerd_resplit")
    every = [p.text for part in splits.values() for p in part]
    assert all(splits.values()) and len(set(every)) == len(every) == 450
    assert not any("Karl met Ida" in text for text in every)
    assert all(complete(p) and 5 <= len(p.words) <= 40 for part in splits.values() for p in part)
