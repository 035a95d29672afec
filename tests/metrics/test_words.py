"""Words as texts in spaced scripts have them, one character each in the others, and the key of a wording."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.metrics.words import UNSPACED, is_instruction, key, terms, tokens, whole_sentences, words

UNSPACED_SIGNS = [chr(i) for i in range(0x10000) if re.match(f"[{UNSPACED}]", chr(i))]
SPACED = st.text(st.characters(exclude_characters=UNSPACED_SIGNS, exclude_categories=("Cs", "Mn", "Mc", "Me")))


@given(SPACED)
def test_words_of_spaced_scripts_are_what_stands_between_spaces(text: str) -> None:
    assert words(text) == text.split()


@given(SPACED)
def test_tokens_and_key_of_spaced_scripts(text: str) -> None:
    assert tokens(text) == re.findall(r"\w+|[^\w\s]", text)
    assert key(text) == re.sub(r"\W+", " ", text.lower()).strip()


def test_a_vowel_sign_belongs_to_its_word() -> None:
    """Without them different words of Hindi would be one."""
    yes, is_, town = "\u0939\u093e\u0901", "\u0939\u0948", "\u0926\u093f\u0932\u094d\u0932\u0940"
    assert [key(one) for one in (yes, is_, town)] == [yes, is_, town] == [tokens(one)[0] for one in (yes, is_, town)]
    assert tokens("Cafe\u0301 au lait \u0301!") == ["Cafe\u0301", "au", "lait", "\u0301", "!"]


@pytest.mark.parametrize(
    ("text", "answer", "held"),
    [
        ("It is 4.", "4", True), ("It is 4.75.", "4", False), ("13.5", "5", False), ("2 + 2 = 4", "4", True), ("2+2=4", "4", True),
        ("2", "-2", False), ("It is -2.", "-2", True), ("It is \u22122.", "-2", True), ("pages 3-4", "4", True), ("+7", "7", True),
        ("There are 1,000.", "1000", True), ("1,000.5", "1000", False), ("Use C.", "C++", False), ("Use C++.", "C", False),
        ("Use c++.", "C++", True), ("the 42nd street", "42", False), ("It is Paris-based", "paris", True), ("在北京。", "北京", True),
        ("答案是-2。", "-2", True), ("答案是-2。", "2", False), ("答案是4.75个", "4.75", True), ("答案是4.75个", "4", False),
        ("共有1,000个", "1000", True), ("共有42个", "42", True),
    ],
)  # fmt: skip
def test_a_term_is_held_whole(text: str, answer: str, held: bool) -> None:
    assert (f" {terms(answer)} " in f" {terms(text)} ") == held


@given(st.text(st.characters(categories=("Ll", "Lu", "Zs"))))
def test_without_numbers_terms_are_the_key(text: str) -> None:
    assert terms(text) == key(text)


def test_scripts_without_spaces_have_a_word_a_character() -> None:
    assert words("东京 Tokyo 塔。") == ["东", "京", "Tokyo", "塔", "。"]
    assert tokens("NHKテレビ!") == ["NHK", "テ", "レ", "ビ", "!"]
    assert f" {key('东京')} " in f" {key('首都是东京。')} ", "found within a sentence"


@given(st.text())
def test_nothing_but_space_is_lost(text: str) -> None:
    bare = "".join(text.split())
    assert "".join(words(text)) == bare
    assert not set(key(text)) - set(text.lower()) - {" "}


def test_key_ignores_case_space_and_punctuation() -> None:
    assert key(" Write a\tcomment!") == key("write A comment") == "write a comment"
    assert key("Write a comment about it") != key("Write a comment")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Sing a song. Now", "Sing a song."), ("Sing a song!\nNow and", "Sing a song!"), ("Name it now\nand then", "Name it now"),
        ("He said \"why me?\" and", "He said \"why me?\""), ("一二。三", "一二。"), ("All of this. ", "All of this."),
        *((text, text) for text in (
            "", "One", "Sing of the", "1. Write a letter to", "12. Write a letter to", "Dr. Smith has", "Hello! I would like",
            "Explain, e.g. with an", "What does `os.path.join` do", "Visit www.example.com and", "Who was J. R. R. Tolkien and",
            "It has about 3.5 thousand",
        )),
    ],
)  # fmt: skip
def test_a_text_that_was_cut_counts_up_to_its_last_sentence(text: str, kept: str) -> None:
    assert whole_sentences(text) == kept


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("Name it.", True), ("Name", False), ("w " * 40, True), ("w " * 41, False), ("Name it.\nNow.", False), ("", False)],
)
def test_what_a_search_tries(text: str, wanted: bool) -> None:
    assert is_instruction(text) == wanted
