"""Batches of rows, and the log-probabilities of their answers against each row by itself."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.dataset import encode
from reveal_release.models import LanguageModel
from reveal_release.release.rows import MOST_TOKENS, Row, answer_log_probs, batch_of, batches, lengths, parts
from reveal_release.release.utility import mean_nll
from reveal_release.tasks import Record

TEXTS = (
    ("Name it.", "The river."), ("Write a comment.", "They read a letter about the old bridge."),
    ("Sing.", "No music here, she said."), ("Say what the weather is.", "New."),
)  # fmt: skip


@pytest.fixture
def rows(lm: LanguageModel) -> list[Row]:
    return encode(lm, [Record((("user", question),), answer, 0.0, question) for question, answer in TEXTS])


def test_log_probabilities_are_those_of_the_answer_tokens_alone(lm: LanguageModel, rows: list[Row]) -> None:
    """Against each row by itself, unpadded, in float32."""
    log_probs, targets = answer_log_probs(lm.model, rows, pad=1)
    assert targets.tolist() == [token for ids, prompt in rows for token in ids[prompt:]]
    with torch.no_grad():
        alone = [F.log_softmax(lm.model(torch.tensor([ids])).logits[0, prompt - 1 : -1], -1) for ids, prompt in rows]
    expected = torch.cat(alone)
    assert log_probs.dtype == torch.float32
    difference = (log_probs - expected).abs()  # of bfloat16 arithmetic
    assert difference.mean() < 0.03 * expected.std() and torch.allclose(log_probs.exp().sum(-1), torch.ones(len(targets)), atol=1e-4)
    nll = F.nll_loss(log_probs, targets).item()
    by_hand = -sum(a[i, t].item() for a, (ids, p) in zip(alone, rows, strict=True) for i, t in enumerate(ids[p:])) / len(targets)
    assert nll == pytest.approx(by_hand, abs=0.05) == mean_nll(lm, rows)


def test_the_output_layer_reads_only_what_predicts_an_answer_token(lm: LanguageModel, rows: list[Row]) -> None:
    read: list[torch.Tensor] = []
    last = lm.model.model.norm.register_forward_hook(lambda module, args, out: read.append(out))
    head = lm.model.get_output_embeddings().register_forward_hook(lambda module, args, out: read.append(args[0]))
    answer_log_probs(lm.model, rows, pad=1)
    hidden, taken = read
    expected = torch.cat([row[prompt - 1 : len(ids) - 1] for row, (ids, prompt) in zip(hidden, rows, strict=True)])
    assert torch.equal(taken[0], expected) and len(expected) < hidden.shape[0] * hidden.shape[1] / 2
    head.remove()
    answer_log_probs(lm.model, rows, pad=1)
    lm.model(torch.tensor([[0, 2, 5]]))
    last.remove()
    assert lm.model(torch.tensor([[0, 2, 5]])).logits.shape == (1, 3, 400), "and then all again"


def test_every_row_comes_once_an_epoch_and_a_batch_has_like_lengths() -> None:
    rows = [([0] * n, 0) for n in range(1, 65)]
    found = batches(rows, 8, torch.Generator().manual_seed(0))
    for _ in range(2):
        epoch = [next(found) for _ in range(8)]
        assert sorted(len(ids) for batch in epoch for ids, _ in batch) == list(range(1, 65))
        assert all(max(len(ids) for ids, _ in batch) - min(len(ids) for ids, _ in batch) == 7 for batch in epoch)


def test_padding_is_masked_and_answers_are_marked() -> None:
    inputs, mask, answer = batch_of([([5, 6, 7], 1), ([8], 0)], 9, torch.device("cpu"))
    assert inputs.tolist() == [[5, 6, 7], [8, 9, 9]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert answer.tolist() == [[False, True, True], [True, False, False]]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30))), st.integers(1, 40))
def test_parts_are_the_rows_in_order_and_as_large_as_may_be(sizes: list[tuple[int, int]], most: int) -> None:
    rows = [([i] * (prompt + answer), prompt) for i, (prompt, answer) in enumerate(sizes)]
    found = parts(rows, most)
    assert [row for part in found for row in part] == rows and all(found)
    assert all(sum(lengths(part)) <= most or len(part) == 1 for part in found)
    assert all(sum(lengths([*part, following[0]])) > most for part, following in zip(found, found[1:], strict=False))


@pytest.mark.usefixtures("exact")
def test_the_loss_of_more_tokens_than_are_read_at_once_is_that_of_each_row_alone(lm: LanguageModel) -> None:
    rows = [([5 + (7 * i + j) % 300 for j in range(120)], 20) for i in range(25)]
    assert len(parts(rows)) == 2 and sum(lengths(rows)) > MOST_TOKENS
    assert mean_nll(lm, rows) == pytest.approx(sum(mean_nll(lm, [row]) for row in rows) / 25, rel=1e-5)
