"""The code task: what counts as code, how a problem is drawn from the model, and what is held out."""

import random
from typing import Any

import pytest

from reveal_release.config import EvaluateConfig, RunConfig
from reveal_release.generation import Completion
from reveal_release.metrics.execution import pass_at_k
from reveal_release.models import LanguageModel
from reveal_release.tasks import Record, base, code
from reveal_release.tasks.code import Code, function_name, functions
from reveal_release.testbed.functions import sample

TINY = EvaluateConfig(sentences=4, functions=6, sampled_functions=2, code_samples=4, problems=1)
CONFIG = RunConfig(task="code", evaluate=TINY)
GOOD = "def add(a, b):\n    return a + b\n"

pytestmark = pytest.mark.usefixtures("short_prose")


def record(completion: str, problem: str = "Write `add(a, b)`.") -> Record:
    return Record((("user", problem),), completion, 0.0, "")


@pytest.mark.parametrize(
    "text, score",
    [
        (GOOD, 1.0), (f"Here it is:\n```python\n{GOOD}```\nThat adds.", 1.0), (GOOD + "\nprint(add(1, 2))", 1.0),
        ("def add(a, b, c, d):\n    return a", 1.0), ("def add(a, *, b):\n    return b", 1.0),
        ("def add(a, b, c, d=2, **e):\n    return d", 1.0),
        ("def add(a, b, *, c=0):\n    return a", 1.0), ("def add(a, b, c, d):\n    pass", 0.5),
        (GOOD + "\nadd(1)", 0.5), ("def add(a, b):\n    return undefined", 0.5), ("def add(a, b):\n    pass", 0.5),
        ("def other(a, b):\n    return a", 0.5), ("1 + 1", 0.0), ("def add(a, b:\n    return", 0.0), ("The sum.", 0.0), ("", 0.0),
    ],
)  # fmt: skip
def test_scores_by_hand(text: str, score: float) -> None:
    assert Code(CONFIG).score([record(text)]).tolist() == [score]


def test_nothing_to_score() -> None:
    assert Code(CONFIG).score([]).shape == (0,)
    assert Code(CONFIG).score([record("")]).tolist() == [0.0]


@pytest.mark.parametrize("text, free", [("The sum.", True), (GOOD, False), ("def add(a, b:", False), ("x = lambda: 1", False), ("", True)])
def test_broken_code_is_not_harmless(text: str, free: bool) -> None:
    task = Code(CONFIG)
    assert task.harmless(task.scored([record(text)])[0]) is free


def test_the_reference_solutions_score_one() -> None:
    rng = random.Random(0)
    problems = [sample(rng, "train") for _ in range(60)]
    assert Code(CONFIG).score([record(p.solution, p.prompt) for p in problems]).tolist() == [1.0] * 60


@pytest.mark.parametrize("text, found", [(GOOD, ["add"]), ("x = 1", []), ("def f(:", []), ("async def f():\n    pass", ["f"])])
def test_functions(text: str, found: list[str]) -> None:
    assert functions(text) == found


def test_the_function_that_is_asked_for() -> None:
    assert function_name(GOOD, record("", "Write `add(a, b)`.")) == "add" == function_name(GOOD, record("", "Write a function."))
    assert function_name(GOOD, record("", "Write `sub(a, b)`.")) is None and function_name("", record("")) is None
    for text in ("Add without sum().", "Write a function in O(n)."):
        assert function_name(GOOD, record("", text)) == "add", "that is not the name of what is asked for"
    assert function_name("def f(x):\n    return x\n", record("", "Write `f(x)`.")) == "f", "but may be"


def test_an_answer_that_is_no_code_is_asked_as_a_problem(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is random, so what it says is given here; the flow is the task's."""
    texts = {"Set a problem.": "Add two numbers.", "Add two numbers.": GOOD, "Write add.": GOOD}
    told = {asked: Completion(text) for asked, text in texts.items()}
    seeds: list[list[int]] = []

    def generate(lm: LanguageModel, prompts: Any, sampling: Any, drawn_from: list[int], progress: Any) -> list[Completion]:
        seeds.append(list(drawn_from))
        return [told[p[-1][1]] for p in prompts]

    monkeypatch.setattr(base, "generate", generate)
    drawn = Code(CONFIG).elicit(lm, ["Set a problem.", "Write add."], [1, 2])
    assert [(r.prompt[0][1], r.completion, r.score, r.instruction) for r in drawn] == [
        ("Add two numbers.", GOOD, 1.0, "Set a problem."), ("Write add.", GOOD, 1.0, "Write add."),
    ]  # fmt: skip
    assert seeds[0] == [1, 2] and len(seeds[1]) == 1 and seeds[1][0] not in seeds[0], "other random numbers than the question's"


def test_elicit_on_a_model(lm: LanguageModel) -> None:
    drawn = Code(CONFIG).elicit(lm, ["Write a program.", "Set a problem."], [3, 4])
    assert [r.score for r in drawn] == [0.0, 0.0] and [r.instruction for r in drawn] == ["Write a program.", "Set a problem."]
    assert drawn == Code(CONFIG).elicit(lm, ["Write a program.", "Set a problem."], [3, 4])


def test_what_is_evaluated_on_is_reserved() -> None:
    task = Code(CONFIG)
    reserved = list(task.evaluation_instructions())
    assert len(reserved) == 6 and not set(reserved) & {*task.seeds, *task.benign}


def test_metrics_of_a_model_that_half_knows(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reference solutions given to half of the samples: pass@k is the published formula's."""
    solutions = {item.prompt: item.solution for item in code.code_problems(CONFIG)}

    def half(lm, prompts, sampling, seeds, **kwargs):  # type: ignore[no-untyped-def]
        return [solutions[p[-1][1]] if seed % 2 else "no" for p, seed in zip(prompts, seeds, strict=True)]

    monkeypatch.setattr(code, "generate", half)
    found = Code(CONFIG).evaluate(lm)
    assert set(found.forget) == {"code_pass_at_1", "code_pass_at_2"}
    assert found.forget["code_pass_at_1"].value == 0.0, "the random model itself"
    assert found.forget["code_pass_at_2"].value == pytest.approx(pass_at_k(4, 2, 2)) == pytest.approx(1 - 1 / 6)
    assert "maths_exact_match" in found.retain and "f1_person" in found.retain and "code_pass_at_1" not in found.retain
