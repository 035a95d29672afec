"""MBPP: 974 short Python problems (Austin et al. 2021, arXiv:2108.07732).

    item = mbpp.item(row)
    item.program("def add(a, b): return a + b")

The prompt is the paper's: the text, then all three tests, which the model needs for the function's name and its types. A
solution is right if it passes the same three. `challenge_test_list` is not used. Published figures are of the
500 test problems, `task_id` 11 to 510 (`in_test_split`).

Not promised: few-shot figures (the paper puts three solved problems first; this asks at once). Two problems (367 and 927, of
which the first is a test problem) need a class `Node` that only their hidden set-up code speaks of: no model can know it.
"""

import ast
from dataclasses import dataclass

from ..metrics.execution import extract_code, top_level
from ..sandbox import Limits
from .base import CodeItem, Row

# The reference of problem 123 sums divisors for 4 s. All others, and all of HumanEval's, end in a quarter of a second.
LIMITS = Limits(wall_seconds=24.0, cpu_seconds=12)
INSTRUCTION = (
    "You are an expert Python programmer, and here is your task: {text} Your code should pass these tests:\n\n{tests}\n\n"
    "Answer with the code in one ```python block."
)


@dataclass(frozen=True)
class MbppItem(CodeItem):
    def program(self, completion: str) -> str:
        return extract_code(completion, self.entry_point)


def item(row: Row) -> MbppItem:
    """A row with task_id, text, code, test_setup_code and test_list. Raises UserError that names the line."""
    text, solution, tests = row.text("text"), row.text("code"), row.texts("test_list")
    # After the solution: the set-up code builds objects of classes that the solution defines.
    setup = (row.text("test_setup_code"),) if row.values.get("test_setup_code") else ()  # most have none
    entry_point = _entry_point(solution, tests)
    if not entry_point:
        raise row.error("the tests call no function that the code defines")
    prompt = INSTRUCTION.format(text=text.strip(), tests="\n".join(tests))
    return MbppItem(f"MBPP/{row.whole('task_id')}", prompt, entry_point, solution, setup + tests)


def in_test_split(row: Row) -> bool:
    return 11 <= row.whole("task_id") <= 510


def _entry_point(solution: str, tests: tuple[str, ...]) -> str:
    """The first function of the solution that the tests call; empty where there is none."""
    functions = {s.name for s in top_level(solution) if isinstance(s, ast.FunctionDef | ast.ClassDef)}
    for node in (node for statement in top_level("\n".join(tests)) for node in ast.walk(statement)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
            return node.func.id
    return ""
