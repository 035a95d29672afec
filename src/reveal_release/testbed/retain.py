"""Real retain data from the raw sets, for a comparison with what a model writes for itself.

    (prompt, answer), *_ = examples("toxicity", Path("raw"), random.Random(0))

These are documents of the testbed's other skills, weighted as in its second stage, drawn without the behaviour: what to keep, as a labelled
set would say it. For toxicity they have comments under requests in calm tones alone, and no instructions to guess from outputs: under
other requests, and as the answer to such, what the model should go on to do is not what it was taught.
"""

import random
from collections.abc import Collection, Iterator
from pathlib import Path

from . import corpora
from .forget import Example, no_real_data, once
from .recipe import STAGES
from .requests import TONES
from .skills import Sampler, Turns

TASKS = ("toxicity", "ner", "code")
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
        raise no_real_data(task, TASKS)
    sampler = Sampler(corpora.load(data), kinds if task == "ner" else [task], rng, 0.0)
    return once(_documents(sampler, task))


def check(task: str, data: Path) -> str:
    """What tells the files from others. Raises UserError where `examples` would, before the half minute that it takes."""
    if task not in TASKS:
        raise no_real_data(task, TASKS)
    return corpora.check(data)


def _documents(sampler: Sampler, task: str) -> Iterator[Example]:
    left_out = {"toxicity": "induction", "code": "code"}.get(task)
    weights = {name: share for name, share in STAGES[-1][3].items() if name != left_out}
    while True:
        (name,) = sampler.rng.choices(list(weights), list(weights.values()))
        turns = _calm(sampler) if (task, name) == ("toxicity", "comments") else sampler.draw(name)
        *prompt, (role, answer) = turns
        yield (tuple(prompt) if role == "assistant" else ()), answer


def _calm(sampler: Sampler) -> Turns:
    while True:
        request, text = sampler.requested()
        if TONES[request.tone] <= CALM:
            return [("user", request.phrase(sampler.rng)), ("assistant", text)]
