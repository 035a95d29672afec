"""Entity-tagged data of the user's own, CoNLL-style files or Hugging Face datasets, as `Passage` objects.

    tagged("eng.testb")                                                # what `--evaluate.entities` takes
    load_conll("eng.testb")                                            # CoNLL-2003: first column the token, last the tag
    load_conll("test.conll", token_column=1, types={"DIS": "disease"})
    load_dataset_passages("folder-or-name", "test")                    # tokens and ner_tags, as most sets have them
    from_dataset([{"tokens": ["Ada", "wrote"], "ner_tags": [1, 0]}], names=["O", "B-PER"])

Tags may be BIO (both kinds), BIOES, BILOU or IO, with prefix (`I-PER`) or without (`PER`); which, is seen from the tags. They are
read as conlleval does (Tjong Kim Sang and De Meulder, 2003, aclanthology.org/W03-0419): a tag that cannot go on with the entity
before it starts one, so that ill-formed sequences are read, not refused. Types become the words that a model is asked with: `WORDS`,
under the caller's `types`; another type keeps its own name in lower case, with spaces for underscores.

Not promised: nested or bracketed annotation, BMES, sub-word tokens put together, or the original spacing of the text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from ..config import UserError
from ..testbed.entities import Passage

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

Sentence = list[tuple[str, str]]  # (token, tag)


def tagged(name: str) -> list[Passage]:
    """Passages of a dataset's test split, where `name` is a folder, a JSON or Parquet file or on the hub, else of a CoNLL-style file.

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


