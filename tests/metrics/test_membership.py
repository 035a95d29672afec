"""Scores against cases computed by hand, the AUC against all pairs, and a model that was trained on some texts."""

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reveal_release.config import UserError
from reveal_release.metrics.likelihood import token_log_probs
from reveal_release.metrics.membership import auc, loss, membership, min_k, zlib_ratio
from reveal_release.metrics.statistics import Estimate
from reveal_release.models import LanguageModel

LOG_PROBS = [-1.0, -4.0, -2.0, -3.0, -0.5, -6.0, -1.5, -0.1, -2.5, -0.4]


def test_scores_of_a_text_by_hand() -> None:
    assert loss(LOG_PROBS) == pytest.approx(-2.1)
    assert min_k(LOG_PROBS) == pytest.approx(-5.0), "the lowest two of ten"
    assert min_k(LOG_PROBS, 0.39) == pytest.approx((-6 - 4 - 3) / 3) and min_k(LOG_PROBS, 1.0) == pytest.approx(-2.1)
    assert min_k([-3.0, -1.0]) == -3.0, "of one at least"
    text = "the bridge " * 20
    assert zlib_ratio(LOG_PROBS, text) == pytest.approx(-2.1 / len(zlib.compress(text.encode())))
    assert zlib_ratio(LOG_PROBS, text) < zlib_ratio(LOG_PROBS, "A text that hardly can be compressed: xq8!Zt0."), "repetition is easy"


def test_auc_by_hand() -> None:
    assert auc([3, 2, 1, 0], [1, 1, 0, 0]) == Estimate.proportion(4, 4), "four texts that all agree are no certainty"
    assert auc([3, 2, 1, 0], [0, 0, 1, 1]) == Estimate.proportion(0, 4)
    assert auc([3, 2, 1, 0], [1, 0, 1, 0]).value == 0.75
    one = auc([1, 1, 1, 0], [1, 0, 0, 0])
    assert one.value == pytest.approx(2 / 3) and one.n == 4, "two ties count half each"


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40).filter(lambda rows: len({m for _, m in rows}) == 2))
def test_auc_is_the_share_of_pairs(rows: list[tuple[int, bool]]) -> None:
    members, others = ([s for s, m in rows if m is kind] for kind in (True, False))
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in members for b in others]
    found = auc([s for s, _ in rows], [m for _, m in rows])
    assert found.value == pytest.approx(np.mean(pairs)) and 0 <= found.low <= found.high <= 1


def test_what_a_model_was_trained_on_is_told_from_the_rest(lm: LanguageModel) -> None:
    words = lm.tokenizer("The people of the town read a letter about the river when the music began")["input_ids"]
    rng = np.random.default_rng(0)
    texts = [lm.tokenizer.decode(rng.choice(words, 12).tolist()) for _ in range(24)]
    rows = [([lm.tokenizer.bos_token_id, *lm.tokenizer(text)["input_ids"]], 1) for text in texts]

    def told() -> dict[str, Estimate]:
        scored = list(zip(texts, token_log_probs(lm.model, rows, 8), strict=True))
        return membership(scored[:12], [[one] for one in scored[12:]])

    before = told()
    assert set(before) == {"loss", "min_k", "zlib"} and all(one.n == 12 and 0.2 < one.value < 0.8 for one in before.values())
    parameters = [p.requires_grad_() for p in lm.model.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    batch = [torch.tensor(ids) for ids, _ in rows[:12]]
    for _ in range(40):
        torch.stack([lm.model(row[None], labels=row[None]).loss for row in batch]).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    after = told()
    assert all(one.value > 0.95 and one.low > 0.7 for one in after.values()), after


def test_wrong_answers_are_resampled_with_their_question() -> None:
    """Questions that are hard for all of their answers widen no interval of an AUC that is the same within each."""
    rng = np.random.default_rng(0)
    level = rng.normal(0, 0.1, 60)
    members = [("a", np.array([x])) for x in level]
    others = [[("b", np.array([x - 1.0])), ("c", np.array([x + 1.0]))] for x in level]
    found = membership(members, others)["loss"]
    assert found.n == 60 and found.value == pytest.approx(0.5)
    assert found.high - found.low == pytest.approx(Estimate.proportion(0, 60).high), "that of rows which all say the same"
    alone = auc([*level, *(level - 1.0), *(level + 1.0)], [1] * 60 + [0] * 120)
    assert alone.value == pytest.approx(0.5) and alone.high - alone.low > 0.1


def test_members_that_are_all_told_are_no_certainty() -> None:
    members, others = [("a", np.array([-1.0]))] * 8, [[("b", np.array([-2.0]))]] * 8
    assert membership(members, others)["loss"] == Estimate.proportion(8, 8)
    assert membership([one[0] for one in others], [[one] for one in members])["min_k"] == Estimate.proportion(0, 8)


def test_a_side_without_texts_is_refused() -> None:
    one = ("The train", np.array([-1.0]))
    for members, others in (([], []), ([one], [[]])):
        with pytest.raises(UserError, match="texts of both kinds"):
            membership(members, others)
    with pytest.raises(UserError, match="at least one token each"):
        membership([one], [[("", np.zeros(0))]])
