"""Rows that modules are trained on: batches of them, and the log-probabilities of their answers."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models import autocast, padded

WINDOW = 8
"""Most batches whose rows are sorted by length together."""
MOST_TOKENS = 2048
"""Answer tokens read at once. Log-probabilities of so many are 1.2 GB over a vocabulary of 150,000, and KL divergence holds five such."""

Row = tuple[list[int], int]
"""Token ids and the length of the prompt among them."""


def batches(rows: Sequence[Row], size: int, generator: torch.Generator) -> Iterator[list[Row]]:
    """Batches without end, each epoch in a new order. Rows of a batch are of like length, so that little of it is padding."""
    queue: list[int] = []
    count = max(1, min(WINDOW, len(rows) // size))  # of an epoch at most, or a batch would hold one row many times
    while True:
        while len(queue) < count * size:
            queue += torch.randperm(len(rows), generator=generator).tolist()
        window, queue = sorted(queue[: count * size], key=lambda i: len(rows[i][0])), queue[count * size :]
        for start in torch.randperm(count, generator=generator).tolist():
            yield [rows[i] for i in window[start * size : (start + 1) * size]]


def parts(rows: Sequence[Row], most: int = MOST_TOKENS) -> list[list[Row]]:
    """The rows in their order, in parts of at most so many answer tokens each; a row that has more by itself is a part of its own."""
    found: list[list[Row]] = []
    free = 0
    for row, length in zip(rows, lengths(rows), strict=True):
        if not found or length > free:
            found.append([])
            free = most
        found[-1].append(row)
        free -= length
    return found


def lengths(rows: Sequence[Row]) -> list[int]:
    """Answer tokens of each row."""
    return [len(ids) - prompt for ids, prompt in rows]


def batch_of(rows: Sequence[Row], pad: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, attention mask, and whether a token belongs to an answer: each (rows, longest), padded on the right."""
    inputs = padded([ids for ids, _ in rows], pad)
    mask = padded([[1] * len(ids) for ids, _ in rows], 0)
    answer = padded([[0] * prompt + [1] * (len(ids) - prompt) for ids, prompt in rows], 0)
    return inputs.to(device), mask.to(device), answer.bool().to(device)


def answer_log_probs(model: torch.nn.Module, rows: Sequence[Row], pad: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities at the answer tokens of all rows, one after the other.

    Returns:
        (N, V) float32 log-probabilities and (N,) target ids, N being the number of answer tokens in the batch.
    """
    inputs, mask, answer = batch_of(rows, pad, next(model.parameters()).device)
    predicted = answer[:, 1:]  # the logits at a position are of the next token
    with autocast(inputs.device), _head_only_at(model, F.pad(predicted, (0, 1))):
        logits = model(input_ids=inputs, attention_mask=mask, use_cache=False).logits
    return torch.log_softmax(logits[0].float(), dim=-1), inputs[:, 1:][predicted]


@contextlib.contextmanager
def _head_only_at(model: Any, where: Tensor) -> Iterator[None]:
    """The output layer, a third of a small model's work, reads only what is `where` (rows, length), as one row (1, N, d)."""
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0][where][None],))
    try:
        yield
    finally:
        handle.remove()
