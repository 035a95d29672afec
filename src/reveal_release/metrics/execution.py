"""Functional correctness of code that a model wrote: pass@k by running tests in the sandbox.

    code = [extract_code(text) for text in completions]
    passed = run_tests(code, [["assert add(1, 2) == 3"]] * len(code))
    pass_at_k(n=len(passed), c=sum(passed), k=1)

Not promised: that passing code is right (it passed these asserts) or honest (see `reveal_release.sandbox`).
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Sequence
from math import prod

from ..config import UserError
from ..sandbox import DEFAULT_LIMITS, Limits, run_programs

_FENCE = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n]*\n(.*?)(?:^[ \t]*\1|\Z)", re.DOTALL | re.MULTILINE
)
_PYTHON = {"python", "python3", "py", "py3"}
_STATEMENT = re.compile(r"(?:(?:async\s+def|def|class|import|from)\s+|@\s*)\w")
MOST_LINES, MOST_CHARACTERS, MOST_STARTS = 400, 40_000, 8  # what is looked at without a fence: parsing is tried line by line
MODULE = "solution"
"""The name of the module that a solution is. Not `__main__`: HumanEval's harness does not run what stands under that guard either."""


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of the probability that one of k samples passes, from c passes among n samples.

    1 - C(n-c, k) / C(n, k), as a product that neither overflows nor cancels (Chen et al. 2021, "Evaluating
    Large Language Models Trained on Code", equation 1 and figure 3).

    Raises:
        UserError: Not 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise UserError(
            f"pass@{k} from {c} passes among {n} samples: it needs 0 <= passes <= samples and k <= samples."
        )
    if n - c < k:
        return 1.0
    return 1.0 - prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def extract_code(completion: str, name: str = "") -> str:
    """The Python code in a completion.

    The whole, where it is a Python file, fences in its docstrings included. Else the first fenced block marked
    as Python, else the first block without a mark; an unclosed block runs to the end, and of one that does not
    parse only the longest run of lines that does is taken. Without a block: from the first line that starts a
    definition, an import or a decorator and from which something parses (from the start where no line does), the
    longest run of lines that parses. Text in which nothing parses is returned as it is, for the sandbox to fail.

    name: what the code should define. Where the first block does not, but a later one like it does, all up to that one are taken.
    """
    text = completion.replace("\r\n", "\n")
    if _parses(text):
        return text.strip("\n").rstrip() + "\n"
    blocks = [(match[2].lower(), match[3]) for match in _FENCE.finditer(text)]
    for wanted in (_PYTHON, {""}):
        if bodies := [_parsed(_dedent(body)) for mark, body in blocks if mark in wanted]:
            last = next((i for i, body in enumerate(bodies) if defines(body, name)), 0) if name else 0
            return "\n".join([*filter(top_level, bodies[:last]), bodies[last]])
    lines = text.strip("\n")[:MOST_CHARACTERS].split("\n")
    starts = [i for i, line in enumerate(lines) if _STATEMENT.match(line)][:MOST_STARTS] or [0]
    runs = (_longest_run(lines[start : start + MOST_LINES]) for start in starts)
    return next((code for code in runs if code), text)


def _parsed(block: str) -> str:
    """A block that parses as it is, of another what does from its first line on."""
    return block if top_level(block) else _longest_run(block[:MOST_CHARACTERS].split("\n")[:MOST_LINES]) or block


def _longest_run(lines: list[str]) -> str:
    """The most lines from the first on that parse; empty where the first does not."""
    for end in range(len(lines), 0, -1):
        # A run can only end where the next line starts a new statement or is prose: at the left margin.
        if end < len(lines) and (not lines[end].strip() or lines[end][0].isspace()):
            continue
        code = "\n".join(lines[:end])
        if _parses(code):
            return code.rstrip() + "\n"
    # A model that is cut off, or that rambles inside the function: keep what parses of the body.
    for end in range(len(lines) - 1, 0, -1):
        code = "\n".join(lines[:end])
        if _parses(code):
            return code.rstrip() + "\n"
    return ""


def _parses(code: str) -> bool:
    """Whether the code parses and no statement of it is prose."""
    body = top_level(code)
    return bool(body) and not any(map(_is_prose, body))


def top_level(code: str) -> list[ast.stmt]:
    """The statements of the code; none where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an invalid escape in a string
            return ast.parse(code).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return []


def defines(code: str, name: str) -> bool:
    """Whether the code parses and binds the name at its top level: a function, a class, an assignment or an import."""
    for statement in top_level(code):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound = [statement.name]
        elif isinstance(statement, ast.Assign):
            bound = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            bound = [alias.asname or alias.name for alias in statement.names]
        else:
            continue
        if name in bound:
            return True
    return False


_DOES_SOMETHING = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)


def _is_prose(statement: ast.stmt) -> bool:
    """Whether it does nothing but look names up, as words that happen to parse do: `Thanks`, `Here is it`, `Note: see`."""
    if isinstance(statement, ast.AnnAssign):
        return statement.value is None
    if not isinstance(statement, ast.Expr):
        return False
    nodes = list(ast.walk(statement.value))
    return any(isinstance(node, ast.Name) for node in nodes) and not any(isinstance(node, _DOES_SOMETHING) for node in nodes)


def _dedent(block: str) -> str:
    """A block without the indentation of its first line, which lists in Markdown give to every line."""
    lines = block.split("\n")
    first = next((line for line in lines if line.strip()), "")
    margin = first[: len(first) - len(first.lstrip())]
    return "\n".join(line.removeprefix(margin) for line in lines)


def run_tests(
    solutions: Sequence[str],
    tests: Sequence[Sequence[str]],
    limits: Limits = DEFAULT_LIMITS,
    opt_in: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[bool]:
    """Whether each solution passes all of its tests.

    Args:
        solutions: Code, one text per solution. It runs as a module that is imported: not as `__main__`.
        tests: For each solution, statements (asserts) that run after it, in order. An empty list is refused:
            it would make every solution right.
        limits, opt_in, progress: See `reveal_release.sandbox.run_programs`.

    Raises:
        UserError: The lengths differ, a solution has no tests, the machine cannot isolate the programs, or
            the sandbox itself failed on one of them (that is not a wrong solution).
    """
    if len(solutions) != len(tests):
        raise UserError(
            f"{len(solutions)} solutions and {len(tests)} lists of tests: give one list for each solution."
        )
    for index, statements in enumerate(tests):
        if isinstance(statements, str) or not any(map(str.strip, statements)):
            raise UserError(
                f"The tests of solution {index} are {statements!r}: give a list of at least one statement."
            )
    programs = [
        solution + "\n\n" + "\n".join(lines) + "\n" for solution, lines in zip(solutions, tests, strict=True)
    ]
    outcomes = run_programs(programs, limits, opt_in=opt_in, progress=progress, name=MODULE)
    failed = [index for index, outcome in enumerate(outcomes) if outcome.status == "error"]
    if failed:  # the sandbox, as when the machine was out of memory: once more, one at a time
        again = run_programs([programs[index] for index in failed], limits, workers=1, opt_in=opt_in, name=MODULE)
        for index, outcome in zip(failed, again, strict=True):
            outcomes[index] = outcome
            if outcome.status == "error":
                raise UserError(
                    f"The sandbox could not judge solution {index} ({outcome.stderr}): free some memory, then give the same "
                    "command again."
                )
    return [outcome.ok for outcome in outcomes]
