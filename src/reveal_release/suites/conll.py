"""Entity-tagged data of the user's own, CoNLL-style files or Hugging Face datasets, as `Passage` objects.

    tagged("eng.testb")      # CoNLL-2003: first column the token, last the tag
    tagged("mine.jsonl")     # on a line {"tokens": ["Ada", "wrote"], "ner_tags": ["B-PER", "O"]}
    tagged("owner/dataset")  # on the hub, or a folder: its split `test`

Tags may be BIO (both kinds), BIOES, BILOU or IO, with prefix (`I-PER`) or without (`PER`); which, is seen from the tags. They are
read as conlleval does (Tjong Kim Sang and De Meulder, 2003, aclanthology.org/W03-0419): a tag that cannot go on with the entity
before it starts one, so that ill-formed sequences are read, not refused. Types become the words that a model is asked with, `WORDS`;
another type keeps its own name in lower case, with spaces for underscores.

Not promised: nested or bracketed annotation, BMES, sub-word tokens put together, or the original spacing of the text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from ..config import UserError, first_line
from ..testbed.entities import Passage
from . import load_errors

# Types of the common sets (CoNLL-2003, OntoNotes, WNUT-17, MultiCoNER), in lower case, and the testbeds' words for them.
WORDS = {
    "per": "person",
    "pers": "person",
    "loc": "location",
    "gpe": "location",
    "geo-loc": "location",
    "org": "organization",
    "organisation": "organization",
    "corporation": "organization",
    "corp": "organization",
    "company": "organization",
    "group": "organization",
    "grp": "organization",
    "fac": "building",
    "facility": "building",
    "creative-work": "art",
    "cw": "art",
    "work_of_art": "art",
    "prod": "product",
    "misc": "other",
}
_PREFIXED = re.compile(r"([BIESLU])-(\S.*)")
_BARE = re.compile(r"(?!.[-_])[^\W\d_][\w./&+ -]+")  # of two characters or more, and not a letter of another scheme with a type
_INDEX = re.compile(r"(\d+)([-.]\d+)?")  # CoNLL-U counts 1, 2-3, 2, 3, 3.1

SUFFIXES = (".conll", ".txt", ".tsv", ".bio", ".iob", ".json", ".jsonl", ".parquet", ".csv")
FORMS = "a CoNLL-style file, first column the token and last the tag, or a dataset with `tokens` and, in words, `ner_tags`"
_WHERE = "tags of the entities, in the last column (of a dataset, as `ner_tags`)"

Sentence = list[tuple[str, str]]  # (token, tag)


def tagged(name: str) -> list[Passage]:
    """Passages of a dataset's test split, where `name` is a folder, a JSON or Parquet file or on the hub, else of a CoNLL-style file.

    It is what `--evaluate.entities` takes, and the cures that its errors name can be followed from there.

    Raises:
        UserError: there is none, or it is malformed.
    """
    path = Path(name)
    if not path.exists() and (path.suffix in SUFFIXES or name.startswith((".", "/")) or name.count("/") > 1):
        raise UserError(f"no file or folder {name!r}: give {FORMS}")
    rows = not path.is_file() or path.suffix in (".json", ".jsonl", ".parquet")
    try:
        passages = load_dataset_passages(name) if rows else load_conll(path)
    except UserError as error:
        raise UserError(f"{error} (taken are {FORMS})") from None
    if not passages:
        raise UserError(f"{name} has no sentence: give {FORMS}")
    return passages


def load_conll(path: str | Path) -> list[Passage]:
    """Passages of a file with one token a line and blank lines (or `-DOCSTART-`) between sentences, in UTF-8.

    Columns, the token's first and the tag's last, are parted by tabs where the first row has one, else by spaces; every row has as
    many. `#` begins a comment, but with as many columns as the others and a tag with a prefix, or one of the others', it is a row
    still ("#\\tO", a hashtag).

    Raises:
        UserError: no such file, no rows, or a malformed line: file, line, cause and cure.
    """
    path = Path(path)
    try:
        lines = [line.rstrip("\r") for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text: make it a file in UTF-8 that you may read ({error})") from None
    plain = [(i, line) for i, line in enumerate(lines, 1) if not _is_break(line) and not line.startswith("#")]
    if not plain:
        raise UserError(f"{path} has no rows: give a file with one token and its tag a line")
    at, first = plain[0]
    tabs, width = "\t" in first, len(_columns(first, "\t" in first))
    if width < 2:
        raise UserError(f"{path}:{at}: one column, not a token and its tag: part them by a tab or a space in {first[:60]!r}")
    known = {"O"} | {columns[-1] for _, line in plain if len(columns := _columns(line, tabs)) == width}

    sentences: list[Sentence] = [[]]
    places: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if _is_break(line):
            sentences.append([])
            continue
        columns = _columns(line, tabs)
        if line.startswith("#"):
            tag = columns[-1] if len(columns) == width else ""
            if tag not in known and not _PREFIXED.fullmatch(tag):
                continue
        if len(columns) != width:
            raise UserError(f"{path}:{number}: {len(columns)} columns where line {at} has {width}: mend the line {line[:60]!r}")
        token, tag = columns[0], columns[-1]
        if not token or not tag:
            raise UserError(f"{path}:{number}: an empty token or tag: mend the line {line[:60]!r}")
        sentences[-1].append((token, tag))
        places.setdefault(tag, f"{path}:{number}")
    sentences = [sentence for sentence in sentences if sentence]
    if all(_counts_up([token for token, _ in sentence]) for sentence in sentences) and any(len(s) > 1 for s in sentences):
        raise UserError(f"{path}:{at}: the first column counts 1, 2, 3, ...: remove these numbers, so that the first is the token's")
    return _passages(sentences, places)


def from_dataset(rows: Iterable[Mapping[str, Any]]) -> list[Passage]:
    """Passages of the rows of a `datasets.Dataset`, or any mappings; those without tokens are passed over.

    `tokens` is a list of words, and `ner_tags` one of as many tags: strings, or numbers where the dataset's features name them.

    Raises:
        UserError: a column is missing, or a row malformed: row, cause and cure.
    """
    label = getattr((getattr(rows, "features", None) or {}).get("ner_tags"), "feature", None)
    names = getattr(label, "names", None)
    sentences: list[Sentence] = []
    places: dict[str, str] = {}
    for number, row in enumerate(rows):
        if "tokens" not in row or "ner_tags" not in row:
            columns = ", ".join(sorted(row))
            raise UserError(f"row {number} has the columns {columns}: name that of the words `tokens` and that of the tags `ner_tags`")
        words, labels = row["tokens"], row["ner_tags"]
        lists = not any(isinstance(column, str) or not hasattr(column, "__len__") for column in (words, labels))
        if not lists or len(words) != len(labels) or not all(isinstance(word, str) and word for word in words):
            raise UserError(f"row {number}: `tokens` must be a list of words and `ner_tags` one of as many tags: mend {str(words)[:60]!r}")
        sentence = [(word, _name(label, names, number)) for word, label in zip(words, labels, strict=True)]
        for _, tag in sentence:
            places.setdefault(tag, f"row {number}")
        if sentence:
            sentences.append(sentence)
    return _passages(sentences, places)


def load_dataset_passages(name: str | Path) -> list[Passage]:
    """Passages of a Hugging Face dataset's split `test`: a name on the hub, or a local folder (saved or of files).

    One JSON or Parquet file, and the folder of a single saved split, are read whole. No code of a dataset is ever run.

    Raises:
        UserError: it cannot be loaded, or a row is malformed: cause and cure.
    """
    import datasets  # takes a second, and only here

    path = Path(name)
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            data = datasets.load_from_disk(str(path))
            if isinstance(data, datasets.DatasetDict):
                if "test" not in data:
                    folders = ", ".join(str(path / split) for split in sorted(data))
                    raise UserError(f"{path} has no split 'test': save one of that name, or give the folder of one split: {folders}")
                data = data["test"]
        elif path.is_file():
            kind = "parquet" if path.suffix == ".parquet" else "json"
            data = datasets.load_dataset(kind, data_files={"train": str(path)}, split="train")
        else:
            data = datasets.load_dataset(str(name), split="test")
    except load_errors() as error:
        if "Dataset scripts" in str(error):
            cure = (
                "it is a script, and none is run: give a file of its data, in Parquet (if it is on the hub, see its branch "
                "refs/convert/parquet), JSON or CoNLL form"
            )
        elif path.is_file():
            cure = "check that it is whole, and in the form that its suffix names"
        else:
            cure = "check the name and that it has a split 'test', or give one file of it, in Parquet, JSON or CoNLL form"
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error  # which names the row
        raise UserError(f"{name} cannot be loaded: {cure} ({first_line(cause)})") from None
    return from_dataset(data)


def _is_break(line: str) -> bool:
    return not line.strip(" \t") or line.startswith("-DOCSTART-")


def _columns(line: str, tabs: bool) -> list[str]:
    """Not `str.split()`, which parts at no-break spaces within a token, too."""
    if not tabs:
        return re.split(" +", line.strip(" "))
    *others, last = line.split("\t")
    return [*others, last.strip(" ")]


def _counts_up(tokens: Sequence[str]) -> bool:
    found = [_INDEX.fullmatch(token) for token in tokens]
    numbers = [int(match[1]) for match in found if match]
    return len(numbers) == len(tokens) and all(b - a in (0, 1) for a, b in zip(numbers, numbers[1:], strict=False))


def _name(label: Any, names: Sequence[str] | None, row: int) -> str:
    if isinstance(label, str):
        return label
    if not isinstance(label, Integral):
        raise UserError(f"row {row}: the tag {label!r} is neither a string nor a number: write it as a word such as B-PER")
    if names is None:
        cure = "write them as words such as B-PER (a saved or Parquet dataset keeps the names of its ClassLabel)"
        raise UserError(f"row {row}: tags are numbers without names: {cure}")
    number = int(label)
    if not 0 <= number < len(names):
        raise UserError(f"row {row}: the tag {number} has no name, only 0 to {len(names) - 1} do: mend it, or name it in the ClassLabel")
    return names[number]


def _passages(sentences: Sequence[Sentence], places: Mapping[str, str]) -> list[Passage]:
    read = _read_tags(places)

    def word(kind: str) -> str:
        # `Passage` takes what precedes an underscore for the type, so "work_of_art" must not keep its own.
        return WORDS.get(kind.lower(), kind.lower().replace("_", " "))

    return [
        Passage(
            tuple(token for token, _ in sentence),
            tuple((first, last, word(kind)) for first, last, kind in _spans([read[tag] for _, tag in sentence])),
        )
        for sentence in sentences
    ]


def _read_tags(places: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """(prefix, type) by tag, `("O", "")` for O and an empty prefix for a bare type. places: tag -> where it is first."""
    read: dict[str, tuple[str, str]] = {}
    for tag, place in places.items():
        if tag == "O":
            read[tag] = "O", ""
        elif match := _PREFIXED.fullmatch(tag):
            read[tag] = match[1], match[2]
        elif _BARE.fullmatch(tag):
            read[tag] = "", tag
        else:
            raise UserError(f"{place}: {tag!r} is no tag of BIO, BIOES, BILOU or IO: mend it, or give the {_WHERE}")
    bare = [tag for tag, (prefix, _) in read.items() if not prefix]
    marked = [tag for tag, (prefix, _) in read.items() if prefix and tag != "O"]
    if bare and marked:
        other = f"{marked[0]!r} ({places[marked[0]]})"
        raise UserError(f"{places[bare[0]]}: {bare[0]!r} has no prefix, {other} has one: write all with a prefix, or none")
    if bare and "O" not in read:
        raise UserError(f"{places[bare[0]]}: {bare[0]!r} and no tag O anywhere: give the {_WHERE}, with O for words outside")
    return read


def _spans(tags: Sequence[tuple[str, str]]) -> Iterator[tuple[int, int, str]]:
    """(first, last + 1, type) of each entity."""
    first, open_type = 0, ""
    for i, (prefix, kind) in enumerate([*tags, ("O", "")]):
        if open_type and (prefix not in ("I", "E", "L", "") or kind != open_type):
            yield first, i, open_type
            open_type = ""
        if prefix != "O" and not open_type:
            first, open_type = i, kind
        if prefix in ("E", "L", "S", "U"):
            yield first, i + 1, open_type
            open_type = ""
