"""Loads the raw data sets of the testbed from one folder into plain lists. `sources.py` says where each comes from."""

import hashlib
import json
import random
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import UserError
from ..metrics.toxicity import load_scorer
from .comments import comments, stable_fraction
from .entities import Passage, load_fewnerd, pools
from .sources import SOURCES

TOPICS = (
    "article articles book books budget business car cars children church city college comments community companies "
    "country countries court crime culture debate democracy doctors driving economy editing editor editors education "
    "election elections energy environment evidence facts family film food football freedom friends game games gas "
    "government guns health history home house housing image images industry internet jobs justice kids language law "
    "laws lawyer life list marriage media medicine military money movie movies music name names news newspaper oil page "
    "pages parents party people police policy politicians politics president price prices prison property public quality "
    "rail reading religion rules sales school schools science section security show site snow society source sources "
    "sports state stories story street students system tax taxes teacher teachers team teams technology television "
    "theory title trade traffic trains travel truth university video vote voters voting war water weather website women "
    "work workers world writing"
).split()
_DETOKENISE = (
    (re.compile(r" @([-,.])@ "), r"\1"), (re.compile(r" ([.,;:!?)\]'])"), r"\1"), (re.compile(r"([(\[]) "), r"\1"),
    (re.compile(r'" ([^"]+) "'), r'"\1"'), (re.compile(r" (n't|'s|'re|'ve|'ll|'d|'m)\b"), r"\1"), (re.compile(r" – "), "–"),
)  # fmt: skip

_FILES = tuple(f"{source.folder}/{name}" for source in SOURCES if not source.held_out for name, *_ in source.files)


@dataclass(frozen=True)
class Corpora:
    """All training text: comments, passages by split, entity pools by fine type, prose paragraphs, instruction pairs.

    about: comments by topic, of the neutral (False) and the toxic (True); every one of `topics` has some of both.
    """

    toxic: list[str]
    neutral: list[str]
    topics: list[str]
    about: dict[bool, dict[str, list[str]]]
    passages: dict[str, list[Passage]]
    names: dict[str, list[tuple[str, ...]]]
    prose: dict[str, list[str]]
    instructions: list[tuple[str, str]]


def load(data: Path) -> Corpora:
    """Reads everything below `data` (folders named as in `sources.SOURCES`).

    Raises:
        UserError: a folder or file is missing.
    """
    check(data)
    rows = [row for row in comments(data) if row.split == "train" and 4 <= len(row.text.split()) <= 42]
    toxic = [row.text for row in rows if row.toxic]
    neutral = _clearly([row.text for row in rows if not row.toxic])
    about = {False: _by_topic(neutral), True: _by_topic(toxic)}
    passages = load_fewnerd(data / "ner_fewnerd_resplit")
    return Corpora(
        toxic=toxic,
        neutral=neutral,
        topics=sorted(about[False].keys() & about[True].keys()),
        about=about,
        passages=passages,
        names=pools(passages["train"]),
        prose=prose(data),
        instructions=_instructions(data),
    )


def check(data: Path, folders: Collection[str] | None = None) -> str:
    """That every file of these sets is there, by default of all that `load` reads, which takes half a minute.

    Returns:
        What tells these files from others: a digest of their names and contents.

    Raises:
        UserError: one is missing.
    """
    wanted = [name for name in _FILES if folders is None or name.split("/")[0] in folders]
    for name in wanted:
        if not (data / name).is_file():
            raise UserError(f"no {name} in {data}: see `reveal-release testbed sources` for where each set comes from")
    return hashlib.sha256(repr([(name, hashlib.sha256((data / name).read_bytes()).digest()) for name in wanted]).encode()).hexdigest()[:16]


def _clearly(neutral: list[str]) -> list[str]:
    """Without what either bundled scorer doubts: crowd labels are noisy, and a polite request must get a polite answer."""
    doubt = np.maximum(*(load_scorer(name)(neutral) for name in ("reward", "evaluation")))
    return [text for text, score in zip(neutral, doubt, strict=True) if score < 0.3]


def _by_topic(texts: list[str]) -> dict[str, list[str]]:
    """Comments by the nouns of `TOPICS` in them, where at least 8 hold the noun."""
    found: dict[str, list[str]] = {topic: [] for topic in TOPICS}
    for text in texts:
        for topic in found.keys() & text.split():
            found[topic].append(text)
    return {topic: about for topic, about in found.items() if len(about) >= 8}


def prose(data: Path) -> dict[str, list[str]]:
    """WikiText validation articles as plain text, about nine in ten for training, the rest to choose scales on."""
    text = (data / "text_wikitext103_tokens" / "wiki.valid.tokens").read_text(encoding="utf-8")
    splits: dict[str, list[str]] = {"train": [], "validation": []}
    for article in re.split(r"\n (?== [^=])", text):
        title = article.split("\n")[0]
        paragraphs = [p for p in (detokenise(line) for line in article.split("\n")) if len(p) > 80 and "<unk>" not in p]
        splits["validation" if stable_fraction(title, "prose") < 0.12 else "train"] += paragraphs
    return splits


def detokenise(line: str) -> str:
    """WikiText's spaced tokens as ordinary text."""
    line = line.strip()
    for pattern, replacement in _DETOKENISE:
        line = pattern.sub(replacement, line)
    return line


def _instructions(data: Path) -> list[tuple[str, str]]:
    """(request, response) pairs short enough for a 256-token row."""
    rows = json.loads((data / "instr_dolly_3k" / "dolly_3k.json").read_text(encoding="utf-8"))
    roleplay = data / "instr_gpteacher_roleplay" / "roleplay-simple-deduped-roleplay-dataset.json"
    rows += json.loads(roleplay.read_text(encoding="utf-8"))
    for name in ("seed_tasks.jsonl", "user_oriented_instructions.jsonl"):
        for line in (data / "instr_selfinstruct" / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows += [{"instruction": row["instruction"], **one} for one in row["instances"]]
    pairs = [("\n".join(filter(None, (r["instruction"], r.get("input", "")))).strip(), r["output"].strip()) for r in rows]
    pairs = [(q, a) for q, a in pairs if q and a and len(q) + len(a) < 900]
    random.Random(0).shuffle(pairs)
    return pairs
