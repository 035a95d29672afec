"""Read the three raw comment sets into one list of labelled, cleaned, split comments.

    from reveal_release.testbed.comments import comments
    rows = comments(Path("raw"))          # raw/tox_paradetox, raw/tox_civil_comments_toxic_spans, ...

Both the bundled toxicity scorers and the testbed's training text are made from this list, so that their
held-out parts are the same. Sources, as `Comment.source` names them:

* ``paradetox``: ParaDetox (Logacheva et al., ACL 2022), toxic sentences with human neutral rewrites; the
  sentences that the workers marked as toxic in content beyond rewriting are toxic comments without a pair.
* ``civil_comments``: whole posts of the Toxic Spans set (Pavlopoulos et al., SemEval-2021 task 5), all toxic.
  Posts that half of the annotators found no toxic span in are left out: Civil Comments' own raters had called
  every one of these posts toxic, so they are disputed, not neutral.
* ``civil_sentences``: single sentences of the posts kept. One that at least half of the annotators found a
  toxic span in is toxic; one without any annotator's span is neutral. This is what gives neutral text of the
  same authors and topics, which the posts lack.
* ``wikipedia``: talk-page comments (Pavlopoulos et al., ACL 2020), mostly neutral. Toxic ones are rare, so four
  in ten of those are held out, not one in ten.

Labels are crowd labels and noisy. Nothing here promises that a neutral comment is polite.
"""

import csv
import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config import UserError

Split = Literal["train", "validation", "test"]
PARADETOX = "tox_paradetox"
CIVIL = "tox_civil_comments_toxic_spans"
WIKIPEDIA = "tox_wikipedia_context"


@dataclass(frozen=True)
class Comment:
    """One comment.

    text: cleaned, one line, original casing.
    group: a key shared by all comments that come from the same original post or pair; splits keep groups whole.
    """

    text: str
    toxic: bool
    source: str
    split: Split
    group: str = ""


_MARKUP = [
    (re.compile(r"<[^<>]{1,200}>"), " "),  # HTML tags
    (re.compile(r"\{\{[^{}]*\}\}"), " "),  # wiki templates
    (re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]"), r"\1"),  # [[target|words]] -> words
    (re.compile(r"\[?\b(?:https?://|www\.)\S+", re.IGNORECASE), " "),  # URLs, also [URL words]
    (re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.]+"), " "),  # e-mail addresses
    (re.compile(r"'{2,}"), ""),  # wiki bold and italics
    (re.compile(r"={2,}"), " "),  # wiki headings
    # Talk-page time stamps: "18:03 15 Jun 2003 (UTC)", "04:12, June 3, 2006 (UTC)", and the cut "04:1".
    (re.compile(r"\d{1,2}:\d{1,2},? (?:\d{1,2} \w+|\w+ \d{1,2}),? \d{4}(?: \(UTC\))?"), " "),
    (re.compile(r"\(UTC\)"), " "),
    (re.compile(r"\b(?:User|User talk):\S+", re.IGNORECASE), " "),
    (re.compile(r"\((?:\s|\||talk|contribs|•|·)*\)", re.IGNORECASE), " "),
]
_SIGNATURE = re.compile(r"(?:[\s|/~*+:(–—-]|\be/c\)|\bWRE\))+\)?$|\s\d{1,2}:\d{0,2}$")
_QUOTES = str.maketrans({"‘": "'", "’": "'", "`": "'", "´": "'", "“": '"', "”": '"', "…": "..."})
_BREAK = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n\s*\n")


def clean(text: str) -> str:
    """One readable line: markup, URLs, time stamps and signatures dropped, quotes unified, tokenisation undone.

    Every source goes through this, so that none can be told by its typography.
    """
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"(?<=\w) ' (?=\w{1,2}\b)", "'", text)  # "don ' t" -> "don't"
    text = re.sub(r" (n ?'t|'(?:t|s|m|re|ve|ll|d))\b", r"\1", text)
    text = re.sub(r"\s+([.,;:!?%)\]])", r"\1", text)
    text = re.sub(r"([(\[])\s+", r"\1", text)
    text = re.sub(r'^"+|"+$', "", text) if text.count('"') % 2 else text
    return _SIGNATURE.sub("", text).strip()


def fingerprint(text: str) -> str:
    """The text without case, punctuation and spacing: equal fingerprints are one comment."""
    return "".join(re.findall(r"\w", text.lower()))


