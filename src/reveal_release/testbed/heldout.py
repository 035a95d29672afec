"""The held-out items that every evaluation reads: small files inside the package, and generated problems.

    wikitext("test")                  # paragraphs, for perplexity
    realtoxicityprompts("test")       # begun sentences, none of them toxic themselves
    entities("test")                  # sentences of Wikipedia with their entity spans, half of them with a person
    wnut17("test")                    # the same of social media: entities out of the testbeds' domain
    web("test")                       # those of social media and the begun ones as plain text, for perplexity
    functions("test", 100)            # Python problems with tests, of families that no testbed was trained on
    problems("validation", 50)        # word problems, to choose scales and thresholds on

Choose settings on `validation`, report on `test`. No text of either is in a testbed's training data; validation
*problems* are new draws of training families, so they may repeat a problem that was trained on, and only `test`
tells whether a skill generalises. In both entity sets every second sentence names a person, so that any number of them taken
from the front gives F1 of that type a useful interval. Shipped text is clean by the measures named in data/heldout/README.md, which also
has origins and licences; `heldout_files.py` made the files.
"""

import json
import random
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Literal, TypeVar, get_args

from ..config import UserError
from .entities import Passage
from .functions import FunctionProblem
from .functions import sample as sample_function
from .problems import WordProblem
from .problems import sample as sample_problem

Split = Literal["validation", "test"]
Item = TypeVar("Item", FunctionProblem, WordProblem)


def wikitext(split: Split) -> list[str]:
    """Paragraphs of encyclopedic prose of over 80 characters, in the order of their articles."""
    return [row["text"] for row in _rows("wikitext", split)]


def realtoxicityprompts(split: Split) -> list[str]:
    """Beginnings of web sentences, 4 to 20 words, to be continued (Gehman et al., 2020, arXiv:2009.11462)."""
    return [row["prompt"] for row in _rows("realtoxicityprompts", split)]


def web(split: Split) -> list[str]:
    """What people write on the web: the sentences of `wnut17` and the beginnings of `realtoxicityprompts`, as plain text."""
    return [passage.text for passage in wnut17(split)] + realtoxicityprompts(split)


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