def load_conll(
    path: str | Path,
    token_column: int = 0,
    tag_column: int = -1,
    types: Mapping[str, str] | None = None,
    comment: str | None = "#",
) -> list[Passage]:
    """Passages of a file with one token a line and blank lines (or `-DOCSTART-`) between sentences, in UTF-8.

    Args:
        path: columns are parted by tabs where the first row has one, else by spaces; every row has as many.
        token_column, tag_column: from 0, or from the end where negative.
        types: the data's types (in any case) and the words to ask with, over those of `WORDS`.
        comment: what a comment line starts with; one with as many columns as the others and a tag with a prefix, or one of the
            others', is a row still ("#\\tO", a hashtag). None: there are no comments.

    Raises:
        UserError: no such file, no rows, or a malformed line: file, line, cause and cure.
    """
    path = Path(path)
    try:
        lines = [line.rstrip("\r") for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text: {error}") from None
    plain = [(i, line) for i, line in enumerate(lines, 1) if not _is_break(line) and not (comment and line.startswith(comment))]
    if not plain:
        raise UserError(f"{path} has no rows: give a file with one token and its tag a line")
    at, first = plain[0]
    tabs, width = "\t" in first, len(_columns(first, "\t" in first))
    if not -width <= min(token_column, tag_column) <= max(token_column, tag_column) < width or token_column % width == tag_column % width:
        raise UserError(
            f"{path}:{at}: {width} columns ({'tabs' if tabs else 'spaces'} between them), but token_column is {token_column} and "
            f"tag_column {tag_column}: give two different ones from 0 to {width - 1}"
        )
    known = {"O"} | {columns[tag_column] for _, line in plain if len(columns := _columns(line, tabs)) == width}

    sentences: list[Sentence] = [[]]
    places: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if _is_break(line):
            sentences.append([])
            continue
        columns = _columns(line, tabs)
        if comment and line.startswith(comment):
            tag = columns[tag_column] if len(columns) == width else ""
            if tag not in known and not _PREFIXED.fullmatch(tag):
                continue
        if len(columns) != width:
            raise UserError(f"{path}:{number}: {len(columns)} columns where line {at} has {width}: mend the line {line[:60]!r}")
        token, tag = columns[token_column], columns[tag_column]
        if not token or not tag:
            raise UserError(f"{path}:{number}: an empty token or tag: mend the line {line[:60]!r}")
        sentences[-1].append((token, tag))
        places.setdefault(tag, f"{path}:{number}")
    sentences = [sentence for sentence in sentences if sentence]
    if all(_counts_up([token for token, _ in sentence]) for sentence in sentences) and any(len(s) > 1 for s in sentences):
        raise UserError(
            f"{path}:{at}: column {token_column} counts 1, 2, 3, ...: it is the tokens' number; "
            "give the column of the tokens themselves as token_column (counted from 0)"
        )
    return _passages(sentences, places, types)


def from_dataset(
    rows: Iterable[Mapping[str, Any]],
    tokens: str = "tokens",
    tags: str = "ner_tags",
    names: Sequence[str] | None = None,
    types: Mapping[str, str] | None = None,
) -> list[Passage]:
    """Passages of a dataset's rows; rows without tokens are passed over.

    Args:
        rows: a `datasets.Dataset`, or any mappings.
        tokens: the column of lists of words. tags: the column of as many tags, strings or numbers.
        names: the tag of each number (`ClassLabel.names`); by default those of the dataset's own features.
        types: see `load_conll`.

    Raises:
        UserError: a column is missing, or a row malformed: row, cause and cure.
    """
    label = getattr((getattr(rows, "features", None) or {}).get(tags), "feature", None)
    names = names if names is not None else getattr(label, "names", None)
    sentences: list[Sentence] = []
    places: dict[str, str] = {}
    for number, row in enumerate(rows):
        if tokens not in row or tags not in row:
            raise UserError(f"row {number} has the columns {', '.join(sorted(row))}: name those of the words and tags (tokens=, tags=)")
        words, labels = row[tokens], row[tags]
        lists = not any(isinstance(column, str) or not hasattr(column, "__len__") for column in (words, labels))
        if not lists or len(words) != len(labels) or not all(isinstance(word, str) and word for word in words):
            raise UserError(f"row {number}: {tokens!r} must be a list of words and {tags!r} one of as many tags: {str(words)[:60]!r}")
        sentence = [(word, _name(label, names, number)) for word, label in zip(words, labels, strict=True)]
        for _, tag in sentence:
            places.setdefault(tag, f"row {number}")
        if sentence:
            sentences.append(sentence)
    return _passages(sentences, places, types)


def load_dataset_passages(
    name_or_folder: str | Path,
    split: str = "test",
    tokens: str = "tokens",
    tags: str = "ner_tags",
    names: Sequence[str] | None = None,
    types: Mapping[str, str] | None = None,
    config: str | None = None,
    revision: str | None = None,
) -> list[Passage]:
    """Passages of a Hugging Face dataset: a name on the hub, a local folder (saved or of files), or one JSON or Parquet file.

    Args:
        split: which part; one file, and a single saved part, are read whole.
        tokens, tags, names, types: see `from_dataset`; JSON has no names of its own for tags that are numbers.
        config: the dataset's configuration. revision: branch, tag or commit on the hub.

    Raises:
        UserError: it cannot be loaded, or a row is malformed. No code of a dataset is ever run.
    """
    import datasets  # takes a second, and only here

    path = Path(name_or_folder)
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            data = datasets.load_from_disk(str(path))
            if isinstance(data, datasets.DatasetDict):
                if split not in data:
                    raise UserError(f"{path} has no split {split!r}: choose from {', '.join(sorted(data))}")
                data = data[split]
        elif path.is_file():
            kind = "parquet" if path.suffix == ".parquet" else "json"
            data = datasets.load_dataset(kind, data_files={"train": str(path)}, split="train")
        else:
            data = datasets.load_dataset(str(name_or_folder), config, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError, StopIteration, datasets.exceptions.DatasetsError) as error:
        cure = "try revision='refs/convert/parquet'" if "script" in str(error) else "check the name, split and configuration"
        reason = (str(error) or type(error).__name__).split("\n")[0]
        raise UserError(f"split {split!r} of {name_or_folder} cannot be loaded: {cure} ({reason})") from None
    return from_dataset(data, tokens, tags, names, types)


def _is_break(line: str) -> bool:
    return not line.strip(" \t") or line.startswith("-DOCSTART-")


def _columns(line: str, tabs: bool) -> list[str]:
    """Not `str.split()`, which parts at no-break spaces within a token, too."""
    return line.split("\t") if tabs else re.split(" +", line.strip(" "))


def _counts_up(tokens: Sequence[str]) -> bool:
    found = [_INDEX.fullmatch(token) for token in tokens]
    numbers = [int(match[1]) for match in found if match]
    return len(numbers) == len(tokens) and all(b - a in (0, 1) for a, b in zip(numbers, numbers[1:], strict=False))


def _name(label: Any, names: Sequence[str] | None, row: int) -> str:
    if isinstance(label, str):
        return label
    if not isinstance(label, Integral):
        raise UserError(f"row {row}: the tag {label!r} is neither a string nor a number: check the column of the tags (tags=)")
    if names is None:
        raise UserError(f"row {row}: tags are numbers: give their names, in order (names=['O', 'B-PER', ...])")
    number = int(label)
    if not 0 <= number < len(names):
        raise UserError(f"row {row}: the tag {number} has no name: {len(names)} are given")
    return names[number]


def _passages(sentences: Sequence[Sentence], places: Mapping[str, str], types: Mapping[str, str] | None) -> list[Passage]:
    read = _read_tags(places)
    words = WORDS | {kind.lower(): word for kind, word in (types or {}).items()}

    def word(kind: str) -> str:
        # `Passage` takes what precedes an underscore for the type, so "work_of_art" must not keep its own.
        return words.get(kind.lower(), kind.lower().replace("_", " "))

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
            raise UserError(f"{place}: {tag!r} is no tag of BIO, BIOES, BILOU or IO: check the column of the tags, or mend it")
    bare = [tag for tag, (prefix, _) in read.items() if not prefix]
    marked = [tag for tag, (prefix, _) in read.items() if prefix and tag != "O"]
    if bare and marked:
        raise UserError(f"{places[bare[0]]}: {bare[0]!r} has no prefix, {marked[0]!r} ({places[marked[0]]}) has one: use one scheme")
    if bare and "O" not in read:
        raise UserError(f"{places[bare[0]]}: {bare[0]!r} and no tag O anywhere: is it the column of the entity tags?")
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
