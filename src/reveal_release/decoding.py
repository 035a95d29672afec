"""The decoding loop that `generate` of transformers runs in place of its own: rows leave the batch when they end.

transformers' loop carries every row until the last one has ended, its cache copies all keys and values at every token, and it reads a
prompt as often as it is asked; on a CPU these can be more than half of the time (`benchmarks/generation.py`). What is written is the same.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

SPARSE = 0.75
"""The batch is made smaller where at most this share of its rows still goes on: each time costs a copy of the cache."""

Choose = Callable[[Tensor, Tensor, int], Tensor]
"""(scores (rows, vocabulary), which rows of the batch they are of, position) -> a token for each."""


def decode(
    model: Any,  # a PreTrainedModel, but torch types module attributes as Tensor
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: Callable[[Tensor, None], Tensor],
    generation_config: GenerationConfig,
    choose: Choose,
    **state: Any,
) -> Tensor:
    """The new tokens, (rows, steps), with padding behind a row's end; for `generate(custom_generate=decode, choose=...)`."""
    cache: Any = state.get("past_key_values")
    selects = isinstance(cache, DynamicCache) and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)
    selects = selects and not logits_processor and not _looks_at_the_batch(model)  # a processor may know rows by their place
    if selects:
        cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    count, ids = len(input_ids), input_ids
    rows = torch.arange(count, device=ids.device)
    live = torch.ones_like(rows, dtype=torch.bool)
    columns: list[Tensor] = []
    scores, state = _read_once(model, ids, state) if selects and ids.shape[1] else _read(model, ids, state, is_first_iteration=True)
    while True:
        tokens = choose(logits_processor(ids, scores), rows, len(columns))  # type: ignore[arg-type]  # a LongTensor is a Tensor
        columns.append(ids.new_full((count,), generation_config.pad_token_id))
        columns[-1][rows[live]] = tokens[live]
        ids = torch.cat([ids, tokens[:, None]], 1)
        live = live & ~stopping_criteria(ids, None)
        if not live.any():
            return torch.stack(columns, 1)
        if selects and live.sum() <= SPARSE * len(live):
            kept = live.nonzero()[:, 0]
            ids, rows, live = ids[kept], rows[kept], live[kept]
            state = _selected(state, kept)
            cache.batch_select_indices(kept)
        scores, state = _read(model, ids, state, next_sequence_length=1 if state["use_cache"] else None)


def _read(model: Any, ids: Tensor, state: dict[str, Any], **how: Any) -> tuple[Tensor, dict[str, Any]]:
    """Scores of the next token, (rows, vocabulary) float32, and the state after."""
    output = model(**model.prepare_inputs_for_generation(ids, **how, **state), return_dict=True)
    return output.logits[:, -1].float(), model._update_model_kwargs_for_generation(output, state)


def _read_once(model: Any, ids: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    """As `_read` for the prompts, of which those that are the same are read once: many samples of one instruction are the rule here."""
    mask = state.get("attention_mask")
    distinct, copies = torch.unique(ids if mask is None else torch.cat([ids, mask], 1), dim=0, return_inverse=True)
    order = torch.arange(len(ids), device=ids.device)
    first = torch.full_like(order[: len(distinct)], len(ids)).scatter_reduce(0, copies, order, "amin")
    scores, state = _read(model, ids[first], _selected(state, first), is_first_iteration=True)
    state["past_key_values"].batch_select_indices(copies)
    return scores[copies], _selected(state, copies)


def _looks_at_the_batch(model: Any) -> bool:
    """Whether the longest row decides how the positions of all are scaled: then no row may leave before the others."""
    rope = str(getattr(model.config.get_text_config(), "rope_parameters", None))
    return "longrope" in rope or "dynamic" in rope


def _selected(state: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """With these rows of masks (rows, length) and positions ([axes,] rows, length); embeddings of the prompt are read by now."""
    parts = {name: value for name, value in state.items() if name != "inputs_embeds"}
    return {name: value.index_select(-2, rows) if isinstance(value, Tensor) and value.ndim > 1 else value for name, value in parts.items()}


class RoomyLayer(DynamicLayer):
    """Keys and values with room behind them, where a new token's are written; DynamicLayer copies all of them instead."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
            self.rooms = {"keys": self.keys, "values": self.values}
        return self._append("keys", key_states), self._append("values", value_states)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        if self.keys is not None and self.values is not None:
            self.rooms = {"keys": self.keys, "values": self.values}  # lets go of the larger ones

    def _append(self, name: str, new: Tensor) -> Tensor:
        """Of shape (rows, heads, length, d), as all here but a room, which is longer."""
        old, room = getattr(self, name), self.rooms[name]
        length = old.shape[2] + new.shape[2]
        if room.shape[2] < length:
            room = old.new_empty(*old.shape[:2], length + length // 2 + 16, old.shape[3])
            room[:, :, : old.shape[2]] = old
        room[:, :, old.shape[2] : length] = new
        self.rooms[name] = room
        setattr(self, name, room[:, :, :length])
        return room[:, :, :length]
