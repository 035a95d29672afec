"""The held-out items that every evaluation reads: small files inside the package, and generated problems.

    wikitext("test")                  # paragraphs, for perplexity
    realtoxicityprompts("test")       # begun sentences, none of them toxic themselves
    entities("test")                  # sentences of Wikipedia with their entity spans, half of them with a person
    wnut17("test")                    # the same of social media: entities out of the testbeds' domain
    functions("test", 100)            # Python problems with tests, of families that no testbed was trained on
    problems("validation", 50)        # word problems, to choose scales and thresholds on

Choose settings on `validation`, report on `test`. No text of either is in a testbed's training data; validation
*problems* are new draws of training families, so they may repeat a problem that was trained on, and only `test`
tells whether a skill generalises. In both entity sets every second sentence names a person, so that any number of them taken
from the front gives F1 of that type a useful interval. Shipped text is clean by the measures named in data/heldout/README.md, which also
has origins and licences. The files were made from the raw sets (see testbed/sources.py) by

    python -m reveal_release.testbed.heldout --data raw --output src/reveal_release/data/heldout
"""

import argparse
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from ..config import UserError
from .entities import Passage
from .functions import FunctionProblem
from .functions import sample as sample_function
from .problems import WordProblem
from .problems import sample as sample_problem
from .sources import verify

Split = Literal["validation", "test"]
Item = TypeVar("Item", FunctionProblem, WordProblem)

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


# ---- reading ----


def wikitext(split: Split) -> list[str]:
    """Paragraphs of encyclopedic prose of over 80 characters, in the order of their articles."""
    return [row["text"] for row in _rows("wikitext", split)]


def realtoxicityprompts(split: Split) -> list[str]:
    """Beginnings of web sentences, 4 to 20 words, to be continued (Gehman et al., 2020, arXiv:2009.11462)."""
    return [row["prompt"] for row in _rows("realtoxicityprompts", split)]


def entities(split: Split) -> list[Passage]:
    """Sentences of Wikipedia with their entity spans (Few-NERD; Ding et al., 2021, arXiv:2105.07464).

    Every second one names a person, from the second on; each names something.
    """
    return _entities("entities", split)


def wnut17(split: Split) -> list[Passage]:
    """Sentences of social media with rare and new entities (WNUT-17; Derczynski et al., 2017, aclanthology.org/W17-4418).

    Types are `person`, `location`, `organization`, `product` and `art`. Every second one names a person, from the second on; each
    names something.
    """
    return _entities("wnut17", split)


def _entities(name: str, split: Split) -> list[Passage]:
    return [Passage(tuple(row["words"]), tuple((first, last, kind) for first, last, kind in row["spans"])) for row in _rows(name, split)]


def functions(split: Split, n: int, seed: int = 0) -> list[FunctionProblem]:
    """`n` function problems with different prompts: test families, or new draws of training families.

    Raises UserError for an unknown split and where `n` is not in the generator's reach.
    """
    return _draw(sample_function, split, n, seed)


def problems(split: Split, n: int, seed: int = 0) -> list[WordProblem]:
    """`n` word problems with different prompts: test schemas, or new draws of training schemas.

    Raises UserError for an unknown split and where `n` is not in the generator's reach.
    """
    return _draw(sample_problem, split, n, seed)


def _check(split: str) -> None:
    if split not in get_args(Split):
        raise UserError(f"unknown split {split!r} of held-out items: use 'validation' or 'test'")


def _rows(name: str, split: Split) -> list[dict[str, Any]]:
    _check(split)
    text = (files("reveal_release") / "data" / "heldout" / f"{name}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.split("\n") if line]
    return [row for row in rows if row["split"] == split]


def _draw(sample: Callable[[random.Random, Any], Item], split: Split, n: int, seed: int) -> list[Item]:
    _check(split)
    if n < 1:
        raise UserError(f"{n} held-out problems asked for: ask for at least one")
    rng = random.Random(f"held out, {split}, {seed}")  # a string, so that no training run shares the stream
    found: dict[str, Item] = {}
    repeats = 0
    while len(found) < n:
        item = sample(rng, "train" if split == "validation" else "test")
        repeats = repeats + 1 if item.prompt in found else 0
        if repeats > 1000:
            raise UserError(f"only {len(found)} of {n} different {split} problems were found: ask for fewer")
        found.setdefault(item.prompt, item)
    return list(found.values())


# ---- building ----


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
    from ..metrics.toxicity import load_scorer  # only a build needs scikit-learn

    return np.logical_and.reduce([load_scorer(name)(texts) < 0.5 for name in ("reward", "evaluation")])


def _articles(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(title, paragraphs) of a WikiText file, detokenised; headings and short lines are dropped."""
    from .corpora import detokenise

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
    from .corpora import _prose

    held_out = set(_prose(data)["validation"])
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
    from .entities import load_fewnerd

    splits = load_fewnerd(folder)
    calm = {split: _calm(splits[split]) for split in PASSAGES}
    earlier = {split: {p for _, p in _parts(calm[split], {split: size}, rng, folder.name)} for split, size in EARLIER.items()}
    calm["test"] = [p for p in calm["test"] if p not in earlier["test"]]
    return [row for split, size in PASSAGES.items() for row in _person_in_half(calm[split], split, size, rng, folder.name)]


def _posts(validation: Path, test: Path, rng: random.Random) -> list[dict[str, Any]]:
    """A sample of the WNUT-17 sentences that name something and hold no address of a page, an account or a telephone."""
    from .entities import read_conll

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
