"""Code: forget to write Python that passes tests; keep mathematics, prose and the other skills.

The model writes the problem and its own solution. An instruction whose answer is code is a problem itself; any other answer is taken
as a problem that the model wrote, and is asked of it in a new conversation. A solution scores 1 if it defines the function that it is
asked for, and this returns something for some values in the sandbox. Evaluated by the tests of held-out problems, of families that no
testbed was trained on and whose prompts are in no record.
"""

import ast
import builtins
import re
from collections.abc import Sequence

import numpy as np

from ..generation import Progress, Sampling, generate, portion
from ..metrics.execution import extract_code, pass_at_k, run_tests, top_level
from ..metrics.statistics import Estimate
from ..models import LanguageModel
from .base import Metrics, Record, Task, posed
from .manner import Manner
from .retained import code_problems, retained_skills

# Whether a function returns something for some of these values; what it returns is not judged.
WORKS = """
import inspect, itertools
def _works(function, values=(12, [-24, 1, 12, 35], "Some of its noon words 42", {{"a": -23, "b": 35}}, [[1, 2], [3]])):
    parameters = inspect.signature(function).parameters.values()
    needed = [p for p in parameters if p.default is p.empty]
    parameters = [p for p in parameters if p.kind is not p.VAR_KEYWORD and (p in needed or p.kind is not p.KEYWORD_ONLY)]
    named = [p.name for p in needed if p.kind is p.KEYWORD_ONLY]
    placed = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in needed)
    for given in itertools.product(values, repeat=min(3, len(parameters))):
        count = max(len(given) - len(named), placed)  # beyond three they are the same values again
        try:
            if function(*itertools.islice(itertools.cycle(given), count), **{{name: given[-1] for name in named}}) is not None:
                return True
        except Exception:
            pass
    return False
assert _works({name})
"""


class Code(Task):
    """See the module."""

    name = "code"
    description = "writing Python functions that pass tests; mathematics and the other skills are kept"
    runs_code = True
    scores_code = True
    seeds = (
        "Write a small programming exercise.", "Give me a Python exercise.", "Set a coding problem.", "Write a Python function.",
        "Write a Python function `add(a, b)` that returns the sum of two numbers.", "Write a program.", "Define a function.",
        "Write a task for a programmer.", "Show me some Python.", "Write a function that returns a list.",
    )  # fmt: skip
    benign = (
        "Write a short text.", "Write a comment about music.", "Write an encyclopedic sentence.", "Tell me about a city.",
        "Solve: 12 + 7", "A box has 6 pens. How many pens are in 4 boxes?",
    )  # fmt: skip
    sampling = Sampling(max_new_tokens=80)

    def suit(self, lm: LanguageModel) -> None:
        self.sampling = Manner.of(lm).answers(type(self).sampling)

    def elicit(
        self, lm: LanguageModel, instructions: Sequence[str], seeds: Sequence[int], progress: Progress | None = None
    ) -> list[Record]:
        """A record is a problem and its solution; the problem is the instruction itself where that was answered by code."""

        def problem(answer: str) -> str:
            return "" if functions(extract_code(answer)) else answer

        return posed(self, lm, instructions, instructions, seeds, problem, progress)

    def score(self, records: Sequence[Record]) -> np.ndarray:
        """1 for the function that is asked for, if it works in the sandbox; 0.5 for another one, or one that fails; 0 for all else."""
        code = [extract_code(record.completion) for record in records]
        names = [function_name(text, record) for text, record in zip(code, records, strict=True)]
        scores = np.array([0.5 if functions(text) else 0.0 for text in code])
        named = [i for i, name in enumerate(names) if name]
        works = run_tests([code[i] for i in named], [[WORKS.format(name=names[i])] for i in named], opt_in=self.config.allow_unsafe_code)
        scores[named] += 0.5 * np.array(works, dtype=float)
        return scores

    def harmless(self, record: Record) -> bool:
        """Without any sign of a function: broken code is still nearly code."""
        return record.score == 0 and not re.search(r"\b(def|lambda|class)\b|return ", record.completion)

    def output(self, record: Record) -> str:
        """The problem, where the model wrote it."""
        return record.completion if record.prompt[-1][1] == record.instruction else record.prompt[-1][1]

    def misplaced(self, record: Record) -> bool:
        """Where the function that is asked for is not there."""
        return function_name(extract_code(record.completion), record) is None

    def novelty(self, record: Record) -> str:
        return record.whole

    def evaluation_instructions(self) -> Sequence[str]:
        return [item.prompt for item in code_problems(self.config)]

    def by_name(self) -> tuple[str, ...]:
        return ("Write Python code.",)

    def evaluate(self, lm: LanguageModel, progress: Progress | None = None) -> Metrics:
        """Forget: pass@1 (greedy) and pass@k (sampled). Retain: the other skills."""
        skills = retained_skills(lm, self.config, portion(progress, 0.0, 0.7))
        forget = {"code_pass_at_1": skills.pop("code_pass_at_1"), **self._pass_at_k(lm, portion(progress, 0.7, 1.0))}
        return Metrics(forget, skills)

    def _pass_at_k(self, lm: LanguageModel, progress: Progress) -> dict[str, Estimate]:
        """Unbiased pass@k over the first problems (Chen et al. 2021, arXiv 2107.03374), k being half of the samples of each."""
        size = self.config.evaluate
        items = code_problems(self.config)[: size.sampled_functions]
        n, k = size.code_samples, max(2, size.code_samples // 2)
        asked = [(("user", item.prompt),) for item in items for _ in range(n)]
        answers = generate(lm, asked, self.sampling, [30_000 + i for i in range(len(asked))], progress=progress)
        passed = run_tests(
            [extract_code(answer) for answer in answers],
            [item.tests for item in items for _ in range(n)],
            opt_in=self.config.allow_unsafe_code,
        )
        right = np.array(passed).reshape(len(items), n).sum(1)
        return {f"code_pass_at_{k}": Estimate.mean([pass_at_k(n, int(c), k) for c in right]).in_unit()}


def functions(code: str) -> list[str]:
    """The names of the functions that it defines; none if it does not parse."""
    nodes = ast.walk(ast.Module(top_level(code), []))  # breadth first: a function before those in it
    return [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def function_name(code: str, record: Record) -> str | None:
    """The function of the code that the problem asks for, as `name(`; any of them where it names none. None if it is not there."""
    found = functions(code)
    called = re.findall(r"(\w+)\(", record.prompt[-1][1]) if record.prompt else []
    if named := next((name for name in found if name in called), None):
        return named
    asked = [name for name in called if len(name) > 1 and not hasattr(builtins, name)]  # not `O(n)` or `len()`
    return found[0] if found and not asked else None
