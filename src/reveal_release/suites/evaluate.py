"""Measures a model on a suite: `reveal-release evaluate --suite humaneval`, or from Python

    SuiteEvaluation(load_suite("humaneval")).evaluate(lm)["pass_at_1"]                         # greedy
    SuiteEvaluation(load_suite("mbpp"), samples=20, temperature=0.8).evaluate(lm)              # unbiased pass@1 and pass@10
    SuiteEvaluation(load_suite("gsm8k"), limit=200).evaluate(lm)["exact_match"]

Programs run in the sandbox with the suite's limits (see `reveal_release.sandbox`), and with the standard library only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..chat import Turns, begun, chat_ids
from ..config import UserError
from ..generation import STRIDE, Progress, Sampling, generate, portion
from ..metrics.arithmetic import exact_match
from ..metrics.execution import pass_at_k, run_tests
from ..metrics.statistics import Estimate
from ..models import LanguageModel
from ..sandbox import require_protections
from .base import CodeItem, CodeSuite, MathsSuite

USUAL_K = (1, 10, 100)  # of Chen et al. 2021


@dataclass(frozen=True)
class SuiteEvaluation:
    """A suite, and how a model is asked it. What does not fit is refused as it is made: before a model is loaded.

    Args:
        samples: completions per problem. Mathematics is scored by one.
        temperature: 0 is greedy, for one sample. Above it, the whole vocabulary is sampled from.
        max_new_tokens: length of a completion.
        limit: take the first so many problems; None takes all.
        k: of pass@k, at most `samples`; empty takes those of 1, 10 and 100 that are.
        seed: seeds the completions and the bootstrap.
        unsafe: run programs even where this machine cannot isolate them.

    Raises:
        UserError: settings that do not fit, or no sandbox.
    """

    suite: CodeSuite | MathsSuite
    samples: int = 1
    temperature: float = 0.0
    max_new_tokens: int = 512
    limit: int | None = None
    k: tuple[int, ...] = ()
    seed: int = 0
    unsafe: bool = False

    def __post_init__(self) -> None:
        for name in ("samples", "max_new_tokens", "limit"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"{name} is {value}: give a whole number of at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature:g}: give a number of at least 0")
        if isinstance(self.suite, MathsSuite) and (self.samples > 1 or self.k):
            raise UserError(f"samples and k are for code, and {self.suite.name} is scored by one answer a problem: leave them out")
        if self.k and not 1 <= min(self.k) <= max(self.k) <= self.samples:
            given = ", ".join(map(str, self.k))
            raise UserError(f"k is {given} with {self.samples} samples a problem: give k from 1 to the number of samples")
        if self.samples > 1 and self.temperature == 0:
            raise UserError(f"{self.samples} samples at temperature 0 are all the same: give a temperature such as 0.8")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed is {self.seed}: give a whole number from 0 to {2**32 - 1}")
        if isinstance(self.suite, CodeSuite):
            require_protections(self.unsafe)

    def evaluate(self, lm: LanguageModel, progress: Progress | None = None) -> dict[str, Estimate]:
        """Estimates over n problems: `exact_match` of mathematics; `pass_at_K` of code for every K.

        pass@k is the mean over problems of its unbiased estimate (Chen et al. 2021, equation 1). The interval is Wilson's for one
        sample a problem, which is sound near 0 and 1, else the bootstrap's over problems.

        Raises:
            UserError: before any generation, for a model with too short a context.
        """
        return self._code(lm, self.suite, progress) if isinstance(self.suite, CodeSuite) else self._maths(lm, self.suite, progress)

    def _code(self, lm: LanguageModel, suite: CodeSuite, progress: Progress | None) -> dict[str, Estimate]:
        items = suite.items[: self.limit]
        asked = [item for item in items for _ in range(self.samples)]
        prompts = [prompt for item in items for prompt in [_code_prompt(lm, item)] * self.samples]
        completions = self._complete(lm, prompts, [item.id for item in asked], portion(progress, 0.0, 0.5))
        programs = [item.program(completion) for item, completion in zip(asked, completions, strict=True)]
        tests = [item.tests for item in asked]
        passed = run_tests(programs, tests, suite.limits, opt_in=self.unsafe, progress=portion(progress, 0.5, 1.0))
        if self.samples == 1:
            return {"pass_at_1": Estimate.proportion(sum(passed), len(items))}
        counts = np.array(passed).reshape(len(items), self.samples).sum(1)
        ks = self.k or [k for k in USUAL_K if k <= self.samples]
        values = {k: [pass_at_k(self.samples, int(c), k) for c in counts] for k in ks}
        return {f"pass_at_{k}": Estimate.bootstrap(values[k], lambda x: float(x.mean()), self.seed).in_unit() for k in ks}

    def _maths(self, lm: LanguageModel, suite: MathsSuite, progress: Progress | None) -> dict[str, Estimate]:
        items = suite.items[: self.limit]
        prompts = [chat_ids(lm.tokenizer, _turn(item.prompt)) for item in items]
        completions = self._complete(lm, prompts, [item.id for item in items], progress)
        return {"exact_match": exact_match(completions, [item.answer for item in items])}

    def _complete(self, lm: LanguageModel, prompts: Sequence[list[int]], ids: Sequence[str], progress: Progress | None) -> list[str]:
        """A completion of each of the prompts, with seeds that are all different."""
        longest = max(range(len(prompts)), key=lambda i: len(prompts[i]))
        need = len(prompts[longest]) + self.max_new_tokens
        if lm.context and (need > lm.context or self.max_new_tokens > lm.context // 2):  # `generate` would cut the one or the other
            raise UserError(
                f"{ids[longest]} needs {need} tokens ({self.max_new_tokens} of them new) and {lm.name} has a context of {lm.context}, "
                f"half of it for new ones: lower max_new_tokens (--suite-max-new-tokens), or take a model with a longer context"
            )
        seeds = [self.seed * STRIDE + i for i in range(len(prompts))]
        return list(generate(lm, prompts, Sampling(self.max_new_tokens, self.temperature, top_k=0), seeds, progress=progress))


def _code_prompt(lm: LanguageModel, item: CodeItem) -> list[int]:
    if item.head and lm.tokenizer.chat_template is None:
        # Without the last newline, which the tokens of many vocabularies join with the margin of the next line.
        return begun(lm.tokenizer, item.head.rstrip())
    return chat_ids(lm.tokenizer, _turn(item.prompt))


def _turn(text: str) -> Turns:
    return (("user", text),)
