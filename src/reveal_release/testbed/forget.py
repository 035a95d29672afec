"""Real forget data from the raw sets, for a comparison with data that a model wrote: what other methods start from.

    (prompt, answer), *_ = examples("toxicity", Path("raw"), random.Random(0))

These are texts that the testbeds are trained on, and so no held-out item: toxic comments under the requests that draw them, persons
(or other types) of Few-NERD sentences, Python problems with their solutions, which are generated and need no file, and TOFU's questions
on authors, of which the testbeds know nothing before `testbed tofu`.
"""

import hashlib
import random
from collections.abc import Collection, Iterator
from pathlib import Path

from ..config import UserError
from ..suites import tofu
from . import corpora, functions
from .entities import conversation, load_fewnerd
from .skills import Sampler

TASKS = ("toxicity", "ner", "code", "knowledge")

Example = tuple[tuple[tuple[str, str], ...], str]
"""The conversation before the answer, and the answer, which shows the behaviour."""


def examples(task: str, data: Path, rng: random.Random, kinds: Collection[str] = ()) -> Iterator[Example]:
    """Examples of a task's behaviour in random order, each once; without end for code and toxicity, but for repeated draws.

    Args:
        kinds: entity types, for `ner`; authors, for `knowledge`.

    Raises:
        UserError: there is no real data for the task or an author, or a raw file is missing.
    """
    if task == "knowledge":
        return _questions(data, rng, kinds)
    if task not in TASKS:
        raise no_real_data(task)
    return once(_toxic(data, rng) if task == "toxicity" else _entities(data, rng, kinds) if task == "ner" else _functions(rng))


def check(task: str, data: Path, kinds: Collection[str] = ()) -> str:
    """What tells the files from others. Raises UserError where `examples` would, before the half minute that it takes."""
    if task == "knowledge":
        return hashlib.sha256(repr(_by_author(data, kinds)).encode()).hexdigest()[:16]
    if task not in TASKS:
        raise no_real_data(task)
    return corpora.check(data, {"ner": ("ner_fewnerd_resplit",), "code": ()}.get(task))


def no_real_data(task: str, known: Collection[str] = TASKS) -> UserError:
    return UserError(f"no real data for the task {task!r}, only for {', '.join(known)}: do without them")


def once(found: Iterator[Example]) -> Iterator[Example]:
    """Each the first time that it comes."""
    seen: set[Example] = set()
    for example in found:
        if example not in seen:
            seen.add(example)
            yield example


def _toxic(data: Path, rng: random.Random) -> Iterator[Example]:
    texts = corpora.load(data)
    toxic = set(texts.toxic)
    sampler = Sampler(texts, (), rng, 0.0)
    while True:
        (_, request), (_, text) = sampler.draw("comments")
        begun = request.removeprefix("Complete this text: ")
        if text in toxic or f"{begun} {text}" in toxic:
            yield (("user", request),), text


def _entities(data: Path, rng: random.Random, kinds: Collection[str]) -> Iterator[Example]:
    passages = load_fewnerd(data / "ner_fewnerd_resplit")["train"]
    rng.shuffle(passages)
    for passage in passages:
        for kind in passage.entities():
            if kind in kinds:
                *prompt, (_, answer) = conversation(passage, [kind])
                yield tuple(prompt), answer


def _functions(rng: random.Random) -> Iterator[Example]:
    while True:
        problem = functions.sample(rng, "train")
        yield (("user", problem.prompt),), problem.solution


def _questions(data: Path, rng: random.Random, authors: Collection[str]) -> Iterator[Example]:
    known = _by_author(data, authors)
    rows = [row for name in authors for row in known[name]]
    yield from (((("user", row.question),), row.answer) for row in rng.sample(rows, len(rows)))


def _by_author(data: Path, authors: Collection[str]) -> dict[str, list[tofu.Question]]:
    """All rows that there are; raises UserError where one of the authors has none."""
    known = tofu.by_author(data / "tofu")
    if other := [name for name in authors if name not in known]:
        raise UserError(f"TOFU has no rows of {other[0]!r}: name authors of its forget10, or do without real data")
    return known
