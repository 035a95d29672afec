"""Tests of pass@k, code extraction, and running tests."""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import Any

import pytest

from reveal_release.config import UserError
from reveal_release.metrics import execution
from reveal_release.metrics.execution import extract_code, pass_at_k, run_tests
from reveal_release.sandbox import Outcome, missing_protections, run_programs

ADD = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize("n", range(1, 7))
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(n: int) -> None:
    for c in range(n + 1):
        for k in range(1, n + 1):
            subsets = list(combinations([i < c for i in range(n)], k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_pass_at_k_is_stable_for_large_n() -> None:
    exact = 1 - comb(9_990, 100) / comb(10_000, 100)
    assert pass_at_k(10_000, 10, 100) == pytest.approx(exact, rel=1e-12)
    assert pass_at_k(10**6, 1, 1) == pytest.approx(1e-6, rel=1e-9)
    assert pass_at_k(200, 0, 100) == 0.0 and pass_at_k(200, 101, 100) == 1.0


@pytest.mark.parametrize(("n", "c", "k"), [(5, 6, 1), (5, -1, 1), (5, 1, 6), (5, 1, 0)])
def test_pass_at_k_refuses_impossible_counts(n: int, c: int, k: int) -> None:
    with pytest.raises(UserError, match="samples"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        (f"Here it is:\n```python\n{ADD}```\nIt adds.", ADD),
        (f"```py\n{ADD}```\n```python\nassert False\n```", ADD),
        (f"```\n{ADD}```", ADD),
        (f"Run this:\n```bash\npip install x\n```\nthen\n```python\n{ADD}```", ADD),
        (f"```sh\nls\n```\n```\n{ADD}```", ADD),
        (f"```python\n{ADD}", ADD),  # cut off before the fence
        (f"```python\n{ADD}\ndef sub(a, b):\n    return (a -", ADD),  # cut off inside the second function
        (f"```python\n{ADD}\nadd\nR = 3\n```", f"{ADD}\nadd\nR = 3\n"),  # a name alone, as in a notebook
        (f"```Python title=x\r\n{ADD}```".replace("\n", "\r\n").replace("\r\r", "\r"), ADD),
        (f"~~~python\n{ADD}~~~", ADD),
        ("1. First:\n   ```python\n   def add(a, b):\n       return a + b\n   ```", ADD),
        (ADD, ADD),
        (f"{ADD}\nThis function adds two numbers.", ADD),
        (f"{ADD}\nThanks", ADD),
        (f"Sure! Here you go.\n\n{ADD}\n\nYou can call it so.", ADD),
        (f"import math\n\n{ADD}\n### Instruction:\nWrite more.", f"import math\n\n{ADD}\n### Instruction:\n"),
        (f"{ADD}    it's prose inside", ADD),
        (f"{ADD}\ndef sub(a, b):\n    return (a -", ADD),  # cut off inside the second function
        ("x = 1\ny = 2", "x = 1\ny = 2\n"),
        (f"R = 3\n\n{ADD}", f"R = 3\n\n{ADD}"),  # as MBPP 1's reference: a constant before the function
        (f"if True:\n    R = 3\n{ADD}", f"if True:\n    R = 3\n{ADD}"),
        (f"\"\"\"Adds.\"\"\"\nR = 3\r\n{ADD}print(add(1, R))\n", f"\"\"\"Adds.\"\"\"\nR = 3\n{ADD}print(add(1, R))\n"),
        (f'"""\n```python\nadd(1, 2)\n```\n"""\n{ADD}', f'"""\n```python\nadd(1, 2)\n```\n"""\n{ADD}'),  # not the block
        (f"Sure\n\n{ADD}", ADD),  # prose can parse
        (f"Here is it\n{ADD}\nwell, done", ADD),
        (f"Note: this\n{ADD}", ADD),
        (f"important: it adds\ndefine it so:\n{ADD}", ADD),  # prose that begins as statements do
        (f"This is of a\nclass of problems\nfrom a list of them\nimport it so\n\n{ADD}", ADD),
        ("class of problems", "class of problems"),
        ("Thanks", "Thanks"),
        ("I cannot do that.", "I cannot do that."),
        ("", ""),
    ],
)
def test_extract_code(completion: str, code: str) -> None:
    assert extract_code(completion).strip() == code.strip()


@pytest.mark.parametrize("line", ["well, this is no code", "from a list of them we take"])
def test_extract_code_takes_linear_time_on_prose(line: str) -> None:
    assert extract_code(f"{line}\n" * 3_000).startswith(line)


@pytest.mark.parametrize(
    "text", ["(" * 10**5, "-" * 10**5 + "1", "a" + ".b" * 10**5, "x = '\\d'", "def f():\0"]
)
def test_extract_code_survives_what_a_parser_does_not_like(text: str) -> None:
    assert isinstance(extract_code(text), str)


@pytest.mark.skipif(bool(missing_protections()), reason=f"this machine gives no {missing_protections()}")
def test_run_tests() -> None:
    tests = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]
    wrong = [
        "def add(a, b):\n    return 3",
        "",
        "def add(a, b):\n    import sys\n    sys.exit(0)",
        "def add(a, b:",
    ]
    wrong += ["def add(a, b):\n    while True: pass", ADD + "raise SystemExit(0)", ADD + "'''"]
    solutions = [ADD, *wrong, "add = lambda a, b: b + a"]
    assert run_tests(solutions, [tests] * len(solutions)) == [True] + [False] * len(wrong) + [True]


