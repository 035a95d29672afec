"""Batched sampling: the one place that calls `generate`.

Sampling is by the Gumbel trick with noise that is a hash of (seed of the row, position, token): argmax(log p + noise) is a sample
of p. So a completion depends on its prompt, its seed and the settings alone, not on its neighbours in the batch, and two prompts
with the same seed share their random numbers (common random numbers: their difference is less noisy than the two).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from .chat import Turns, chat_ids
from .decoding import decode
from .metrics.words import whole_sentences
from .models import LanguageModel

Progress = Callable[[int, int], None]

STRIDE = 1_000_003
"""Between the sampling seeds of one phase, or run, and those of the next."""


def portion(progress: Progress | None, start: float, end: float) -> Progress:
    """A progress callback for the part of the work between two fractions of the whole."""

    def update(done: int, total: int) -> None:
        if progress:
            progress(round(1000 * (start + (end - start) * done / max(total, 1))), 1000)

    return update


class Completion(str):
    """A text that a model wrote.

    ended: the model ended it itself; otherwise it was cut at the most tokens allowed.
    confidence: geometric mean of the probabilities, at temperature 1 among the top k, of the tokens that were sampled; 1 if greedy.
    """

    ended: bool = True
    confidence: float = 1.0


def uncut(text: str) -> str:
    """The text; of a completion that was cut, its `whole_sentences`."""
    return text if getattr(text, "ended", True) else whole_sentences(text)


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy; top_k 0 keeps the whole vocabulary."""

    max_new_tokens: int = 40
    temperature: float = 1.0
    top_k: int = 50

    @property
    def greedy(self) -> bool:
        """Whether a prompt has one answer, whatever the seed."""
        return self.temperature == 0


class GumbelSampling:
    """Chooses a token for each row: among the top k at the temperature, by hashed Gumbel noise; at temperature 0 the likeliest.

    Args:
        seeds: (batch,) int64.
    """

    def __init__(self, seeds: Tensor, sampling: Sampling) -> None:
        self.seeds, self.sampling = seeds, sampling
        self._log_p: list[Tensor] = []

    def __call__(self, scores: Tensor, rows: Tensor, position: int) -> Tensor:
        """Tokens (n,) for scores (n, vocabulary) of the batch's `rows` (n,); `position` counts from the first new token."""
        if not self.sampling.temperature:
            return scores.argmax(-1)
        values, tokens = scores.topk(min(self.sampling.top_k or scores.shape[-1], scores.shape[-1]), dim=-1)
        noise = gumbel(self.seeds[rows, None], position, tokens)
        best = (values.double() / self.sampling.temperature + noise).argmax(-1, keepdim=True)
        self._log_p.append(torch.zeros_like(self.seeds, dtype=values.dtype))
        self._log_p[-1][rows] = values.log_softmax(-1).gather(-1, best)[:, 0]
        return tokens.gather(-1, best)[:, 0]

    def confidence(self, own: Tensor) -> list[float]:
        """Of each row, the geometric mean over its `own` (batch, steps) tokens of their probability at temperature 1 among the top k."""
        if not self.sampling.temperature:
            return [1.0] * len(own)
        return ((torch.stack(self._log_p, 1) * own).sum(1) / own.sum(1)).exp().tolist()


