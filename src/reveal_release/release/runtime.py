"""A patch on a model: at run time, or merged into the weights for good.

    with applied(model, patch) as runtime:
        runtime.scale = 0.5                          # W + 0.5 ΔW, no merge
    merge_(model, patch)                             # for good

A `RuntimePatch` adds scale·(x Aᵀ)Bᵀ to the output of each module in a forward hook. It never touches a
weight, so taking it off gives the model back bit for bit; any number of them can be on one model, each with
its own scale, beneath PEFT adapters if there are some. It works for nn.Linear and subclasses (bitsandbytes'
included) and GPT-2's Conv1D. It does not see code that uses a module's weight without calling the module
(fused kernels, stacked expert weights), and it goes to the module's device when it is attached: move the
model first.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..config import UserError
from .base import modules, quantised, target
from .patch import LowRank, Patch


class RuntimePatch:
    """A patch on a model at run time: every patched module's output gains scale·(x Aᵀ)Bᵀ.

    Computed in the dtype of the module's weight, or of the input where the weight is quantised; under
    autocast, in autocast's.

    Args:
        model: a model, or a PEFT model around one.
        patch: what to add.
        scale: λ; a plain attribute, to be set at any time. At 0 the outputs are the base's, bit for bit.

    Raises:
        UserError: if the patch does not fit the model. Nothing is attached then.
    """

    def __init__(self, model: nn.Module, patch: Patch, scale: float = 1.0) -> None:
        self.scale = float(scale)
        named = modules(model)
        targets = [(target(named, name, m.shape), m) for name, m in patch.items()]
        self._handles = [module.register_forward_hook(self._hook(module, m)) for module, m in targets]

    def _hook(
        self, module: nn.Linear | Conv1D, m: LowRank
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        weight = module.weight
        dtype = None if quantised(weight) else weight.dtype
        A, B = m.A.to(weight.device, dtype), m.B.to(weight.device, dtype)

        def add(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            if self.scale == 0.0:
                return out
            x = args[0].to(A.device)  # accelerate's dispatch moves it only inside the module's forward
            a, b = (A, B) if dtype is not None else (A.to(x.dtype), B.to(x.dtype))
            return out + (self.scale * F.linear(F.linear(x, a), b)).to(out)

        return add

    def remove(self) -> None:
        """Take the patch off. The model is what it was, bit for bit. Doing it twice does no harm."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


@contextlib.contextmanager
def applied(model: nn.Module, patch: Patch, scale: float = 1.0) -> Iterator[RuntimePatch]:
    """`RuntimePatch` for the length of a with block."""
    runtime = RuntimePatch(model, patch, scale)
    try:
        yield runtime
    finally:
        runtime.remove()


@torch.no_grad()
def merge_(model: nn.Module, patch: Patch) -> None:
    """Add ΔW to the weights in place: for the merged model that is saved at the end.

    The sum is formed in float32 and rounded once to the weight's dtype. In bfloat16 that rounding can swallow
    a small ΔW; a `RuntimePatch` and a PEFT adapter do not lose it. A weight that is tied, such as that of an
    output layer that is the embedding too, is untied first (in the model's config as well), so that only the
    patched module changes, as it does at run time.

    Raises:
        UserError: if the patch does not fit the model, or a weight is quantised. Nothing is changed then.
    """
    named = modules(model)
    targets = [(name, target(named, name, m.shape), m) for name, m in patch.items()]
    for name, module, _ in targets:
        if quantised(module.weight):
            raise UserError(
                f"module {name} is quantised and cannot take a merge; load the base in bfloat16 instead"
            )
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    for _, module, m in targets:
        weight = module.weight
        if uses[id(weight)] > 1:
            module.weight = weight = nn.Parameter(weight.clone(), weight.requires_grad)
            config: Any = model.config
            config.tie_word_embeddings = False
        delta = m.B.to(weight.device) @ m.A.to(weight.device)
        weight.copy_(weight.float() + (delta.T if isinstance(module, Conv1D) else delta))