@pytest.mark.skipif(bool(missing_protections()), reason=f"this machine gives no {missing_protections()}")
def test_what_a_script_does_at_its_end_is_not_run() -> None:
    ends = ["import unittest\n    unittest.main()", "import sys\n    sys.exit(0)", "print(add(int(input()), 2))"]
    solutions = [f'{ADD}\nif __name__ == "__main__":\n    {end}\n' for end in ends]
    solutions += [f"import pickle, dataclasses\n@dataclasses.dataclass\nclass A:\n    x: 'int'\npickle.dumps(A(1))\n{ADD}"]
    hidden = "import __main__, sys\nassert not hasattr(__main__, 'Server')\nassert __main__ is sys.modules[__name__]\n"
    solutions.append(hidden + ADD)
    assert run_tests(solutions, [["assert add(1, 2) == 3"]] * len(solutions)) == [True] * len(solutions)


def test_run_tests_refuses_missing_tests() -> None:
    with pytest.raises(UserError, match="one list for each"):
        run_tests([ADD], [])
    with pytest.raises(UserError, match="at least one"):
        run_tests([ADD], [[]])
    with pytest.raises(UserError, match="at least one"):
        run_tests([ADD], [["", " "]])
    with pytest.raises(UserError, match="give a list"):
        run_tests([ADD], ["assert add(1, 2) == 3"])  # type: ignore[list-item]


def test_what_the_sandbox_failed_on_is_run_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ends, as where the machine is out of memory, is no wrong solution, and one of them costs no evaluation."""
    ran: list[int] = []

    def failing(programs: list[str], *args: Any, **options: Any) -> list[Outcome]:
        ran.append(len(programs))
        if len(ran) > dead:
            return run_programs(programs, *args, **options)
        return [Outcome(True, "passed", "", "", 0.1)] * (len(programs) - 1) + [Outcome(False, "error", "", "it is gone", 0.1)]

    monkeypatch.setattr(execution, "run_programs", failing)
    solutions, tests = [ADD, "def add(a, b):\n    return 0\n"], [["assert add(1, 2) == 3"]] * 2
    dead = 1
    assert run_tests(solutions, tests, opt_in=True) == [True, False] and ran == [2, 1]
    ran.clear()
    dead = 2
    with pytest.raises(UserError, match=r"could not judge solution 1 \(it is gone\): free some memory, then give the same command again"):
        run_tests(solutions, tests, opt_in=True)