def stable_fraction(key: str, salt: str = "split") -> float:
    """A number in [0, 1) that depends on the key and salt alone, so the same on every machine."""
    digest = hashlib.sha256(f"{salt}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(group: str, held_out: float = 0.1) -> Split:
    """The split of a group: `held_out` of all groups are test, a tenth validation, the rest train."""
    fraction = stable_fraction(group)
    return "test" if fraction < held_out else "validation" if fraction < held_out + 0.1 else "train"


def _rows(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    if not path.is_file():
        raise UserError(f"{path} does not exist: give the folder that holds {path.parent.name}/ as --data")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Character offsets (start, end) of the sentences of a raw post."""
    start = 0
    for match in _BREAK.finditer(text):
        yield start, match.end()
        start = match.end()
    if start < len(text):
        yield start, len(text)


def _civil(folder: Path) -> list[Comment]:
    annotators: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for row in _rows(folder / "annotations.csv"):
        annotators[row["comment_id"]].append((row["annotation"], row["not toxic"] == "True"))
    spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in _rows(folder / "spans.csv"):
        spans[row["annotation"]].append((int(row["start"]), int(row["end"])))
    tests = {fingerprint(row["text"]) for row in _rows(folder / "tsd_test.csv")}
    found: list[Comment] = []
    for row in _rows(folder / "comments.csv"):
        raw, judges = row["comment_text"], annotators[row["comment_id"]]
        if not judges:
            continue
        group = "civil:" + row["comment_id"]
        split: Split = "test" if fingerprint(raw) in tests else split_of(group)
        marked = [spans[annotation] for annotation, not_toxic in judges if not not_toxic]
        if 2 * len(marked) <= len(judges):
            continue
        found.append(Comment(clean(raw), True, "civil_comments", split, group))
        pieces = list(sentences(raw))
        if len(pieces) < 2:
            continue
        for start, end in pieces:
            votes = sum(any(a < end and start < b for a, b in one) for one in marked)
            if votes == 0 or votes * 2 >= len(judges):
                found.append(Comment(clean(raw[start:end]), votes > 0, "civil_sentences", split, group))
    return found


def _paradetox(folder: Path, civil: dict[str, Comment]) -> list[Comment]:
    """`civil`: Civil comments by fingerprint. Some ParaDetox sentences are theirs and must share their split."""

    def place(text: str) -> tuple[str, Split]:
        twin = civil.get(fingerprint(text))
        group = twin.group if twin else "paradetox:" + fingerprint(text)
        return group, twin.split if twin else split_of(group)

    found: list[Comment] = []
    paired: set[str] = set()
    for row in _rows(folder / "paradetox.tsv", "\t"):
        toxic = clean(row["toxic"])
        rewrites = list(dict.fromkeys(clean(row[key] or "") for key in ("neutral1", "neutral2", "neutral3")))
        rewrites = [text for text in rewrites if text and fingerprint(text) != fingerprint(toxic)]
        paired.add(fingerprint(toxic))
        group, split = place(toxic)
        found.append(Comment(toxic, True, "paradetox", split, group))
        found += [Comment(text, False, "paradetox", split, group) for text in rewrites]
    for row in _rows(folder / "paradetox_cannot_rewrite.tsv", "\t"):
        text = clean(row["INPUT:toxic_comment"].strip().strip('"'))
        if row["OUTPUT:reasons"] == '{"toxic_content":true}' and fingerprint(text) not in paired:
            group, split = place(text)
            found.append(Comment(text, True, "paradetox", split, group))
    return found


def _wikipedia(folder: Path) -> list[Comment]:
    found = []
    for name in ("gn.csv", "gc.csv", "cat_small.csv"):
        for row in _rows(folder / name):
            text = clean(row["text"])
            toxic = row["label_oc" if name == "cat_small.csv" else "label"] == "1"
            group = "wikipedia:" + fingerprint(text)
            split = split_of(group, 0.4 if toxic else 0.1)
            # Training keeps clear cases alone: neutral to the workers, but toxic to Perspective, is neither.
            if split == "test" or toxic or float(row.get("api") or 0) < 0.5:
                found.append(Comment(text, toxic, "wikipedia", split, group))
    return found


def comments(data: Path) -> list[Comment]:
    """All labelled comments of the raw sets under `data`, without duplicates, in a fixed order.

    A text that comes twice is kept once (in the test part if it is there at all, so that no held-out text is
    trained on); one that comes with both labels is dropped. Comments under three words are dropped.
    The splits are about 80/10/10 by a stable hash of the group, and SemEval's test posts are all test.
    Raises UserError where a file is missing.
    """
    civil = _civil(data / CIVIL)
    found = _paradetox(data / PARADETOX, {fingerprint(comment.text): comment for comment in civil})
    found += civil + _wikipedia(data / WIKIPEDIA)
    labels: dict[str, set[bool]] = defaultdict(set)
    for comment in found:
        labels[fingerprint(comment.text)].add(comment.toxic)
    rank = {"test": 0, "validation": 1, "train": 2}
    kept: dict[str, Comment] = {}
    for comment in sorted(found, key=lambda comment: rank[comment.split]):
        mark = fingerprint(comment.text)
        if len(labels[mark]) == 1 and len(comment.text.split()) >= 3:
            kept.setdefault(mark, comment)
    order = {mark: place for place, mark in enumerate(labels)}
    return [kept[mark] for mark in sorted(kept, key=order.__getitem__)]
