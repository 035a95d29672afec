"""Fluency: perplexity of held-out text.

    before = perplexity(model, tokenizer, texts)
    after = perplexity(model, tokenizer, texts)           # with a patch on
    perplexity_ratio(before, after)                       # paired: 1.02 is 2 % worse, with its interval

Per token it compares models that share a tokenizer; per byte, any. It does not tell whether what a model writes is good.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..chat import text_bos
from ..config import UserError
from .likelihood import token_log_probs
from .statistics import Estimate


@dataclass(frozen=True, eq=False)
class Perplexity:
    """Negative log-likelihood (nats), scored tokens and UTF-8 bytes of each text: three arrays of shape (texts,)."""

    nll: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray

    @cached_property
    def per_token(self) -> Estimate:
        """exp(total nll / total tokens), with a bootstrap interval over the texts."""
        return _exp_rate(self.nll, self.tokens)

    @cached_property
    def per_byte(self) -> Estimate:
        """exp(total nll / total bytes). Without a BOS token it is a little low: each text's first token is free."""
        return _exp_rate(self.nll, self.bytes)


def _exp_rate(nll: np.ndarray, counts: np.ndarray) -> Estimate:
    """exp(total nll / total count), with a bootstrap interval over the texts that count at all, of which there must be one."""
    rows = np.stack([nll, counts], axis=1)
    return Estimate.bootstrap(rows[counts > 0], lambda x: float(np.exp(x[:, 0].sum() / x[:, 1].sum())))


def perplexity(model: Any, tokenizer: Any, texts: Sequence[str], window: int = 256, batch_size: int = 16) -> Perplexity:
    """How surprised a causal LM is by each text on its own.

    A text longer than `window` tokens is cut into windows of that many, without overlap. Each window is scored after
    BOS, which is itself not scored; a later window's first token thus has BOS alone as its context. A tokenizer
    without BOS (Qwen's), or whose BOS opens a turn (SmolLM2's): a text's first token is not scored, and a later
    window follows the one token before it.
    The model reads at most `window` tokens at a time, or its context if that is less, right-padded whatever the tokenizer's own padding is.

    Args:
        model: a Hugging Face causal LM on any device and of any dtype; log-probabilities are in float32.
        tokenizer: its tokenizer.

    Raises:
        UserError: no text has a token to score, or `window` or `batch_size` is below 1.
    """
    if window < 1 or batch_size < 1:
        raise UserError(f"perplexity needs window and batch_size of at least 1, got {window} and {batch_size}")
    window = min(window, getattr(model.config.get_text_config(), "max_position_embeddings", None) or window)
    rows: list[tuple[int, list[int]]] = []  # (text, context token followed by the tokens to score)
    bos = text_bos(tokenizer)
    for i, text in enumerate(texts):
        ids = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        if bos is None:
            rows += [(i, ids[at : at + window + 1]) for at in range(0, len(ids) - 1, window)]
        else:
            rows += [(i, [bos, *ids[at : at + window]]) for at in range(0, len(ids), window)]
    if not rows:
        raise UserError(f"no token to score in {len(texts)} texts: perplexity needs at least one text that is not empty")
    nll, tokens = np.zeros(len(texts)), np.zeros(len(texts))
    training = model.training
    model.eval()
    try:
        scored = token_log_probs(model, [(ids, 1) for _, ids in rows], batch_size)
    finally:
        model.train(training)
    for (i, _), log_probs in zip(rows, scored, strict=True):
        nll[i] -= log_probs.sum()
        tokens[i] += len(log_probs)
    return Perplexity(nll, tokens, np.array([len(text.encode("utf-8", "replace")) for text in texts], dtype=float))


def perplexity_ratio(before: Perplexity, after: Perplexity) -> Estimate:
    """Perplexity per token after over before, with a bootstrap interval in which each resample takes the same texts
    for both: texts differ far more than models do, and the pairing takes that out.

    Raises UserError if the two are not of the same texts and tokens.
    """
    same = np.array_equal(before.bytes, after.bytes) and np.array_equal(before.tokens, after.tokens)
    if not same:
        raise UserError("a perplexity ratio needs the same texts, tokenizer and window before and after")
    return _exp_rate(after.nll - before.nll, before.tokens)
