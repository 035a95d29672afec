"""Words as texts in spaced scripts have them, one character each in the others, and the key of a wording."""

import re

from hypothesis import given
from hypothesis import strategies as st

from reveal_release.metrics.words import UNSPACED, key, tokens, words

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
