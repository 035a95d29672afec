"""A model on a suite: what is asked, how samples are counted, what is refused before long work."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from reveal_release.config import UserError
from reveal_release.models import LanguageModel
from reveal_release.suites import CodeSuite, MathsSuite, evaluate, load_suite, make_suite
from reveal_release.suites.base import Row
from reveal_release.suites.evaluate import SuiteEvaluation

DATA = Path(__file__).with_name("data")
SHORT = {
    "task_id": "Short/0",
    "prompt": 'def same(x):\n    """x"""\n',
    "entry_point": "same",
    "canonical_solution": "    return x\n",
    "test": "def check(f):\n    assert f(3) == 3 and f(4) == 4\n",
}


def short() -> CodeSuite:
    suite = make_suite("humaneval", [Row(SHORT, "rows", 1), Row({**SHORT, "task_id": "Short/1"}, "rows", 2)])
    assert isinstance(suite, CodeSuite)
    return suite


def test_a_random_model_writes_no_program_and_is_asked_the_same_twice(lm: LanguageModel) -> None:
    seen: list[tuple[int, int]] = []
    first = SuiteEvaluation(short(), max_new_tokens=8).evaluate(lm, lambda done, total: seen.append((done, total)))
    assert first["pass_at_1"].value == 0.0 and first["pass_at_1"].n == 2 and first["pass_at_1"].high > 0.5
    assert seen[-1] == (1000, 1000) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert first == SuiteEvaluation(short(), max_new_tokens=8).evaluate(lm)
    assert SuiteEvaluation(maths(), max_new_tokens=8, limit=1).evaluate(lm)["exact_match"].value == 0.0


def maths() -> MathsSuite:
    suite = load_suite("gsm8k", DATA / "gsm8k.jsonl")
    assert isinstance(suite, MathsSuite)
    return suite


def test_passes_are_counted_per_problem_and_pass_at_k_is_unbiased(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = [[True, False, False, True], [False] * 4]  # problem by sample
    suite = short()
    answers = [item.solution if ok else "    return 0\n" for item, row in zip(suite.items, passed, strict=True) for ok in row]
    asked: dict[str, Any] = {}

    def written(lm: LanguageModel, prompts: Sequence[list[int]], sampling: object, seeds: list[int], progress: object) -> list[str]:
        asked.update(prompts=prompts, seeds=seeds, sampling=sampling)
        return answers

    monkeypatch.setattr(evaluate, "generate", written)
    result = SuiteEvaluation(suite, k=(1, 2), samples=4, temperature=0.8, max_new_tokens=8).evaluate(lm)
    for k in (1, 2):  # the mean over all choices of k samples of whether one passes
        draws = [[any(draw) for draw in itertools.combinations(row, k)] for row in passed]
        expected = sum(sum(row) / len(row) for row in draws) / 2
        assert result[f"pass_at_{k}"].value == pytest.approx(expected)
        assert result[f"pass_at_{k}"].low <= expected <= result[f"pass_at_{k}"].high
    assert len(set(asked["seeds"])) == 8 and asked["sampling"].temperature == 0.8 and asked["sampling"].top_k == 0
    assert asked["prompts"][0] == asked["prompts"][3]
    answers = [suite.items[0].solution]
    assert SuiteEvaluation(suite, limit=1, max_new_tokens=8).evaluate(lm)["pass_at_1"].value == 1.0
    suite_of_maths = maths()
    answers = [item.answer for item in suite_of_maths.items[:3]] + ["#### 0"]
    assert SuiteEvaluation(suite_of_maths, max_new_tokens=8).evaluate(lm)["exact_match"].value == 0.75
    answers = [suite.items[0].solution] + ["    return 0\n"] * 9 + [suite.items[1].solution] * 10
    usual = SuiteEvaluation(suite, samples=10, temperature=0.8, max_new_tokens=8).evaluate(lm)
    assert {name: e.value for name, e in usual.items()} == pytest.approx({"pass_at_1": 0.55, "pass_at_10": 1.0})


def test_a_model_without_a_chat_template_continues_the_head(lm: LanguageModel) -> None:
    item = short().items[0]
    chat = lm.tokenizer.decode(evaluate._code_prompt(lm, item))
    assert "Complete this Python function" in chat
    lm.tokenizer.chat_template = None
    plain = lm.tokenizer(SHORT["prompt"].rstrip())["input_ids"]
    assert evaluate._code_prompt(lm, item) == plain
    begin, end = lm.tokenizer.bos_token, lm.tokenizer.eos_token
    lm.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(token, lm.tokenizer.convert_tokens_to_ids(token)) for token in (begin, end)]
    )
    ended = evaluate._code_prompt(lm, item)
    assert ended == [lm.tokenizer.bos_token_id, *(i for i in plain if i != lm.tokenizer.bos_token_id)], "a tokenizer's end is none here"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": (2,)}, "k is 2 with 1 samples"),
        ({"k": (0,)}, "k is 0 with 1 samples"),
        ({"samples": 5}, "are all the same: give a temperature"),
        ({"samples": 0}, "samples is 0"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"limit": 0}, "limit is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"seed": -1}, "seed is -1: give a whole number from 0 to 4294967295"),
        ({"seed": 2**32}, "seed is 4294967296"),
    ],
)
def test_settings_that_do_not_fit_are_refused_without_a_model(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SuiteEvaluation(short(), **options)


def test_several_answers_are_for_code() -> None:
    for options in ({"samples": 2, "temperature": 0.8}, {"k": (1,)}):
        with pytest.raises(UserError, match="gsm8k is scored by one answer a problem"):
            SuiteEvaluation(maths(), **options)  # type: ignore[arg-type]


def test_a_context_that_is_too_short_is_refused_before_any_generation(lm: LanguageModel) -> None:
    with pytest.raises(UserError, match=r"Short/\d needs \d+ tokens \(500 of them new\) and .* has a context of 512"):
        SuiteEvaluation(short(), max_new_tokens=500).evaluate(lm)


def test_more_than_half_the_context_is_not_silently_cut(lm: LanguageModel) -> None:
    lm.model.config.max_position_embeddings = 2048
    with pytest.raises(UserError, match=r"needs \d+ tokens \(1025 of them new\) and .* has a context of 2048, half of it for new ones"):
        SuiteEvaluation(short(), max_new_tokens=1025).evaluate(lm)
