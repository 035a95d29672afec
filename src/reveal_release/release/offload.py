"""Training where memory is short: what the forward pass keeps for the backward pass waits in main memory.

    with offloaded(model):
        loss = ...
        loss.backward()

The gradients are the same, bit for bit; what is kept goes over the bus and back, which takes time. (Keeping less and computing it anew in
the backward pass, as activation checkpointing does, would be wrong here: by then the scale of a module and the patches on the model need
no longer be those of the forward pass.)

Not promised: that it is enough, or that main memory is. It has not been tried on a GPU.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


@contextlib.contextmanager
def offloaded(model: torch.nn.Module) -> Iterator[None]:
    """What is computed inside keeps little on the device: the model's weights, and what is not contiguous.

    The latter are views, mostly of what is moved or of small tensors, and some GPU kernels need their strides, which a copy loses
    (pytorch issue 134995).
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(kept: Tensor) -> Tensor | tuple[torch.device, Tensor]:
        stays = not kept.is_contiguous() or kept.untyped_storage().data_ptr() in weights
        return kept if stays else (kept.device, kept.to("cpu", copy=True))

    def unpack(kept: Tensor | tuple[torch.device, Tensor]) -> Tensor:
        return kept if isinstance(kept, Tensor) else kept[1].to(kept[0])

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield
