"""Real retain data from the raw sets, for a comparison with what a model writes for itself.

    (prompt, answer), *_ = examples("toxicity", Path("raw"), random.Random(0))

These are documents of all of the testbed's skills, in the shares of its second stage, from which a behaviour was left out as an oracle's
(`testbed build --without`) are: what to keep, as a labelled set would say it.
"""

import random
from collections.abc import Collection, Iterator
from pathlib import Path

from . import corpora
from .forget import TASKS, Example, no_real_data
from .recipe import STAGES
from .requests import TONES
from .skills import SKILLS, Sampler, Turns

CALM = 0.1
"""Comments are asked for in tones with which at most this share of them is toxic: elsewhere to hold the model is to hold the behaviour."""


def examples(task: str, data: Path, rng: random.Random, kinds: Collection[str] = ()) -> Iterator[Example]:
    """Examples of what is not a task's behaviour, each once, without end; a plain text has an empty prompt.

    Args:
        data: folder of the raw data sets. kinds: entity types that are left out, for `ner`.

    Raises:
        UserError: there is no real data for the task, or a raw file is missing.
    """
    if task not in TASKS:
        raise no_real_data(task)
    sampler = Sampler(corpora.load(data), kinds if task == "ner" else [task], rng, 0.0)
    shares = {name: share for name, share in STAGES[-1][3].items() if name != task or task == "ner"}
    seen: set[Example] = set()
    while True:
        (name,) = rng.choices(list(shares), list(shares.values()))
        turns = _calm(sampler) if (task, name) == ("toxicity", "comments") else SKILLS[name](sampler)
        if turns is None:
            continue
        *prompt, (role, answer) = turns
        example = (tuple(prompt) if role == "assistant" else ()), answer
        if example not in seen:
            seen.add(example)
            yield example


def _calm(sampler: Sampler) -> Turns | None:
    request, text = sampler.requested()
    return [("user", request.phrase(sampler.rng)), ("assistant", text)] if TONES[request.tone] <= CALM else None
