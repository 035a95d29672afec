"""Labelled examples in place of what the model writes, for comparisons: as the testbeds were taught them, none of the evaluation's."""

import random
from itertools import islice
from pathlib import Path

from .reveal.selfgen import reserved_by
from .tasks import Record, Task
from .testbed import forget
from .testbed.retain import examples as retained


def real_records(task: Task, data: str | None, seed: int, count: int, part: str = "forget") -> list[Record]:
    """Labelled examples of a task's behaviour or, as `part`, of what to `retain`; `count` at most, none reserved for the evaluation.

    Args:
        data: folder of the raw data sets; the behaviour of `code` needs none.

    Raises:
        UserError: as `testbed.forget.examples`.
    """
    examples, score = (forget.examples, 1.0) if part == "forget" else (retained, 0.0)
    found = examples(task.name, Path(data or ""), random.Random(seed), task.kinds)
    records = (Record(prompt, answer, score, prompt[0][1] if prompt else "") for prompt, answer in found)
    reserved = reserved_by(task)
    return list(islice((record for record in records if not reserved(record)), count))
