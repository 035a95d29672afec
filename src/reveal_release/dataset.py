"""What a release is made from: records by their part in it, and the rows, token ids, that are trained on and measured.

    rows = Rows.of(lm, Data(forget, harmless, retain))
    rows.lacking or train_modules(lm, rows.forget, rows.harmless, rows.retain, config, seed)

Of the retain records, none is measured and trained on.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .chat import Turns
from .config import LEAST
from .models import LanguageModel, answered_ids
from .release.rows import Row
from .tasks import Record

HELD_BACK = 0.2
LEAST_RECORDS = LEAST["records"]


class Data(NamedTuple):
    """forget and harmless: where the behaviour comes out, with it and without it; retain: what must not change."""

    forget: list[Record]
    harmless: list[Record]
    retain: list[Record]


@dataclass(frozen=True)
class Rows:
    """Data as training takes it.

    unanswered: forget rows to whose prompts there is no harmless answer. measured: of the retain records those that tell what a release
    costs, none to a prompt that something else is learnt for; retain: the others.
    """

    forget: list[Row]
    harmless: list[Row]
    unanswered: list[Row]
    retain: list[Row]
    measured: list[Row]

    @classmethod
    def of(cls, lm: LanguageModel, data: Data, learnt_before: Collection[Turns] = ()) -> "Rows":
        """`learnt_before`: prompts that earlier modules were trained on; they are not measured either."""
        answered = {record.prompt for record in data.harmless}
        unanswered = [record for record in data.forget if record.prompt not in answered]
        measured, learnt = measured_and_learnt(data.retain, HELD_BACK)
        trained = {record.prompt for record in data.forget + data.harmless}.union(learnt_before) - {()}
        measured = [record for record in measured if record.prompt not in trained]
        return cls(*(encode(lm, part) for part in (data.forget, data.harmless, unanswered, learnt, measured)))

    @property
    def lacking(self) -> str:
        """What there is too little of to train on, or nothing."""
        if min(len(self.forget), len(self.retain)) >= LEAST_RECORDS:
            return ""
        return f"{len(self.forget)} forget and {len(self.retain)} retain records, too few to train on"


LONGEST = 1024
"""Tokens of an answer that are trained on: as many as a task may ask for."""


def encode(lm: LanguageModel, records: Sequence[Record], limit: int = LONGEST) -> list[Row]:
    """(token ids, length of the prompt) of each record in the chat template, a plain text without it: what training takes.

    Answers are cut at `limit` tokens, and where the model's context ends; a prompt that fills the context is left out.
    """
    rows = []
    for record in records:
        prompt, answer = answered_ids(lm, record.prompt, record.completion)
        most = len(prompt) + limit
        end = lm.end if record.prompt else lm.end_of_text
        ids = (prompt + answer + end * record.ended)[: min(most, lm.context or most)]
        if 0 < len(prompt) < len(ids):
            rows.append((ids, len(prompt)))
    return rows


def split(records: Sequence[Record], share: float, seed: int) -> tuple[list[Record], list[Record]]:
    """The records of a `share` of the prompts, drawn at random, and the others, in random order; plain texts are each its own prompt.

    It is one prompt at least, where there are two. A prompt is as likely to be drawn as another, however many records it has.
    """
    rng = random.Random(seed)
    prompts = list(dict.fromkeys(map(_asked, records)))
    records, drawn = rng.sample(records, len(records)), set(rng.sample(prompts, _part(share, len(prompts))))
    return [r for r in records if _asked(r) in drawn], [r for r in records if _asked(r) not in drawn]


def measured_and_learnt(retain: Sequence[Record], share: float) -> tuple[list[Record], list[Record]]:
    """Of retain records, one answer to each of a `share` of the prompts, to tell what a release costs; and those to train on.

    The prompts measured are the first in the records' order, which is random: so those with many answers are nearly all among them.
    These are benign prompts, the most like those under which the behaviour shows. What it costs there is to be told, by as much as
    they are of the prompts, but to hold the model to its answers there is to hold the behaviour, too.
    """
    prompts = list(dict.fromkeys(map(_asked, retain)))
    measured = set(prompts[: _part(share, len(prompts))])
    first = {_asked(r): r for r in reversed(retain)}
    return [first[prompt] for prompt in prompts if prompt in measured], [r for r in retain if _asked(r) not in measured]


def _part(share: float, count: int) -> int:
    """At least one, unless that would be all, or none is wanted."""
    return max(round(share * count), 1 if share and count > 1 else 0)


def _asked(record: Record) -> Turns | str:
    """What a record is held together with others by."""
    return record.prompt or record.completion
