"""The base model that a patch is for: the names and shapes of its modules, and a fingerprint that tells it from others."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..config import UserError
from .patch import Patch

PREFIX = "base_model.model."
"""What PEFT puts before the name of every module."""


def base_name(name: str) -> str:
    """A parameter's or module's name in the base model, whether or not PEFT is wrapped around it."""
    return name.removeprefix(PREFIX).replace(".base_layer", "")


def modules(model: nn.Module) -> dict[str, nn.Module]:
    """The base model's modules by name. Of a PEFT wrapper and its layer the layer wins: it comes later."""
    return {base_name(name): module for name, module in model.named_modules()}


def target(named: Mapping[str, nn.Module], name: str, shape: tuple[int, int]) -> nn.Linear | Conv1D:
    """The module that a patch names, if it is a linear map of the patch's (out, in) shape."""
    module = named.get(name)
    if module is None:
        raise UserError(
            f"the patch changes module {name}, which this model does not have; use the base model that the "
            "patch was made for"
        )
    if isinstance(module, nn.Linear):
        found = (module.out_features, module.in_features)
    elif isinstance(module, Conv1D):
        found = (module.nf, module.nx)
    else:
        raise UserError(
            f"the patch changes module {name}, which is a {type(module).__name__} here; only nn.Linear and "
            "Conv1D can be patched"
        )
    if found != shape:
        raise UserError(
            f"the patch changes module {name} as a map of shape {shape}, but here it is {found} (out, in); "
            "use the base model that the patch was made for"
        )
    if module.weight.is_meta:
        raise UserError(
            f"the weights of module {name} are offloaded; load the model onto a device to patch it"
        )
    return module


def is_fan_in_fan_out(model: nn.Module, patch: Patch) -> bool:
    """Whether the patched modules store their weight as (in, out): True for Conv1D, False for nn.Linear.

    Raises:
        UserError: if the patch has modules of both kinds (PEFT has one setting for all), or does not fit the
            model.
    """
    named = modules(model)
    kinds = {isinstance(target(named, name, m.shape), Conv1D) for name, m in patch.items()}
    if len(kinds) > 1:
        raise UserError("the patch changes both Conv1D and Linear modules; save them as two adapters")
    return kinds == {True}


@torch.no_grad()
def fingerprint(model: nn.Module) -> str:
    """A sha256 that tells base models apart, in hexadecimal.

    Over the name, the shape and up to 1,024 evenly spaced entries of every parameter, rounded to bfloat16.
    Every tensor counts, so a merged patch or a fine-tuned layer shows; only a sample is read, so it takes
    moments for billions of parameters; and a checkpoint in float32 or bfloat16 has one fingerprint whichever
    of the two it is loaded in. LoRA parameters and PEFT's wrappers are passed over. Quantised weights
    give other fingerprints, and so does a finer checkpoint that is loaded in float16. It tells by mistake, not
    by malice: entries between the sampled ones are free to differ.
    """
    digest = hashlib.sha256()
    parameters = {base_name(n): p for n, p in model.named_parameters() if ".lora_" not in n}
    for name in sorted(parameters):
        p = parameters[name].detach()
        count = min(p.numel(), 1024)
        # Integer arithmetic: float positions lose the last entries of tensors with more than 2**24 of them.
        positions = torch.arange(count, device=p.device) * (p.numel() - 1) // max(count - 1, 1)
        sample = p.reshape(-1)[positions].to(torch.bfloat16).cpu().view(torch.int16)
        digest.update(f"{name}{tuple(p.shape)}".encode())
        digest.update(sample.numpy().astype("<i2").tobytes())
    return digest.hexdigest()


def quantised(weight: Tensor) -> bool:
    """Also to eight-bit floats, whose scales stand elsewhere."""
    return not weight.is_floating_point() or weight.itemsize < 2
