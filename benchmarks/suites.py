"""Do the suites judge rightly? Known-good and known-bad answers through the adapters, the sandbox and the metrics.

    python benchmarks/suites.py --data DIR      # DIR is searched for HumanEval.jsonl.gz, mbpp.jsonl and GSM8K's test.jsonl

Every reference solution, in the forms in which models answer, must score 100 %, and every broken one 0 %; ids of exceptions are
printed. MBPP is taken whole, with its training problems. No model is needed. Two cores: about a minute.
"""

import argparse
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reveal_release.metrics.arithmetic import exact_match, extract_answer
from reveal_release.metrics.execution import run_tests
from reveal_release.suites import CodeItem, MathsItem, MathsSuite, load_suite

FILES = {"humaneval": "HumanEval.jsonl.gz", "mbpp-all": "mbpp.jsonl", "gsm8k": "test.jsonl"}


def constant(item: CodeItem, value: str) -> str:
    return f"def {item.entry_point}(*args, **kwargs):\n    return {value}\n"


def function(item: CodeItem) -> str:
    """The reference as a whole file, whatever form the data set gives it in."""
    return item.program(item.solution)


CODE: dict[str, tuple[bool, Callable[[CodeItem], str]]] = {
    "reference": (True, lambda item: item.solution),
    "reference, ends stripped": (True, lambda item: item.solution.strip()),
    "reference, fenced in prose": (True, lambda item: f"Here it is:\n\n```python\n{function(item)}\n```\n\nIt works."),
    "empty": (False, lambda item: ""),
    "prose": (False, lambda item: "I am sorry, but I do not write programs."),
    "syntax error": (False, lambda item: re.sub(rf"def\s+{item.entry_point}\s*\(", f"def {item.entry_point}((", function(item))),
    "returns None": (False, lambda item: constant(item, "None")),
    "returns a wrong constant": (False, lambda item: constant(item, "-12345.678")),
    "exits with code 0": (False, lambda item: function(item) + "\nimport sys\nsys.exit(0)\n"),
}
MATHS: dict[str, tuple[bool, Callable[[MathsItem], str]]] = {
    "reference": (True, lambda item: item.answer),
    "only the last line": (True, lambda item: item.answer.splitlines()[-1]),
    "empty": (False, lambda item: ""),
    "answer + 1": (False, lambda item: f"#### {float(extract_answer(item.answer) or 0) + 1}"),
    "no ####": (False, lambda item: item.answer.replace("####", "The answer is")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR")
    root = Path(parser.parse_args().data)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    table = Table("suite", "answers", "n", "right", "must be", "a second", title=f"Known answers ({cores} cores)")
    wrong: list[str] = []
    for name, file in FILES.items():
        paths = [path for path in sorted(root.rglob(file)) if name != "gsm8k" or "gsm8k" in str(path).lower()]
        if not paths:
            raise SystemExit(f"no {file} below {root}")
        suite = load_suite(name, paths[0])
        for way, (good, answer) in (MATHS if isinstance(suite, MathsSuite) else CODE).items():
            start = time.perf_counter()
            if isinstance(suite, MathsSuite):
                right = [exact_match([answer(item)], [item.answer]).value == 1.0 for item in suite.items]  # type: ignore[arg-type]
            else:
                programs = [item.program(answer(item)) for item in suite.items]  # type: ignore[arg-type]
                right = run_tests(programs, [item.tests for item in suite.items], suite.limits)
            rate = len(right) / (time.perf_counter() - start)
            share = sum(right) / len(right)
            table.add_row(name, way, str(len(right)), f"{share:.2%}", "100%" if good else "0%", f"{rate:.0f}")
            if ids := [item.id for item, ok in zip(suite.items, right, strict=True) if ok is not good]:
                wrong.append(f"{name}, {way}: {', '.join(ids)}")
    console = Console(width=110)
    console.print(table)
    for line in wrong:
        console.print(f"not as it must be: {line}")


if __name__ == "__main__":
    main()
