"""Makes the held-out files that `heldout.py` reads from the raw sets (see sources.py), deterministically.

    python -m reveal_release.testbed.heldout_files --data raw --output src/reveal_release/data/heldout
"""

import argparse
import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import UserError
from ..metrics.toxicity import load_scorer
from .corpora import detokenise, prose
from .entities import Passage, load_fewnerd, read_conll
from .sources import verify

WIKITEXT_TEST_BYTES = 150_000
PROMPTS = {"validation": 250, "test": 200}
PASSAGES = {"validation": 100, "test": 400}
POSTS = {"validation": 100, "test": 200}
PROMPT_WORDS = range(4, 21)
POST_WORDS = range(5, 41)
# Development measured on an earlier, plain Few-NERD sample of these sizes: its test sentences are in no part any more.
EARLIER = {"validation": 100, "test": 300}
# WNUT-17's types in the testbeds' words (`entities.TYPES`); its corporations and groups are both what Few-NERD calls organizations.
WNUT_TYPES = {
    "person": "person",
    "location": "location",
    "corporation": "organization",
    "group": "organization",
    "product": "product",
    "creative-work": "art",
}
# Perspective's attributes that a shipped prompt must score under 0.5 on; `flirtation` is left out as too noisy.
ATTRIBUTES = ("toxicity", "severe_toxicity", "profanity", "identity_attack", "insult", "threat", "sexually_explicit")
RAW = (
    "text_wikitext103_tokens/wiki.valid.tokens",
    "text_wikitext2_raw_test/wiki.test.raw",
    "tox_rtp_quark_val/val.jsonl",
    *(f"ner_fewnerd_resplit/{name}.txt" for name in ("dev", "test", "big_test")),
    "ner_wnut17/emerging.dev.conll",
    "ner_wnut17/emerging.test.annotated",
)
_ADDRESS = re.compile(r"http|www\.|@|\d{7}")  # of a page, an account, a telephone: not to be shipped


def build(data: Path, output: Path, seed: int = 0) -> None:
    """Writes `wikitext.jsonl`, `realtoxicityprompts.jsonl`, `entities.jsonl` and `wnut17.jsonl` into `output`.

    The same raw files and seed give the same bytes. Raises UserError where a raw file is missing.
    """
    for name in RAW:
        if not (data / name).is_file():
            raise UserError(f"{data / name} does not exist: give the folder of the raw sets as --data")
    output.mkdir(parents=True, exist_ok=True)
    _write(output / "wikitext.jsonl", _wikitext(data))
    _write(output / "realtoxicityprompts.jsonl", _prompts(data / RAW[2], random.Random(seed)))
    _write(output / "entities.jsonl", _passages(data / "ner_fewnerd_resplit", random.Random(seed)))
    _write(output / "wnut17.jsonl", _posts(data / RAW[-2], data / RAW[-1], random.Random(seed)))


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def _clean(texts: Sequence[str]) -> np.ndarray:
    """(n,) whether both bundled scorers put a text under 0.5."""
    return np.logical_and.reduce([load_scorer(name)(texts) < 0.5 for name in ("reward", "evaluation")])


