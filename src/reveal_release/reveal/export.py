"""The model's forget and retain records as rows that other tools load as they are.

    convert(records, "trl")    # (rows, how many records were left out)

- openunlearning: `{"question", "answer"}` for OpenUnlearning's `QADataset` (github.com/locuslab/open-unlearning, src/data/qa.py),
  which puts the question into one user turn. Earlier turns have no place there: run together with the question they would be
  another conversation than the one that drew the answer out, so such records are left out.
- trl: `{"prompt", "completion"}`, lists of messages, of any number of turns: TRL's conversational prompt-completion type
  (huggingface.co/docs/trl/dataset_formats).
- jsonl: the records with their scores, which every run writes; there is nothing to convert.

Plain text that answers no prompt fits neither: TRL needs a last message in the prompt, and OpenUnlearning would ask nothing.
Not promised: that an answer ends where the model ended it. A chat template closes every answer, so also one that was cut off at
the length limit; `ended` in the jsonl tells which.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ..config import UserError
from ..tasks import Record

Row = dict[str, Any]


def question(record: Record) -> Row | None:
    """None unless the prompt is one user turn."""
    if [role for role, _ in record.prompt] != ["user"]:
        return None
    return {"question": record.prompt[0][1], "answer": record.completion}


def conversation(record: Record) -> Row | None:
    """None without a prompt."""
    if not record.prompt:
        return None
    prompt = [{"role": role, "content": content} for role, content in record.prompt]
    return {"prompt": prompt, "completion": [{"role": "assistant", "content": record.completion}]}


class Format(NamedTuple):
    """holds: the only kind of record that `row` converts, in words."""

    row: Callable[[Record], Row | None]
    holds: str


FORMATS = {
    "openunlearning": Format(question, "one user turn and its answer"),
    "trl": Format(conversation, "a prompt and its answer"),
}
NAMES = (*FORMATS, "jsonl")


def wanted(names: str | Iterable[str]) -> list[str]:
    """The formats to convert to, each once: of one or several texts, perhaps with commas between names.

    Raises:
        UserError: an unknown name.
    """
    given = [name.strip() for text in ([names] if isinstance(names, str) else names) for name in text.split(",")]
    if unknown := [name for name in given if name not in NAMES]:
        raise UserError(f"--format {unknown[0]!r}: choose from {', '.join(NAMES)}")
    return [name for name in dict.fromkeys(given) if name in FORMATS]


def convert(records: Iterable[Record], name: str) -> tuple[list[Row], int]:
    """(the rows of one of `FORMATS`, in order; how many records it does not hold)."""
    rows = [FORMATS[name].row(record) for record in records]
    kept = [row for row in rows if row is not None]
    return kept, len(rows) - len(kept)
