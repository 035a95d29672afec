"""What is kept: no near-duplicates, nothing broken, no instruction above its cap, in the order it came."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.reveal.curation import NearDuplicates, curate, shingles
from reveal_release.tasks import Record

TEXTS = st.lists(st.lists(st.sampled_from("red blue sea sky .".split()), max_size=9).map(" ".join), max_size=25)


def jaccard(a: str, b: str) -> float:
    """Of word trigrams, straight from the definition."""

    def grams(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+|[^\w\s]", text.lower())
        return {tuple(words[i : i + 3]) for i in range(len(words) - 2)} or {tuple(words)}

    x, y = grams(a), grams(b)
    return len(x & y) / len(x | y)


@given(TEXTS, st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
def test_near_duplicates_are_those_of_brute_force(texts: list[str], threshold: float) -> None:
    index, kept = NearDuplicates(threshold), []
    for text in texts:
        expected = all(jaccard(text, other) <= threshold for other in kept)
        assert index.add(text) == expected
        if expected:
            kept.append(text)


def test_shingles_ignore_case_and_part_off_punctuation() -> None:
    assert shingles("The sea, THE sky") == {("the", "sea", ","), ("sea", ",", "the"), (",", "the", "sky")}
    assert shingles("Hello") == {("hello",)} and shingles("") == {()}


def record(completion: str, score: float = 0.9, instruction: str = "Write.") -> Record:
    return Record((("user", instruction),), completion, score, instruction)


WORDS = "one two three four five six seven eight nine ten eleven twelve".split()
NEW = [f"{a} green {b} boats left" for a in WORDS for b in WORDS[:3]]


def test_cap_holds_over_several_calls_and_by_instruction() -> None:
    kept: list[Record] = []
    seen = NearDuplicates()
    for start in (0, 6):
        part = [record(text, instruction="AB"[i % 2]) for i, text in enumerate(NEW[start : start + 6])]
        curate(part, lambda r: True, kept, cap=4, seen=seen)
    assert [r.instruction for r in kept].count("A") == [r.instruction for r in kept].count("B") == 4


def test_order_is_that_of_the_input_and_the_score_decides() -> None:
    records = [record(text, score=i / 10) for i, text in enumerate(NEW[:10])]
    kept = curate(records, lambda r: r.score >= 0.5, [], seen=NearDuplicates())
    assert kept == records[5:]


@pytest.mark.parametrize("text", ["", "word", "no no no no no", "a b c " * 6])
def test_broken_text_is_dropped(text: str) -> None:
    assert curate([record(text)], lambda r: True, [], seen=NearDuplicates()) == []


def test_an_answer_that_says_nothing_is_dropped_whatever_its_prompt() -> None:
    assert curate([record(" \n")], lambda r: True, [], NearDuplicates(), text=lambda r: f"{r.instruction} {r.completion}") == []


def test_scripts_without_spaces_are_curated_by_characters() -> None:
    texts = ("这条河流过老桥和城市的花园。", "这条河流过老桥和城市的花园！", "明天早上船会开到北方去。")
    first, near, other = map(record, texts)
    assert curate([first, near, other], lambda r: True, [], seen=NearDuplicates()) == [first, other]


def test_what_is_dropped_blocks_nothing() -> None:
    """A text below the threshold or over the cap leaves no trace in the index."""
    seen = NearDuplicates()
    low, again = record(NEW[0], score=0.1), record(NEW[0], score=0.9)
    assert curate([low, again], lambda r: r.score > 0.5, [], seen=seen) == [again]
    capped = [record(NEW[3], instruction="A"), record(NEW[8], instruction="A"), record(NEW[8], instruction="B")]
    assert curate(capped, lambda r: True, [], cap=1, seen=NearDuplicates()) == [capped[0], capped[2]]


def test_a_duplicate_of_an_earlier_call_is_dropped() -> None:
    seen = NearDuplicates()
    kept = curate([record(NEW[0])], lambda r: True, [], seen=seen)
    assert curate([record(NEW[0].upper())], lambda r: True, kept, seen=seen) == [record(NEW[0])]


def test_text_chooses_what_must_be_new() -> None:
    records = [record(NEW[0], instruction=text) for text in ("Where is the grey boat now?", "Who has seen a red lamp?")]
    assert len(curate(records, lambda r: True, [], seen=NearDuplicates())) == 1
    both = curate(records, lambda r: True, [], NearDuplicates(), text=lambda r: f"{r.instruction} {r.completion}")
    assert both == records