def _articles(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(title, paragraphs) of a WikiText file, detokenised; headings and short lines are dropped."""
    title: str | None = None
    paragraphs: list[str] = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        line = line.strip()
        if line.startswith("= ") and line.endswith(" =") and not line.startswith("= ="):
            if title is not None:
                yield title, paragraphs
            title, paragraphs = detokenise(line.strip("= ")), []
        elif len(text := detokenise(line)) > 80 and "<unk>" not in text:
            paragraphs.append(text)
    if title is not None:
        yield title, paragraphs


def _wikitext(data: Path) -> list[dict[str, Any]]:
    """The paragraphs that the testbeds' training leaves out, and whole test articles spread evenly over the file."""
    held_out = set(prose(data)["validation"])
    validation = [(title, [p for p in texts if p in held_out]) for title, texts in _articles(data / RAW[0])]
    articles = list(_articles(data / RAW[1]))
    sizes = [sum(len(p.encode()) for p in texts) for _, texts in articles]
    step = next(step for step in range(1, 1 + len(sizes)) if sum(sizes[::step]) <= WIKITEXT_TEST_BYTES)
    rows = [
        {"split": split, "article": title, "text": text}
        for split, part in (("validation", validation), ("test", articles[::step]))
        for title, texts in part
        for text in texts
    ]
    return [row for row, keep in zip(rows, _clean([row["text"] for row in rows]), strict=True) if keep]


def _prompts(path: Path, rng: random.Random) -> list[dict[str, Any]]:
    """A random sample of the prompts that are clean by Perspective's attributes and by the bundled scorers."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    found: dict[str, None] = {}
    for record in records:
        prompt = record["prompt"]
        text = prompt["text"].strip()
        calm = all(prompt[name] is not None and prompt[name] < 0.5 for name in ATTRIBUTES)
        if calm and not record["challenging"] and len(text.split()) in PROMPT_WORDS and "\n" not in text:
            found[text] = None
    texts = [text for text, keep in zip(found, _clean(list(found)), strict=True) if keep]
    return [{"split": split, "prompt": text} for split, text in _parts(texts, PROMPTS, rng, path.name)]


def _passages(folder: Path, rng: random.Random) -> list[dict[str, Any]]:
    """A sample of the held-out passages, none of which earlier development measured on as test."""
    splits = load_fewnerd(folder)
    calm = {split: _calm(splits[split]) for split in PASSAGES}
    earlier = {split: {p for _, p in _parts(calm[split], {split: size}, rng, folder.name)} for split, size in EARLIER.items()}
    calm["test"] = [p for p in calm["test"] if p not in earlier["test"]]
    return [row for split, size in PASSAGES.items() for row in _person_in_half(calm[split], split, size, rng, folder.name)]


def _posts(validation: Path, test: Path, rng: random.Random) -> list[dict[str, Any]]:
    """A sample of the WNUT-17 sentences that name something and hold no address of a page, an account or a telephone."""
    rows = []
    seen: set[str] = set()
    for split, path in (("validation", validation), ("test", test)):
        found: dict[str, Passage] = {}
        for passage in read_conll(path):
            usual = len(passage.words) in POST_WORDS and not _ADDRESS.search(passage.text)
            if usual and passage.spans and passage.text not in seen:
                seen.add(passage.text)
                spans = tuple((first, last, WNUT_TYPES[kind]) for first, last, kind in passage.spans)
                found[passage.text] = Passage(passage.words, spans)
        rows += _person_in_half(_calm(list(found.values())), split, POSTS[split], rng, path.name)
    return rows


def _calm(passages: Sequence[Passage]) -> list[Passage]:
    return [p for p, keep in zip(passages, _clean([p.text for p in passages]), strict=True) if keep]


def _person_in_half(passages: Sequence[Passage], split: str, size: int, rng: random.Random, name: str) -> list[dict[str, Any]]:
    """`size` rows drawn at random: without a person, with one, without, and so on."""
    named = [p for p in passages if "person" in p.entities()]
    others = [p for p in passages if "person" not in p.entities()]
    without = _parts(others, {split: size - size // 2}, rng, f"{name} ({split}, without a person)")
    with_one = _parts(named, {split: size // 2}, rng, f"{name} ({split}, with a person)")
    turns = [next(without if i % 2 == 0 else with_one)[1] for i in range(size)]
    return [{"split": split, "words": p.words, "spans": p.spans} for p in turns]


def _parts(items: Sequence[Any], sizes: dict[str, int], rng: random.Random, name: str) -> Iterator[tuple[str, Any]]:
    """(split, item) for disjoint random samples of the sizes asked for."""
    if len(items) < sum(sizes.values()):
        raise UserError(f"{name} has {len(items)} usable items, {sum(sizes.values())} are needed: is it complete?")
    chosen = iter(rng.sample(items, sum(sizes.values())))
    for split, size in sizes.items():
        for _ in range(size):
            yield split, next(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the held-out files from the raw sets.")
    parser.add_argument("--data", type=Path, required=True, help="the folder of the raw sets")
    parser.add_argument("--output", type=Path, required=True, help="where to write the JSON lines")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        verify(arguments.data, held_out=True)
        build(arguments.data, arguments.output, arguments.seed)
    except UserError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
