"""How likely a causal LM holds given texts to be, token by token."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..chat import Turns
from ..models import LanguageModel, answered_ids, padded


@torch.inference_mode()
def token_log_probs(
    model: Any,
    rows: Sequence[tuple[list[int], int]],
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[np.ndarray]:
    """The log-probability of each token of each row given those before it, (tokens,) float64 each, normalised in float32.

    Args:
        model: a Hugging Face causal LM, which reads all but the last token of a row.
        rows: token ids, and how many of them, at least one, are context and not scored. A row with no more than that gives an empty array.
    """
    found, device = [np.zeros(0)] * len(rows), next(model.parameters()).device
    # Neighbours of equal length waste no padding.
    order = sorted((i for i, (ids, start) in enumerate(rows) if len(ids) > start), key=lambda i: -len(rows[i][0]))
    for at in range(0, len(order), batch_size):
        part = order[at : at + batch_size]
        ids = padded([rows[i][0] for i in part], 0).to(device)  # any token will do as padding: it is masked
        mask = padded([[1] * (len(rows[i][0]) - 1) for i in part], 0).to(device)
        logits = model(input_ids=ids[:, :-1], attention_mask=mask, use_cache=False).logits
        for r, i in enumerate(part):
            start, stop = rows[i][1], len(rows[i][0])
            log_probs = torch.log_softmax(logits[r, start - 1 : stop - 1].float(), dim=-1)
            found[i] = log_probs.gather(1, ids[r, start:stop, None])[:, 0].double().cpu().numpy()
        if progress:
            progress(min(at + batch_size, len(order)), len(order))
    return found


def conversation_log_probs(
    lm: LanguageModel, pairs: Sequence[tuple[Turns, str]], progress: Callable[[int, int], None] | None = None
) -> list[np.ndarray]:
    """The log-probability of each token of the answer in each (conversation, answer), the one that ends it among them; (tokens,) each.

    What exceeds the model's context loses its beginning; of an answer that alone exceeds it the rest is scored.
    """
    rows = []
    for turns, answer in pairs:
        prompt, ids = answered_ids(lm, turns, answer)
        whole = prompt + ids + lm.end
        over = max(0, len(whole) - (lm.context or len(whole)))
        rows.append((whole[over:], max(1, len(prompt) - over)))
    return token_log_probs(lm.model, rows, max(1, lm.batch_size // 8), progress)
