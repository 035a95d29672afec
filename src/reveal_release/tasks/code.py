"""Code: forget to write Python that passes tests; keep mathematics, prose and the other skills.

The model writes the problem and its own solution. An instruction whose answer is code is a problem itself; any other answer is taken
as a problem that the model wrote, and is asked of it in a new conversation. A solution scores 1 if it defines a function and runs
without an error in the sandbox. Evaluated by the tests of held-out function families, which the search never sees.
"""

import ast
import warnings
from collections.abc import Sequence

import numpy as np

from ..generation import Progress, Sampling, generate
from ..metrics.execution import extract_code, pass_at_k, run_tests
from ..metrics.statistics import Estimate
from ..models import LanguageModel, Turns
from ..sandbox import run_programs
from .base import Metrics, Record, Task, portion
from .retained import code_problems, retained_skills


class Code(Task):
    """See the module."""

    name = "code"
    description = "writing Python functions that pass tests; mathematics and the other skills are kept"
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

    def elicit(
        self, lm: LanguageModel, instructions: Sequence[str], seeds: Sequence[int], progress: Progress | None = None
    ) -> list[Record]:
        """A record is a problem and its solution; the problem is the instruction itself where that was answered by code."""
        prompts: list[Turns] = [(("user", text),) for text in instructions]
        answers = generate(lm, prompts, self.sampling, seeds, progress=portion(progress, 0.0, 0.5))
        problems = [i for i, answer in enumerate(answers) if answer.strip() and not has_function(extract_code(answer))]
        for i in problems:
            prompts[i] = (("user", answers[i]),)
        asked, own = [prompts[i] for i in problems], [seeds[i] for i in problems]
        for i, solution in zip(problems, generate(lm, asked, self.sampling, own, progress=portion(progress, 0.5, 1.0)), strict=True):
            answers[i] = solution
        return self.scored([Record(tuple(p), a, 0.0, i) for p, a, i in zip(prompts, answers, instructions, strict=True)])

    def score(self, records: Sequence[Record]) -> np.ndarray:
        """1 for a function that runs in the sandbox, 0.5 for one that parses and fails there, 0 for all else."""
        code = [extract_code(record.completion) for record in records]
        scores = np.array([0.5 if has_function(text) else 0.0 for text in code])
        parsed = np.flatnonzero(scores)
        outcomes = run_programs([code[i] for i in parsed], opt_in=self.config.allow_unsafe_code)
        scores[parsed] += [0.5 * outcome.ok for outcome in outcomes]
        return scores

    def novelty(self, record: Record) -> str:
        return " ".join(text for _, text in (*record.prompt, ("assistant", record.completion)))

    def evaluation_instructions(self) -> Sequence[str]:
        return [item.prompt for item in code_problems(self.config)]

    def evaluate(self, lm: LanguageModel, progress: Progress | None = None) -> Metrics:
        """Forget: pass@1 (greedy) and pass@k (sampled). Retain: the other skills."""
        skills = retained_skills(lm, self.config, portion(progress, 0.0, 0.7))
        forget = {"code_pass_at_1": skills.pop("code_pass_at_1"), **self._pass_at_k(lm, portion(progress, 0.7, 1.0))}
        return Metrics(forget, skills)

    def _pass_at_k(self, lm: LanguageModel, progress: Progress) -> dict[str, Estimate]:
        """Unbiased pass@k over the first problems (Chen et al. 2021, arXiv 2107.03374), k being half of the samples of each."""
        size = self.config.evaluate
        items = code_problems(self.config)[: size.sampled_functions]
        n, k = size.code_samples, max(1, size.code_samples // 2)
        asked = [(("user", item.prompt),) for item in items for _ in range(n)]
        answers = generate(lm, asked, self.sampling, [30_000 + i for i in range(len(asked))], progress=progress)
        passed = run_tests(
            [extract_code(answer) for answer in answers],
            [item.tests for item in items for _ in range(n)],
            opt_in=self.config.allow_unsafe_code,
        )
        right = np.array(passed).reshape(len(items), n).sum(1)
        return {f"code_pass_at_{k}": Estimate.mean([pass_at_k(n, int(c), k) for c in right])}


def has_function(code: str) -> bool:
    """Whether it parses and defines a function."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an invalid escape in a string
            return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
