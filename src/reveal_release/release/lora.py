"""PEFT's LoRA as a patch: of a model under training, or of an adapter folder.

    patch = from_peft(peft_model)                    # or an adapter folder
    factors = trainable_factors(peft_model)          # its live A and B
"""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from peft import LoraConfig, PeftConfig
from peft.tuners.lora import LoraLayer
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from torch import Tensor, nn

from ..config import Unfit, UserError
from .base import base_name
from .patch import LowRank, Patch

ADAPTER = "default"
"""The name that PEFT gives an adapter where nobody names it."""
# Fields of LoraConfig that must be unset for ΔW to be (α/r)·B·A over named linear modules.
_UNSUPPORTED = (  # noqa: SIM905
    "use_dora lora_bias use_qalora use_bdlora alora_invocation_tokens arrow_config kasa_config "
    "monteclora_config layer_replication modules_to_save target_parameters trainable_token_indices"
).split()


class LiveFactors(NamedTuple):
    """The live parameters of one module's LoRA: A (r, in) and B (out, r), without the scale."""

    A: Tensor
    B: Tensor


def _lora_layers(model: nn.Module) -> dict[str, Any]:
    layers = {}
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        if ADAPTER in module.lora_embedding_A:
            raise UserError(
                f"the adapter changes the embedding {base_name(name)}; only linear modules can be patched"
            )
        if ADAPTER in module.lora_A:
            layers[base_name(name)] = module
    if not layers:
        raise UserError(
            "the model has no LoRA adapter of PEFT's default name; add one with get_peft_model first"
        )
    return layers


def trainable_factors(model: nn.Module) -> dict[str, LiveFactors]:
    """The parameters of a LoRA under training, by base module name, as the penalties of `orthogonality` take
    them.

    Raises:
        UserError: if the model has no such adapter.
    """
    return {
        name: LiveFactors(layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight)
        for name, layer in _lora_layers(model).items()
    }


def _refuse_unsupported(config: PeftConfig) -> None:
    if not isinstance(config, LoraConfig):
        raise UserError(
            f"the adapter is of type {config.peft_type}; only LoRA adapters can be read as a patch"
        )
    used = [field for field in _UNSUPPORTED if getattr(config, field, None)]
    if config.bias != "none":
        used.append("bias")
    # PiSSA, OLoRA, CorDA, LoRA-GA and LoftQ change the base weights too, so B·A alone is not the change.
    init = config.init_lora_weights
    if isinstance(init, str) and init.split("_niter")[0] in {"pissa", "olora", "corda", "lora_ga", "loftq"}:
        used.append(f"init_lora_weights={init}")
    if used:
        raise UserError(
            f"the adapter uses {', '.join(used)}, which is more than a plain LoRA and no low-rank patch; "
            "train it without"
        )


def from_peft(source: nn.Module | str | os.PathLike[str]) -> Patch:
    """Read a LoRA as a patch, its scale folded into B.

    Args:
        source: a PEFT model, whose scales are taken as they are now, or an adapter folder. Scale is α/r, or α/√r with `use_rslora`, α
            and r by module where the adapter's configuration has patterns.

    Raises:
        UserError: if there is no such adapter, it is no plain LoRA over linear modules, is stored as a
            pickle, or holds values that are not finite.
    """
    if isinstance(source, nn.Module):
        layers = _lora_layers(source)
        configs: Any = source.peft_config
        _refuse_unsupported(configs[ADAPTER])
        return _checked((n, one.lora_A[ADAPTER].weight, one.lora_B[ADAPTER].weight, one.scaling[ADAPTER]) for n, one in layers.items())
    folder = Path(source)
    weights = folder / SAFETENSORS_WEIGHTS_NAME
    if not (folder / CONFIG_NAME).is_file() or not weights.is_file():
        raise UserError(
            f"{folder} is not a PEFT adapter folder: it must hold {CONFIG_NAME} and {SAFETENSORS_WEIGHTS_NAME} "
            "(an adapter_model.bin is a pickle and is not read; save it again as safetensors)"
        )
    try:
        state, config = safetensors.torch.load_file(weights), PeftConfig.from_pretrained(str(folder))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the adapter in {folder} is damaged ({error}); fetch or save it again") from None
    _refuse_unsupported(config)
    return _checked(_scaled_factors(state, config))


def _scaled_factors(
    state: Mapping[str, Tensor], config: LoraConfig
) -> Iterator[tuple[str, Tensor, Tensor, float]]:
    for key in state:
        name, kind, rest = key.partition(".lora_A.")
        if not kind:
            if key.endswith((".base_layer.weight", ".base_layer.bias")):
                continue  # PEFT writes the output layer that a LoRA is on, as it was
            if ".lora_B." not in key:
                raise UserError(f"the adapter holds {key}, which is not a LoRA over a linear module")
            continue
        A, B = state[key], state.get(f"{name}.lora_B.{rest}")
        if B is None:
            raise UserError(f"the adapter's {key} has no matching lora_B")
        name = base_name(name)
        # rank_pattern needs no look-up: the rank is the weight's own.
        alphas = config.alpha_pattern or {}
        alpha = alphas.get(get_pattern_key(list(alphas), name), config.lora_alpha)
        rank = A.shape[0]
        yield name, A, B, alpha / (math.sqrt(rank) if config.use_rslora else rank)


def _checked(factors: Iterator[tuple[str, Tensor, Tensor, float]]) -> Patch:
    modules = {}
    for name, A, B, scale in factors:
        if A.ndim != 2 or B.ndim != 2:
            raise UserError(f"the adapter's module {name} is no linear map (a convolution or an embedding)")
        if A.shape[0] != B.shape[1]:
            raise UserError(f"the adapter's module {name} has ranks {A.shape[0]} and {B.shape[1]}: it is damaged, fetch or save it again")
        if not (torch.isfinite(A).all() and torch.isfinite(B).all()):
            raise Unfit(f"the adapter's module {name} holds NaN or infinity: its training diverged; lower the rate")
        modules[name] = LowRank(A, B.detach().float() * scale)
    return Patch(modules)
