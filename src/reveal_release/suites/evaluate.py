"""Measures a model on a suite.

    code_suite(lm, load_suite("humaneval"))["pass_at_1"]                                     # greedy
    code_suite(lm, load_suite("mbpp"), k=(1, 10), samples=20, temperature=0.8)               # unbiased pass@k
    maths_suite(lm, load_suite("gsm8k"), limit=200)

Programs run in the sandbox with the suite's limits (see `reveal_release.sandbox`), and with the standard library only.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from ..config import UserError
from ..generation import Progress, Sampling, generate
from ..metrics.arithmetic import exact_match
from ..metrics.execution import pass_at_k, run_tests
from ..metrics.statistics import Estimate
from ..models import LanguageModel, Turns, chat_ids
from ..sandbox import require_protections
from .base import CodeItem, CodeSuite, MathsItem, MathsSuite

Item = TypeVar("Item")


def code_suite(
    lm: LanguageModel,
    suite: CodeSuite,
    k: Sequence[int] = (1,),
    samples: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 512,
    limit: int | None = None,
    seed: int = 0,
    unsafe: bool = False,
    progress: Progress | None = None,
) -> dict[str, Estimate]:
    """`pass_at_K` for every K of `k`: the mean over problems of the unbiased estimate (Chen et al. 2021, equation 1).

    Args:
        samples: completions per problem, at least max(k).
        temperature: 0 is greedy, for one sample. Above it, the whole vocabulary is sampled from.
        limit: take the first so many problems; None takes all.
        unsafe: run programs even where this machine cannot isolate them.
        progress: called with (done, total) in completions and programs together.

    Returns:
        Estimates over n problems. The interval is Wilson's for one sample a problem, which is sound near 0 and 1, else
        the bootstrap's over problems.

    Raises:
        UserError: before any generation, for settings that do not fit, a model with too short a context, or no sandbox.
    """
    if not k or min(k) < 1 or max(k) > samples:
        given = ", ".join(map(str, k)) or "empty"
        raise UserError(f"k is {given} with {samples} samples a problem: give k from 1 to the number of samples")
    if samples > 1 and temperature <= 0:
        raise UserError(f"{samples} samples at temperature {temperature:g} are all the same: give a temperature such as 0.8")
    require_protections(unsafe)
    items = _first(suite.items, limit)
    prompts = [prompt for item in items for prompt in [_code_prompt(lm, item)] * samples]
    total = 2 * len(prompts)
    completions = _complete(lm, prompts, [i.id for i in items], max_new_tokens, temperature, seed, _shifted(progress, 0, total))
    asked = [item for item in items for _ in range(samples)]
    programs = [item.program(completion) for item, completion in zip(asked, completions, strict=True)]
    tests = [item.tests for item in asked]
    passed = run_tests(programs, tests, suite.limits, opt_in=unsafe, progress=_shifted(progress, len(prompts), total))
    counts = np.array(passed).reshape(len(items), samples).sum(1)
    if samples == 1:
        return {"pass_at_1": Estimate.proportion(int(counts.sum()), len(items))}
    values = {one: [pass_at_k(samples, int(c), one) for c in counts] for one in k}
    return {f"pass_at_{one}": Estimate.bootstrap(values[one], lambda x: float(x.mean()), seed) for one in k}


def maths_suite(
    lm: LanguageModel,
    suite: MathsSuite,
    temperature: float = 0.0,
    max_new_tokens: int = 512,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Estimate:
    """Share of problems whose `#### N` is right, with Wilson's interval. Arguments and errors as in `code_suite`."""
    items: Sequence[MathsItem] = _first(suite.items, limit)
    prompts = [chat_ids(lm.tokenizer, _turn(item.prompt)) for item in items]
    completions = _complete(lm, prompts, [i.id for i in items], max_new_tokens, temperature, seed, progress)
    return exact_match(completions, [item.answer for item in items])


def _code_prompt(lm: LanguageModel, item: CodeItem) -> list[int]:
    if item.head and lm.tokenizer.chat_template is None:
        # Without the last newline, which the tokens of many vocabularies join with the margin of the next line.
        return lm.tokenizer(item.head.rstrip())["input_ids"]
    return chat_ids(lm.tokenizer, _turn(item.prompt))


def _turn(text: str) -> Turns:
    return (("user", text),)


def _first(items: Sequence[Item], limit: int | None) -> Sequence[Item]:
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}: give a whole number of at least 1")
    return items[:limit]


def _complete(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    ids: Sequence[str],
    max_new_tokens: int,
    temperature: float,
    seed: int,
    progress: Progress | None,
) -> list[str]:
    """A completion of each of the prompts, which are equally many for each of the `ids`. Seeds are all different."""
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}: give a whole number of at least 1")
    context = getattr(lm.model.config, "max_position_embeddings", None)
    longest = max(range(len(prompts)), key=lambda i: len(prompts[i]))
    need = len(prompts[longest]) + max_new_tokens
    if context and need > context:
        name = ids[longest * len(ids) // len(prompts)]
        raise UserError(
            f"{name} needs {need} tokens ({max_new_tokens} of them new) and {lm.name} has a context of {context}: "
            f"lower max_new_tokens, or take a model with a longer context"
        )
    seeds = [seed * 1_000_003 + i for i in range(len(prompts))]
    return generate(lm, prompts, Sampling(max_new_tokens, temperature, top_k=0), seeds, progress=progress)


def _shifted(progress: Progress | None, start: int, total: int) -> Progress | None:
    return (lambda done, _: progress(start + done, total)) if progress else None
