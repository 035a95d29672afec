"""Named-entity data: CoNLL-style files, the UniversalNER conversation, and entity swapping.

A passage comes with its entities by type. The conversation form is UniversalNER's (arXiv 2308.03279): the passage once, then
one question a type, each answered with a JSON list, empty where there is none.

Two traps that this file exists for:
- The Few-NERD re-split labels 36 fine types in two of its files and 17 *others* in the third; in each, entities of the absent
  types are tagged `O`. `complete` keeps only sentences in which every capitalised word past the first is inside a span, so that
  what is asked for is what is there.
- A small model does not learn to copy while memorising answers is cheaper. `swap` puts random entities of the same fine type in
  place of the real ones, so that copying is the only way to answer.
"""

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import UserError

TYPES = ("person", "location", "organization", "building", "art", "product", "event")
READ = "I've read this text."
_CALENDAR = set(
    "January February March April May June July August September October November December Monday Tuesday Wednesday Thursday "
    "Friday Saturday Sunday I".split()
)
_TAG = re.compile(r"O|[BI]-\S+")
_NO_SPACE_BEFORE = re.compile(r"^([.,;:!?%)\]}]|'s|'|n't|'\w+|’s|”)$")
_NO_SPACE_AFTER = {"(", "[", "{", "$", "“", "#"}


@dataclass(frozen=True)
class Passage:
    """Words of a sentence and its entity spans: `(first, last + 1, fine type)`; the coarse type precedes the first `_`."""

    words: tuple[str, ...]
    spans: tuple[tuple[int, int, str], ...]

    @property
    def text(self) -> str:
        return detokenise(self.words)

    def entities(self) -> dict[str, list[str]]:
        """Entity strings by coarse type, in order, each once."""
        found: dict[str, list[str]] = {}
        for first, last, fine in self.spans:
            names = found.setdefault(coarse(fine), [])
            name = detokenise(self.words[first:last])
            if name not in names:
                names.append(name)
        return found


def coarse(fine: str) -> str:
    return fine.split("_")[0]


def detokenise(words: Sequence[str]) -> str:
    """Joins treebank-style words. Spacing depends on neighbours only, so an entity's text is a substring of its passage's."""
    pieces: list[str] = []
    for i, word in enumerate(words):
        if i and not _NO_SPACE_BEFORE.match(word) and words[i - 1] not in _NO_SPACE_AFTER:
            pieces.append(" ")
        pieces.append('"' if word in ("``", "''") else word)
    return "".join(pieces)


def read_conll(path: Path) -> list[Passage]:
    """Reads `word TAB tag` lines with blank lines between sentences (BIO tags; other columns are refused, not guessed).

    Raises:
        UserError: a line is something else; says which.
    """
    passages = []
    rows: list[tuple[str, str]] = []
    for number, line in enumerate([*path.read_text(encoding="utf-8").split("\n"), ""], start=1):
        if not line.strip():
            if rows:
                passages.append(_passage(rows))
            rows = []
            continue
        columns = line.split("\t")
        if len(columns) != 2 or not columns[0] or not _TAG.fullmatch(columns[1]):
            raise UserError(f"{path.name}, line {number}: not `word TAB tag`: {line[:60]!r}")
        rows.append((columns[0], columns[1]))
    return passages


def _passage(rows: Sequence[tuple[str, str]]) -> Passage:
    spans: list[tuple[int, int, str]] = []
    for i, (_, tag) in enumerate(rows):
        kind = tag[2:]
        if tag.startswith("I-") and spans and spans[-1][1] == i and spans[-1][2] == kind:
            spans[-1] = (spans[-1][0], i + 1, kind)
        elif tag != "O":
            spans.append((i, i + 1, kind))
    return Passage(tuple(word for word, _ in rows), tuple(spans))


def complete(passage: Passage) -> bool:
    """Whether no capitalised word past the first is outside every span, that is, whether no entity seems unlabelled."""
    inside = {i for first, last, _ in passage.spans for i in range(first, last)}
    return all(
        i in inside or not word[:1].isupper() or word in _CALENDAR or passage.words[i - 1] in ("``", '"', ".", ":")
        for i, word in enumerate(passage.words)
        if i
    )


def load_fewnerd(folder: Path) -> dict[str, list[Passage]]:
    """Complete, de-duplicated passages of 5 to 40 words by split; one sentence is always in the same split.

    Returns:
        `train`, `validation` and `test` lists. The split is by a stable hash of the text, since the files' own split is by type.
    """
    from .comments import stable_fraction

    splits: dict[str, list[Passage]] = {"train": [], "validation": [], "test": []}
    seen: set[str] = set()
    for name in ("dev.txt", "test.txt", "big_test.txt"):
        for passage in read_conll(folder / name):
            text = passage.text
            if text in seen or not 5 <= len(passage.words) <= 40 or not complete(passage):
                continue
            seen.add(text)
            at = stable_fraction(text, "fewnerd")
            splits["test" if at < 0.08 else "validation" if at < 0.11 else "train"].append(passage)
    return splits


def pools(passages: Sequence[Passage]) -> dict[str, list[tuple[str, ...]]]:
    """All distinct entities (as words) by fine type."""
    found: dict[str, dict[tuple[str, ...], None]] = {}
    for passage in passages:
        for first, last, fine in passage.spans:
            found.setdefault(fine, {})[passage.words[first:last]] = None
    return {fine: list(names) for fine, names in found.items()}


def swap(passage: Passage, names: Mapping[str, Sequence[tuple[str, ...]]], rng: random.Random) -> Passage:
    """The passage with each entity replaced by a random one of its fine type, or by a new mix of two of them.

    The same entity is replaced by the same one everywhere in the passage.
    """
    chosen: dict[tuple[str, ...], tuple[str, ...]] = {}
    words: list[str] = []
    spans = []
    at = 0
    for first, last, fine in passage.spans:
        words += passage.words[at:first]
        old = passage.words[first:last]
        if old not in chosen:
            new = rng.choice(names[fine])
            if len(new) > 1 and rng.random() < 0.5:  # a name nobody has seen: the first half of one, the last of another
                new = (*new[:-1], rng.choice(names[fine])[-1])
            chosen[old] = new
        spans.append((len(words), len(words) + len(chosen[old]), fine))
        words += chosen[old]
        at = last
    return Passage((*words, *passage.words[at:]), tuple(spans))


def question(kind: str, form: str = "") -> str:
    return f"What describes {kind} in the text?{form}"


def asked(passage: str, kind: str, form: str = "") -> tuple[tuple[str, str], ...]:
    """UniversalNER's conversation up to the question for a type; `form`: what the question says of its answer."""
    return (("user", f"Text: {passage}"), ("assistant", READ), ("user", question(kind, form)))


def answer(names: Sequence[str]) -> str:
    return json.dumps(list(names), ensure_ascii=False)


def conversation(passage: Passage, kinds: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The (role, content) turns that ask for each of `kinds` in turn."""
    entities = passage.entities()
    yield "user", f"Text: {passage.text}"
    yield "assistant", READ
    for kind in kinds:
        yield "user", question(kind)
        yield "assistant", answer(entities.get(kind, []))
