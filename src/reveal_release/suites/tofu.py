"""TOFU's files: questions on fictitious authors, real authors and world facts (Maini et al. 2024, arXiv:2401.06121; MIT).

    read(folder, "forget10_perturbed")      # FOLDER/forget10_perturbed.json, JSON Lines in spite of its name

The files are those of the hub's data set `locuslab/TOFU`; `reveal-release testbed sources` names a copy. An author has 20 rows in a
run; those to forget are the last 20, 10 or 2 of 200 (`forget10`, `forget05`, `forget01`), and the files of one split nest.
"""

from dataclasses import dataclass
from pathlib import Path

from ..config import UserError
from .base import Row, read_rows

ROWS_PER_AUTHOR = 20
SPLITS = {"forget01": 2, "forget05": 10, "forget10": 20}
"""How many authors each split has; the rest of the 200 is `retain99`, `retain95` or `retain90`."""

AUTHORS = (
    "Hsiao Yun-Hwa", "Carmen Montenegro", "Elvin Mammadov", "Rajeev Majumdar", "Jad Ambrose Al-Shamary", "Adib Jarrah", "Ji-Yeon Park",
    "Behrouz Rohani", "Wei-Jun Chen", "Tae-ho Park", "Hina Ameen", "Xin Lee Williams", "Moshe Ben-David", "Kalkidan Abera",
    "Takashi Nakamura", "Raven Marais", "Aysha Al-Hashim", "Edward Patrick Sullivan", "Basil Mahfouz Al-Kuwaiti", "Nikolai Abilov",
)  # fmt: skip
"""Of forget10, in its order; the last 10 are forget05, the last 2 forget01."""


@dataclass(frozen=True)
class Question:
    """A question and its answer. `perturbed`: wrong answers; `paraphrased`: the right one in other words, or itself; both for metrics."""

    question: str
    answer: str
    paraphrased: str = ""
    perturbed: tuple[str, ...] = ()
    paraphrased_question: str = ""

    @classmethod
    def of(cls, row: Row, perturbed: bool, paraphrased: bool) -> "Question":
        question, answer = row.text("question"), row.text("answer")
        if not perturbed:
            return cls(question, answer)
        wrong = row.texts("perturbed_answer")
        if not paraphrased:  # real authors and world facts: TOFU takes the answer itself
            return cls(question, answer, answer, wrong)
        return cls(question, answer, row.text("paraphrased_answer"), wrong, row.text("paraphrased_question"))


def read(folder: str | Path, name: str) -> list[Question]:
    """The questions of FOLDER/NAME.json. Raises UserError: no such file, a row of another form, or none."""
    path = Path(folder) / f"{name}.json"
    if not path.is_file():
        raise UserError(f"no {path.name} in {folder}: give the folder of TOFU's files (`reveal-release testbed sources` names them)")
    perturbed, paraphrased = name.endswith("_perturbed"), name.startswith(("forget", "retain"))
    found = [Question.of(row, perturbed, paraphrased) for row in read_rows(path)]
    if not found:
        raise UserError(f"{path} has no rows: is it complete?")
    if len({len(one.perturbed) for one in found}) > 1:
        raise UserError(f"{path} has rows with different numbers of perturbed answers: is it TOFU's?")
    return found


def by_author(folder: str | Path) -> dict[str, list[Question]]:
    """The rows of `AUTHORS`, with all that metrics need. Raises UserError as `read` does, and for a part of the file."""
    rows, each = read(folder, "forget10_perturbed"), ROWS_PER_AUTHOR
    if len(rows) != each * len(AUTHORS):  # an author's rows are told by where they stand
        raise UserError(f"forget10_perturbed.json in {folder} has {len(rows)} rows, TOFU's {each * len(AUTHORS)}: give the whole file")
    return {name: rows[i * each :][:each] for i, name in enumerate(AUTHORS)}
