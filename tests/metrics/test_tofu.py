"""TOFU's metrics against hand-computed cases, brute force and TOFU's own arithmetic."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.chat import chat_ids
from reveal_release.config import UserError
from reveal_release.metrics.likelihood import conversation_log_probs
from reveal_release.metrics.tofu import (
    choice,
    correctness,
    forget_quality,
    model_utility,
    probabilities,
    rouge_l_recall,
    truth_ratio,
    uncertainty,
)
from reveal_release.models import LanguageModel


@pytest.mark.parametrize("family", ["lm", "gpt2"])
def test_probabilities_are_the_models(family: str, request: pytest.FixtureRequest) -> None:
    """Token by token, one row at a time, without padding: the end that the model writes counts, the question does not."""
    lm: LanguageModel = request.getfixturevalue(family)
    pairs = [
        ((("user", "Who is she?"),), "A writer of the north."),
        ((("user", "What is the name of the bridge?"),), "Old."),
        ((("user", "Why?"), ("assistant", "The river."), ("user", "Where is the report about the river in the old town?")), "There"),
    ]
    expected = []
    for turns, answer in pairs:
        ids = chat_ids(lm.tokenizer, turns)
        total, count = 0.0, 0
        for token in [*lm.tokenizer(answer, add_special_tokens=False)["input_ids"], lm.tokenizer.eos_token_id]:
            with torch.no_grad():
                logits = lm.model(torch.tensor([ids])).logits[0, -1]
            total += torch.log_softmax(logits.double(), -1)[token].item()
            count += 1
            ids = [*ids, token]
        expected.append(math.exp(total / count))
    done: list[tuple[int, int]] = []
    assert probabilities(conversation_log_probs(lm, pairs, lambda *step: done.append(step))) == pytest.approx(expected, rel=1e-4)
    assert done[-1] == (3, 3) and probabilities(conversation_log_probs(lm, [])).shape == (0,)


@pytest.mark.parametrize(
    "answer, reference, recall",
    [
        ("the cat sat", "the cat sat on the mat", 3 / 6),  # a prefix
        ("mat the on sat cat the", "the cat sat on the mat", 3 / 6),  # order counts: "the on the"
        ("The CAT, sat!", "the cat sat", 1.0),  # neither case nor punctuation does
        ("writing novels", "writes novel", 1.0),  # stems
        ("born in Lagos, Nigeria in 1965", "Born in Lagos", 1.0),  # recall: what is too much costs nothing
        ("", "the cat", 0.0), ("dog", "the cat", 0.0),
    ],
)  # fmt: skip
def test_rouge_l_recall_by_hand(answer: str, reference: str, recall: float) -> None:
    assert rouge_l_recall([answer], [reference]) == pytest.approx([recall])


def common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, by trying all of them."""
    for size in range(min(len(a), len(b)), 0, -1):
        if set(itertools.combinations(a, size)) & set(itertools.combinations(b, size)):
            return size
    return 0


@given(*[st.lists(st.sampled_from(["ab", "cd", "ef", "gh"]), min_size=1, max_size=7)] * 2)
def test_rouge_l_recall_by_brute_force(a: list[str], b: list[str]) -> None:
    assert rouge_l_recall([" ".join(a)], [" ".join(b)]) == pytest.approx([common(a, b) / len(b)])


def test_truth_ratio_by_hand() -> None:
    """exp(mean loss of the right − mean loss of the wrong), as in TOFU's aggregate_eval_stat.py, whose quotient is the inverse."""
    paraphrased, perturbed = [0.4, 0.1], [[0.1, 0.2, 0.4], [0.2, 0.2, 0.2]]
    found = truth_ratio(paraphrased, perturbed)
    assert found == pytest.approx([0.2 / 0.4, 2.0]), "the geometric mean of 0.1, 0.2 and 0.4 is 0.2"
    losses = -np.log(paraphrased), -np.log(perturbed).mean(-1)
    assert found == pytest.approx(1 / np.exp(losses[1] - losses[0]))
    assert (found <= np.mean(perturbed, axis=1) / paraphrased + 1e-12).all(), "the paper's own form is never lower"
    assert np.isfinite(truth_ratio([0.0], [[0.0, 0.0]])).all(), "a probability that rounds to 0"


def test_the_two_aggregates_of_the_truth_ratio() -> None:
    ratio = np.array([0.5, 2.0, 1.0, 0.25])
    known = uncertainty(np.array([1e-4] * 39 + [1.0]))
    assert 0 <= known.low < known.value < known.high, "a share"
    assert uncertainty(ratio).value == pytest.approx((0.5 + 0.5 + 1.0 + 0.25) / 4) and uncertainty(ratio).n == 4
    assert correctness(ratio) == pytest.approx([0.5, 0.0, 0.0, 0.75])


def test_choice_by_hand() -> None:
    assert choice([0.2, 0.5], [[0.1, 0.1], [0.0, 0.0]]) == pytest.approx([0.5, 1.0])


def test_model_utility_by_hand() -> None:
    """Nine means; their harmonic mean; rows that are all alike leave nothing to vary."""
    parts = [np.tile(row, (n, 1)) for n, row in ((5, (0.9, 0.8, 0.7)), (3, (0.5, 0.5, 0.5)), (4, (0.2, 0.4, 1.0)))]
    expected = 9 / (1 / 0.9 + 1 / 0.8 + 1 / 0.7 + 3 / 0.5 + 1 / 0.2 + 1 / 0.4 + 1 / 1.0)
    found = model_utility(parts)
    assert found.value == pytest.approx(expected) == pytest.approx(found.low) == pytest.approx(found.high)
    assert found.n == 12
    assert model_utility([*parts[:2], np.tile((0.0, 0.4, 1.0), (4, 1))]).value == 0.0


def test_model_utility_varies_within_files() -> None:
    rng = np.random.default_rng(3)
    parts = [rng.uniform(0.2, 0.9, (n, 3)) for n in (40, 30, 20)]
    found = model_utility(parts)
    assert found.low < found.value < found.high and found == model_utility(parts), "seeded"
    assert found.high - found.low > 2 * (wide := model_utility([np.tile(p, (9, 1)) for p in parts])).high - 2 * wide.low


def ks(a: list[float], b: list[float]) -> float:
    """Exact p-value: of all ways to deal the pooled values to the two samples, how many are at least as far apart."""

    def distance(first: tuple[float, ...], second: list[float]) -> float:
        return max(abs(np.mean(np.array(first) <= x) - np.mean(np.array(second) <= x)) for x in a + b)

    pooled, far, seen = a + b, 0, 0
    for chosen in itertools.combinations(range(len(pooled)), len(a)):
        rest = [pooled[i] for i in range(len(pooled)) if i not in chosen]
        far += distance(tuple(pooled[i] for i in chosen), rest) >= distance(tuple(a), b) - 1e-12
        seen += 1
    return far / seen


def test_forget_quality_is_the_permutation_p_value() -> None:
    a, b = [0.1, 0.4, 0.35, 0.8, 0.2], [0.9, 0.7, 1.2, 0.6, 0.3]
    found = forget_quality(a, b)
    assert found.value == pytest.approx(ks(a, b)) and found.n == 5 and math.isnan(found.low)
    assert forget_quality(a, a).value == 1.0
    assert forget_quality(np.linspace(0, 1, 200), np.linspace(2, 3, 200)).value < 1e-50


def test_forget_quality_needs_the_same_rows() -> None:
    with pytest.raises(UserError, match="same rows, got 1 and 2"):
        forget_quality([0.1], [0.1, 0.2])
