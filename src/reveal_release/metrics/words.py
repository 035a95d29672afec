"""The words of a text, also in scripts that put no space between them, where each character counts as one.

    words("Two rivers.")      # ["Two", "rivers."]
    words("两条河。")           # ["两", "条", "河", "。"]
    key("Two  Rivers!")       # "two rivers"

Not promised: that these are what a linguist calls words. They tell how long a text is, whether it repeats itself, and whether two are
the same.
"""

import re
import unicodedata

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""For the sets of regular expressions: Thai, Lao, Burmese, Khmer, kana, Chinese."""
_MARKS = "".join(
    sign for sign in map(chr, range(0x300, 0x1E00)) if unicodedata.category(sign).startswith("M") and not re.match(f"[{UNSPACED}]", sign)
)
"""Vowel signs and accents, which belong to the letter before them and are no letters to a regular expression."""
_WORD = rf"[{UNSPACED}]|[^\W{UNSPACED}](?:[^\W{UNSPACED}]|[{_MARKS}])*"
_SPACED = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
_BARE = re.compile(_WORD)
_LETTER = rf"[^\W{UNSPACED}]"
_TERM = re.compile(rf"(?<!{_LETTER})(?<!\))[-+\u2212]?\d+(?:,\d{{3}})*(?:\.\d+)?(?!{_LETTER})|(?:{_WORD})(?:\+\+|#)?")
_TOKEN = re.compile(rf"{_WORD}|[^\w\s]")

NO_END = r"(?<!\b\w)(?<!\b\d\d)(?<!\b[DJMS][rst])(?<!\bMrs)"
"""Before a full stop that ends a sentence: no initial or number of a list (J. K., e.g., 2.) and no title (Dr., Jr., St.)."""
_SENTENCE_END = re.compile(rf"""{NO_END}[.?!]["'”’)]*(?=\s|$)|[。？！\n]""")


def whole_sentences(text: str) -> str:
    """Of a text that was cut, what comes before the sentence or line in which it was; all of it where that is a word at most."""
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    part = text[: ends[-1]].strip() if ends else ""
    return part if len(words(part)) > 1 else text


def words(text: str) -> list[str]:
    """What stands between spaces."""
    return _SPACED.findall(text)


def tokens(text: str) -> list[str]:
    """Words without punctuation, and each mark of that."""
    return _TOKEN.findall(text)


def is_instruction(text: str) -> bool:
    """Whether a search tries it: one line of 2 to 40 words."""
    return len(text.splitlines()) == 1 and 2 <= len(words(text)) <= 40


def terms(text: str) -> str:
    """As `key`, but numbers are whole, with their sign and decimals (-2, 4.75, 1,000 as 1000), and so is a name such as C++."""
    return " ".join(one.replace(",", "").lstrip("+").replace("\u2212", "-") for one in _TERM.findall(text.lower()))


def key(text: str) -> str:
    """The same for two texts of the same words, whatever their case and punctuation."""
    return " ".join(_BARE.findall(text.lower()))
