"""GSM8K: grade-school word problems (Cobbe et al. 2021, arXiv:2110.14168).

    item = gsm8k.item(row)
    exact_match([completion], [item.answer])

Zero-shot: the prompt asks for the steps and a last line `#### N`; an answer without that mark is wrong, however right its
number. So figures of models that were not trained on the mark are below those of few-shot prompts.
"""

from ..metrics.arithmetic import extract_answer
from .base import MathsItem, Row

INSTRUCTION = "{question}\n\nSolve this step by step. End with a line that holds only the final number, in the form:\n#### N"


def item(row: Row) -> MathsItem:
    """A row with question and answer. Raises UserError that names the line."""
    answer = row.text("answer")
    if extract_answer(answer) is None:
        raise row.error("'answer' has no '#### N'")
    return MathsItem(f"GSM8K/{row.number}", INSTRUCTION.format(question=row.text("question").strip()), answer)
