"""Soft prompts: points of a low-dimensional space as a few token embeddings inside a request (INSTINCT, arXiv 2310.02905, section 3).

    prompts = soft_prompts(lm, [f"{MARK}Output: ...\\nWhat was the instruction?"] * 40, seed=0)
    generate(lm, prompts, sampling, seeds)       # one answer a point

A soft prompt tips what the model writes, and its point is what makes one request give many different answers: point u of a scrambled
Sobol sequence in (0, 1)^d becomes `TOKENS` embeddings (u - 1/2) R, R a random Gaussian matrix, where the `MARK` is in the request. Each is
scaled to the root mean square of the model's embeddings, as these leave the embedding layer: some architectures (Gemma) scale
them there, and others later, which then scale the soft ones as well.

Not promised: that a random direction in embedding space means something to the model. For a model that takes token ids beside
embeddings (Gemma 3n's per-layer inputs) it does not work.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.quasirandom import SobolEngine

from ..chat import cut_ids
from ..models import LanguageModel

DIMENSIONS = 10
TOKENS = 3


@torch.inference_mode()
def soft_prompts(lm: LanguageModel, requests: Sequence[str], seed: int) -> list[Tensor]:
    """Input embeddings (length, d) of each request as a user turn, with a soft prompt for its `MARK`.

    Requests are cut there before they are tokenised. None at all where the chat template does not keep the mark.
    """
    cuts = [cut for text in requests if (cut := cut_ids(lm.tokenizer, (("user", text),)))]
    if not cuts:
        return []
    embed = cast(nn.Embedding, lm.model.get_input_embeddings())
    soft = soft_tokens(embed, len(cuts), seed)

    def embedded(ids: list[int]) -> Tensor:
        return embed(torch.tensor(ids, dtype=torch.long, device=lm.device))

    return [torch.cat([embedded(before), own, embedded(after)]) for (before, after), own in zip(cuts, soft, strict=True)]


def soft_tokens(embed: nn.Embedding, count: int, seed: int) -> Tensor:
    """(count, TOKENS, d) in the dtype and on the device of the embedding layer: a function of the seed, and of d and the layer's size."""
    size = embed(torch.zeros(1, dtype=torch.long, device=embed.weight.device)).shape[-1]
    points = SobolEngine(DIMENSIONS, scramble=True, seed=seed).draw(count) - 0.5
    projection = torch.randn(DIMENSIONS, TOKENS * size, generator=torch.Generator().manual_seed(seed))
    tokens = (points @ projection).reshape(count, TOKENS, size)
    tokens = tokens / tokens.square().mean(-1, keepdim=True).sqrt()
    return (tokens * embedding_rms(embed)).to(embed.weight)


def embedding_rms(embed: nn.Embedding) -> float:
    """Root mean square of all that the embedding layer gives, over its whole vocabulary."""
    ids = torch.arange(embed.weight.shape[0], device=embed.weight.device)
    parts = [embed(part).float().square().mean(-1) for part in ids.split(8192)]
    return float(torch.cat(parts).mean().sqrt())
