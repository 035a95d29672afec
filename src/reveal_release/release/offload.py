"""Training where memory is short: what the forward pass keeps for the backward pass waits in main memory.

    with offloaded(model):
        loss = ...
        loss.backward()

The gradients are the same, bit for bit; what is kept goes over the bus and back, which takes time. Weights stay where they are. (Keeping
less and computing it anew in the backward pass, as activation checkpointing does, would be wrong here: by then the scale of a module and
the patches on the model need no longer be those of the forward pass.)
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


@contextlib.contextmanager
def offloaded(model: torch.nn.Module) -> Iterator[None]:
    """What is computed inside keeps nothing on the device but the model's weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(kept: Tensor) -> Tensor | tuple[torch.device, Tensor]:
        return kept if kept.untyped_storage().data_ptr() in weights else (kept.device, kept.to("cpu", copy=True))

    def unpack(kept: Tensor | tuple[torch.device, Tensor]) -> Tensor:
        return kept if isinstance(kept, Tensor) else kept[1].to(kept[0])

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield
