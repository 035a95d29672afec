"""The adapters judge known answers rightly: references 100 %, broken ones 0 %, on real rows (tests/suites/data/SOURCE)."""

import ast
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reveal_release.config import UserError
from reveal_release.metrics.arithmetic import exact_match
from reveal_release.metrics.execution import run_tests
from reveal_release.suites import CodeItem, CodeSuite, MathsSuite, humaneval, load_suite, make_suite
from reveal_release.suites.base import Row, read_rows

DATA = Path(__file__).with_name("data")
SAMPLES = {"humaneval": "humaneval.jsonl", "mbpp-all": "mbpp.jsonl"}


def code(name: str) -> CodeSuite:
    suite = load_suite(name, DATA / SAMPLES[name])
    assert isinstance(suite, CodeSuite)
    return suite


def passes(suite: CodeSuite, answer: Callable[[CodeItem], str]) -> list[bool]:
    return run_tests([item.program(answer(item)) for item in suite.items], [item.tests for item in suite.items], suite.limits)


def whole(item: CodeItem) -> str:
    return item.program(item.solution)


GOOD: dict[str, Callable[[CodeItem], str]] = {
    "as published": lambda item: item.solution,
    "ends stripped, as `generate` does": lambda item: item.solution.strip(),
    "a whole file": whole,
    "fenced in prose": lambda item: f"Sure!\n\n```python\n{whole(item)}\n```\nThis works because of f(x).",
    "rambling on": lambda item: item.solution.rstrip() + "\n\n\nprint(undefined_name)\n" if item.head else item.solution,
}
BROKEN: dict[str, Callable[[CodeItem], str]] = {
    "empty": lambda item: "",
    "prose": lambda item: "I do not write programs.",
    "syntax error": lambda item: whole(item).replace(f"def {item.entry_point}(", f"def {item.entry_point}(("),
    "returns None": lambda item: f"def {item.entry_point}(*args):\n    return None",
    "another name": lambda item: f"def {item.entry_point}_2(*args):\n    return 1",
    "exits": lambda item: whole(item) + "\nimport sys\nsys.exit(0)",
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("form", GOOD)
def test_references_pass(name: str, form: str) -> None:
    assert all(passes(code(name), GOOD[form]))


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("form", BROKEN)
def test_broken_answers_fail(name: str, form: str) -> None:
    assert not any(passes(code(name), BROKEN[form]))


def test_gsm8k_references_and_broken_answers() -> None:
    suite = load_suite("gsm8k", DATA / "gsm8k.jsonl")
    assert isinstance(suite, MathsSuite)
    gold = [item.answer for item in suite.items]
    last = [answer.rsplit("\n", 1)[1] for answer in gold]
    assert exact_match(gold, gold).value == exact_match([text.replace(",", "") for text in last], gold).value == 1.0
    for broken in ([""] * 4, [f"#### {i}1" for i in range(4)], [text.replace("####", "Answer:") for text in gold]):
        assert exact_match(broken, gold).value == 0.0
    assert [item.id for item in suite.items][:3] == ["GSM8K/1", "GSM8K/2", "GSM8K/3"]
    assert all("#### N" in item.prompt and "<<" not in item.prompt for item in suite.items)


def test_prompts_show_what_the_model_needs_and_not_the_solution() -> None:
    for item in code("humaneval").items:
        assert item.head.strip() in item.prompt and item.solution.strip() not in item.prompt
    for item in code("mbpp-all").items:
        shown = [test for test in item.tests if test.startswith("assert")]
        assert len(shown) == 3 and all(test in item.prompt for test in shown)
        assert item.solution not in item.prompt and f"{item.entry_point}(" in item.prompt


def test_set_up_code_runs_after_the_solution() -> None:
    item = next(item for item in code("mbpp-all").items if item.id == "MBPP/367")
    assert item.entry_point == "is_tree_balanced" and item.tests[0].startswith("root = Node(1)")


def test_mbpp_alone_is_its_test_split() -> None:
    names = [item.id for item in load_suite("mbpp", DATA / "mbpp.jsonl").items]
    assert names == ["MBPP/14", "MBPP/16", "MBPP/64", "MBPP/367"]  # not 1, a training problem


def test_imports_from_the_future_stay_first() -> None:
    item = code("humaneval").items[0]
    program = item.program("from __future__ import annotations\n" + whole(item))
    compile(program, "program", "exec")
    assert run_tests([program], [item.tests]) == [True]


def test_bodies_are_told_from_prose_and_from_fences() -> None:
    item = code("humaneval").items[2]  # HumanEval/32
    body = item.solution
    forms = [f"Sure\n```python\n{body}```", f"```\n{body}```\nDone.", body.strip() + "\n\nThis returns x.", body + "```\nSure\n"]
    assert run_tests([item.program(form) for form in forms], [item.tests] * len(forms)) == [True] * len(forms)


def test_a_continuation_that_repeats_the_function_is_read_to_its_end() -> None:
    """As a base model writes greedily until it is stopped, in the midst of a line or not."""
    items = code("humaneval").items
    for end in ("", "    return None\n", "    return (\n", "    x = 1\n    retu"):
        answers = [item.solution.strip("\n") + "\n\n\n" + item.head.strip() + "\n" + end for item in items]
        for form in (answers, [answer.strip() for answer in answers]):
            programs = [item.program(answer) for item, answer in zip(items, form, strict=True)]
            assert run_tests(programs, [item.tests for item in items]) == [True] * len(items)
    wrong = items[2].program("    return None\n\n\n" + whole(items[2]))
    assert run_tests([wrong], [items[2].tests]) == [False], "a second try is none"


def test_a_helper_in_a_block_before_the_function() -> None:
    for name in SAMPLES:
        item = next(item for item in code(name).items if "\n    return " in whole(item))
        used = whole(item).replace("\n    return ", "\n    return helped(0) or ", 1)
        text = f"First:\n```python\ndef helped(x):\n    return x\n```\nThen:\n```python\n{used}\n```\nSo:\n```python\nassert False\n```"
        assert run_tests([item.program(text)], [item.tests]) == [True]
    other = item.program(f"```python\nx = 1\n```\nThen:\n```\n{whole(item)}\n```")
    assert other == "x = 1\n", "a block without a mark is not read where one has it"


# ---- property: every form of a body is read as the same function ----

SIMPLE = st.sampled_from(
    ["x = x + 1", "y = [x,\n     2]", "pass", "x = f(x)", "# a note\nx = 2", "if x:\n    return 3", "def g():\n    return 1"]
)


def nest(blocks: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    heads = st.sampled_from(["if x:", "for i in x:", "while x:", "with x:"])
    return st.builds(lambda head, inner: head + "\n" + margin(inner), heads, blocks)


def margin(block: str) -> str:
    return "\n".join("    " + line for line in block.split("\n"))


BLOCKS = st.recursive(SIMPLE, lambda inner: nest(st.lists(inner, min_size=1, max_size=3).map("\n".join)), max_leaves=5)
HEAD = 'import math\n\ndef h(x):\n    return x\n\ndef f(x):\n    """Doc."""\n'


def read(program: str) -> str:
    functions = [s for s in ast.parse(program).body if isinstance(s, ast.FunctionDef)]
    assert functions[0].name == "h" and functions[-1].name == "f"
    return ast.dump(functions[-1])


@settings(max_examples=60)
@given(st.lists(BLOCKS, max_size=4), st.sampled_from(["", "\n\nprint(f(2))\n", "\nThis works.\n", "\n\ndef other(:\n", "\n```\n"]))
def test_every_form_of_a_body_is_the_same_function(blocks: list[str], after: str) -> None:
    flat = "\n".join([*blocks, "return x"])
    body = margin(flat) + "\n"
    item = humaneval.HumanEvalItem("x", "", "f", body, ("check(f)",), HEAD)
    expected = ast.dump(ast.parse(HEAD + body).body[-1])
    full = 'def f(x):\n    """Doc."""\n' + body
    for form in (body, body.strip(), flat, full, body + after, HEAD + body, f"```python\n{full}```", f"Here:\n```py\n{body}```\nBye."):
        assert read(item.program(form)) == expected, form


# ---- files ----

ROWS = {
    "humaneval": json.loads((DATA / "humaneval.jsonl").read_text("utf-8").splitlines()[0]),
    "mbpp": json.loads((DATA / "mbpp.jsonl").read_text("utf-8").splitlines()[1]),
    "gsm8k": json.loads((DATA / "gsm8k.jsonl").read_text("utf-8").splitlines()[0]),
}


@pytest.mark.parametrize(("name", "sample"), [("humaneval", "humaneval.jsonl"), ("mbpp", "mbpp.jsonl"), ("gsm8k", "gsm8k.jsonl")])
def test_gzipped_is_read_as_plain_whatever_its_name(name: str, sample: str, tmp_path: Path) -> None:
    packed = tmp_path / "rows.jsonl"
    packed.write_bytes(gzip.compress(b"\n" + (DATA / sample).read_bytes().replace(b"\n", b"\r\n")))
    plain, other = load_suite(name, DATA / sample), load_suite(name, packed)
    assert [i.prompt for i in plain.items] == [i.prompt for i in other.items]


@pytest.mark.parametrize(
    ("name", "second", "message"),
    [
        ("humaneval", "{", "rows.jsonl, line 2: no JSON"),
        ("humaneval", "[]", "line 2: no JSON object"),
        ("humaneval", "\udcff", "line 2: no JSON"),
        ("humaneval", ROWS["gsm8k"], "line 2: no field 'prompt' (it has question, answer)"),
        ("humaneval", {**ROWS["humaneval"], "test": ""}, "line 2: 'test' is no text"),
        ("humaneval", {**ROWS["humaneval"], "test": "assert True"}, "line 2: the test defines no function 'check'"),
        ("humaneval", {**ROWS["humaneval"], "entry_point": "g"}, "line 2: the prompt does not begin a function 'g'"),
        ("humaneval", ROWS["humaneval"], "line 2: HumanEval/0 comes a second time"),
        ("mbpp", {**ROWS["mbpp"], "test_list": []}, "line 2: 'test_list' is no list of texts"),
        ("mbpp", {**ROWS["mbpp"], "test_list": ["assert g(1)"]}, "line 2: the tests call no function that the code defines"),
        ("mbpp", {**ROWS["mbpp"], "task_id": "15"}, "line 2: 'task_id' is no whole number"),
        ("gsm8k", {"question": "How many?", "answer": "18"}, "line 2: 'answer' has no '#### N'"),
    ],
)
def test_a_malformed_row_is_told_with_its_line(name: str, second: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    line = second if isinstance(second, str) else json.dumps(second)
    path.write_bytes((json.dumps(ROWS[name]) + "\n" + line + "\n").encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as caught:
        load_suite(name, path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_unusable_files_and_names_are_told(tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress((DATA / "humaneval.jsonl").read_bytes())[:-200])
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    training = tmp_path / "training.jsonl"
    training.write_bytes((DATA / "mbpp.jsonl").read_bytes().splitlines()[0])
    for name, path, message in [
        ("humaneval", cut, "cannot read"),
        ("humaneval", tmp_path / "none.jsonl", "No such file"),
        ("humaneval", tmp_path, "Is a directory"),
        ("gsm8k", empty, "give a file with rows"),
        ("mbpp", training, "take mbpp-all"),
        ("humanevil", empty, "choose from humaneval, mbpp, mbpp-all, gsm8k"),
    ]:
        with pytest.raises(UserError, match=message):
            load_suite(name, path)


@pytest.mark.parametrize(("name", "sample"), [("humaneval", "humaneval.jsonl"), ("mbpp", "mbpp.jsonl"), ("gsm8k", "gsm8k.jsonl")])
def test_rows_of_the_datasets_library_give_the_same_items(name: str, sample: str) -> None:
    rows = list(read_rows(DATA / sample))
    table = datasets.Dataset.from_list([dict(row.values) for row in rows])
    assert make_suite(name, [Row(v, "hub", n) for n, v in enumerate(table, 1)]) == load_suite(name, DATA / sample)


@pytest.mark.parametrize("kind", [ConnectionError, RuntimeError, StopIteration, datasets.exceptions.DatasetGenerationError])
def test_no_hub_is_told_with_the_cure(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise kind("no route\nmore")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(UserError, match=r"cannot fetch openai/gsm8k from the hub \(no route\): give its file"):
        load_suite("gsm8k")