def gumbel(seeds: Tensor, position: int, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise as a hash of its arguments (int64 tensors that broadcast); float64."""
    x = _mix(_mix(_mix(seeds) ^ position) ^ tokens)
    uniform = ((x >> 11) & ((1 << 53) - 1)).double().add_(0.5) / float(1 << 53)
    return -torch.log(-torch.log(uniform))


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele et al. 2014) in wrapping int64 arithmetic with logical shifts."""
    x = x + -7046029254386353131  # 0x9E3779B97F4A7C15
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * -7723592293110705685  # 0x94D049BB133111EB
    return x ^ ((x >> 31) & ((1 << 33) - 1))


@torch.inference_mode()
def generate(
    lm: LanguageModel,
    prompts: Sequence[Turns | list[int]] | Sequence[Tensor],
    sampling: Sampling,
    seeds: Sequence[int],
    batch_size: int | None = None,
    progress: Progress | None = None,
    starts: Sequence[list[int]] = (),
) -> list[Completion]:
    """One completion a prompt, without special tokens.

    A prompt that leaves no room for an answer of full length in the model's context loses its beginning, and an answer takes half of
    the context at most: beyond it a model with learnt positions fails, and others write what they were never trained to.

    Args:
        prompts: conversations whose next turn is the model's, or token ids to continue; or all of them input embeddings (length, d),
            as the model's own `get_input_embeddings()` gives them.
        seeds: one a prompt; equal (prompt, seed, sampling) gives the equal completion, up to float rounding between batch shapes.
        batch_size: rows at once; by default the model's. Where the memory does not hold them, half as many, and so on.
        progress: called with (done, total) after each batch.
        starts: token ids that each answer is made to begin with; its completion holds them. By default none. Not with embeddings.
    """
    given = [p if isinstance(p, Tensor) else torch.tensor(_ids(lm, p), dtype=torch.long) for p in prompts]
    if starts:
        given = [torch.cat([row, torch.tensor(start, dtype=torch.long)]) for row, start in zip(given, starts, strict=True)]
    longest = sampling.max_new_tokens
    if lm.context:
        longest = min(longest, max(1, lm.context // 2))
        given = [row[-(lm.context - longest) :] for row in given]
    order = sorted(range(len(given)), key=lambda i: len(given[i]))
    texts = [Completion()] * len(given)
    ends = torch.tensor(lm.ends, dtype=torch.long, device=lm.device)
    pad, last = lm.tokenizer.pad_token_id, lm.ends or None
    done, size = 0, batch_size or lm.batch_size

    def write(rows: list[int]) -> tuple[Tensor, GumbelSampling]:
        inputs = _left_padded([given[i] for i in rows], pad)
        mask = _left_padded([torch.ones(len(given[i]), dtype=torch.long) for i in rows], 0)
        name = "inputs_embeds" if inputs.ndim == 3 else "input_ids"
        choose = GumbelSampling(torch.tensor([seeds[i] for i in rows], device=lm.device), sampling)
        with _plainly(lm.model):
            new: Tensor = lm.model.generate(  # type: ignore[operator]  # torch types module attributes as Tensor
                **{name: inputs.to(lm.device)},
                attention_mask=mask.to(lm.device),
                max_new_tokens=longest,
                use_cache=True,  # a configuration saved in training may say otherwise
                pad_token_id=pad,
                eos_token_id=last,
                custom_generate=decode,
                choose=choose,
            )
        return new, choose

    while done < len(order):
        rows = order[done : done + size]
        try:
            new, choose = write(rows)
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
            size = len(rows) // 2  # and so for what is left
            if batch_size is None:
                lm.most_rows = size  # and for what follows
            continue
        over = torch.isin(new, ends).long()
        own = over.cumsum(1) - over == 0  # up to the first end, and with it; what follows is padding
        written = own & (over == 0)  # an end need not be one of the tokenizer's special tokens, which decoding leaves out
        for i, row, kept, ended, sure in zip(rows, new, written, over.any(1).tolist(), choose.confidence(own), strict=True):
            begun = starts[i] if starts else []
            texts[i] = Completion(str(lm.tokenizer.decode([*begun, *row[kept].tolist()], skip_special_tokens=True)).strip())
            texts[i].ended, texts[i].confidence = ended, sure
        done += len(rows)
        if progress:
            progress(done, len(order))
    return texts


@contextmanager
def _plainly(model: Any) -> Iterator[None]:
    """Without what the model's own generation settings ask for, such as no n-gram twice: what is sampled is what the model predicts."""
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _ids(lm: LanguageModel, prompt: Turns | list[int]) -> list[int]:
    return list(prompt) if prompt and isinstance(prompt[0], int) else chat_ids(lm.tokenizer, prompt)  # type: ignore[arg-type]


def _left_padded(rows: list[Tensor], value: float) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value, padding_side="left")
