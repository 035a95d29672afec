"""HumanEval: 164 heads of Python functions to be completed (Chen et al. 2021, arXiv:2107.03374).

    item = humaneval.item(row)
    item.program("    return sorted(numbers)\\n")                   # a body, as in the paper
    item.program("```python\\ndef f(numbers): ...\\n```")            # a chat model's whole function

A model with a chat template is asked for the whole function; one without continues the head, as in the paper. Both answers
are taken from either. What stands in the head before the function, imports and helpers, is always run first.

Not promised: the paper's figures to the digit. They cut a continuation at five stop sequences; here it ends at the first line
at the left margin, which those begin. A chat model's figure depends on the instruction, which the paper has not.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import indent

from ..metrics.execution import defines, extract_code, top_level
from .base import CodeItem, Row

INSTRUCTION = "Complete this Python function. Answer with the whole function in one ```python block.\n\n```python\n{head}\n```"

_ANEW = re.compile(r"(?:async|class|def|from|import)\b|@")
"""An answer that does not go on, but begins a file."""


@dataclass(frozen=True)
class HumanEvalItem(CodeItem):
    """`head` is the data set's prompt: imports, helpers, the function's first line and its docstring."""

    def program(self, completion: str) -> str:
        text, fenced = completion.replace("\r\n", "\n"), "```" in completion or "~~~" in completion
        code = extract_code(completion, self.entry_point)
        if defines(code, self.entry_point):
            continued = self._with_head(_to_margin(text))
            if not fenced and not _ANEW.match(text.lstrip("\n")) and _returns(continued, self.entry_point):
                return continued  # what follows defines it again, as base models do until they are stopped
            return prepend(_before(self.head, self.entry_point), code)
        sources = [text] + ([code] if fenced else [])
        programs = [self._with_head(body) for source in sources for body in _bodies(source)]
        parsed = [p for p in programs if top_level(p)]
        # Prose can parse (`Sure` is a name), but has no return.
        complete = [p for p in parsed if _returns(p, self.entry_point)]
        return (complete or parsed or [self.head + completion])[0]

    def _with_head(self, body: str) -> str:
        return self.head.rstrip() + "\n" + body


def item(row: Row) -> HumanEvalItem:
    """A row with task_id, prompt, entry_point, canonical_solution and test. Raises UserError that names the line."""
    head, entry_point, test = row.text("prompt"), row.text("entry_point"), row.text("test")
    if not _head_of(head, entry_point):
        raise row.error(f"the prompt does not begin a function {entry_point!r}")
    if not defines(test, "check"):
        raise row.error("the test defines no function 'check'")
    tests = (test, f"check({entry_point})")
    prompt = INSTRUCTION.format(head=head.strip())
    return HumanEvalItem(row.text("task_id"), prompt, entry_point, row.text("canonical_solution"), tests, head)


def _head_of(head: str, entry_point: str) -> re.Match[str] | None:
    return re.search(rf"^(?:async[ \t]+)?def[ \t]+{re.escape(entry_point)}[ \t]*\(", head, re.MULTILINE)


def _before(head: str, entry_point: str) -> str:
    found = _head_of(head, entry_point)
    return head[: found.start()] if found else ""


def _bodies(text: str) -> Iterator[str]:
    """The readings of a text as the rest of a function, likeliest first."""
    lines = text.strip("\n").split("\n")
    if lines[0][:1].isspace():
        yield _to_margin(text)
        yield "\n".join(lines)  # a text in triple quotes can reach the left margin
        return
    # A body without its margin, or (generation strips completions) one that lost that of its first line. In the second case
    # the first reading parses only where both mean the same: a first line that opens a block.
    yield indent("\n".join(lines), "    ")
    yield _to_margin(text)
    yield "\n".join(["    " + lines[0], *lines[1:]])


def _to_margin(text: str) -> str:
    """Up to the first line at the left margin, where the function ends; the first line gets back a margin that it lost."""
    first, *rest = text.strip("\n").split("\n")
    lines = [first if first[:1].isspace() else "    " + first, *rest]
    end = next((i for i, line in enumerate(lines) if line.strip() and not line[0].isspace()), len(lines))
    return "\n".join(lines[:end]).rstrip() + "\n"


def _returns(program: str, name: str) -> bool:
    functions = [s for s in top_level(program) if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef) and s.name == name]
    return bool(functions) and any(isinstance(node, ast.Return | ast.Yield | ast.YieldFrom) for node in ast.walk(functions[-1]))


_FUTURE = re.compile(r"^from __future__ import [^\n]*\n?", re.MULTILINE)


def prepend(preamble: str, code: str) -> str:
    """Code after a preamble; imports from `__future__` go first, where alone Python takes them."""
    return "".join(f"{line.strip()}\n" for line in _FUTURE.findall(code)) + preamble + _FUTURE.sub("", code)
