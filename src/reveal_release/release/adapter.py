"""Patches in the world: read from and written to PEFT adapters, attached to a model, merged into it.

    patch = from_peft(peft_model)                    # or an adapter folder
    save(patch, "out/patch", base_model_name_or_path="org/model", fingerprint=fingerprint(base))
    patch = load("out/patch", model)                 # refuses a model that it was not made for
    with applied(model, patch) as runtime:
        runtime.scale = 0.5                          # W + 0.5 ΔW, no merge
    merge_(model, patch)                             # for good

What `save` writes is an ordinary LoRA adapter (alpha = rank, so that PEFT's scale is 1) which
`PeftModel.from_pretrained(base, folder)` loads; `reveal_release.json` beside it names the base.

A `RuntimePatch` adds scale·(x Aᵀ)Bᵀ to the output of each module in a forward hook. It never touches a
weight, so taking it off gives the model back bit for bit; any number of them can be on one model, each with
its own scale, beneath PEFT adapters if there are some. It works for nn.Linear and subclasses (bitsandbytes'
included) and GPT-2's Conv1D. It does not see code that uses a module's weight without calling the module
(fused kernels, stacked expert weights), and it goes to the module's device when it is attached: move the
model first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftConfig
from peft.tuners.lora import LoraLayer
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from reveal_release.config import Unfit, UserError
from reveal_release.models import LanguageModel
from reveal_release.release.patch import LowRank, Patch

MANIFEST_NAME = "reveal_release.json"
_OUR_FILES = {CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, MANIFEST_NAME, "README.md"}
_PREFIX = "base_model.model."
# Fields of LoraConfig that must be unset for ΔW to be (α/r)·B·A over named linear modules.
_UNSUPPORTED = (  # noqa: SIM905
    "use_dora lora_bias use_qalora use_bdlora alora_invocation_tokens arrow_config kasa_config "
    "monteclora_config layer_replication modules_to_save target_parameters trainable_token_indices"
).split()


# ------------------------------------------------------------------------------------------------------------
# The base model: names, shapes, identity


def _base_name(name: str) -> str:
    """A parameter's or module's name in the base model, whether or not PEFT is wrapped around it."""
    return name.removeprefix(_PREFIX).replace(".base_layer", "")


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """The base model's modules by name. Of a PEFT wrapper and its layer the layer wins: it comes later."""
    return {_base_name(name): module for name, module in model.named_modules()}


def _target(modules: Mapping[str, nn.Module], name: str, shape: tuple[int, int]) -> nn.Linear | Conv1D:
    """The module that a patch names, if it is a linear map of the patch's (out, in) shape."""
    module = modules.get(name)
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
    modules = _modules(model)
    kinds = {isinstance(_target(modules, name, m.shape), Conv1D) for name, m in patch.items()}
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
    parameters = {_base_name(n): p for n, p in model.named_parameters() if ".lora_" not in n}
    for name in sorted(parameters):
        p = parameters[name].detach()
        count = min(p.numel(), 1024)
        # Integer arithmetic: float positions lose the last entries of tensors with more than 2**24 of them.
        positions = torch.arange(count, device=p.device) * (p.numel() - 1) // max(count - 1, 1)
        sample = p.reshape(-1)[positions].to(torch.bfloat16).cpu().view(torch.int16)
        digest.update(f"{name}{tuple(p.shape)}".encode())
        digest.update(sample.numpy().astype("<i2").tobytes())
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------------------
# From PEFT


class LiveFactors(NamedTuple):
    """The live parameters of one module's LoRA: A (r, in) and B (out, r), without the scale."""

    A: Tensor
    B: Tensor


def _lora_layers(model: nn.Module, adapter_name: str) -> dict[str, Any]:
    layers = {}
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        if adapter_name in module.lora_embedding_A:
            raise UserError(
                f"the adapter changes the embedding {_base_name(name)}; only linear modules can be patched"
            )
        if adapter_name in module.lora_A:
            layers[_base_name(name)] = module
    if not layers:
        raise UserError(
            f"the model has no LoRA adapter named {adapter_name!r}; add one with get_peft_model first"
        )
    return layers


def trainable_factors(model: nn.Module, adapter_name: str = "default") -> dict[str, LiveFactors]:
    """The parameters of a LoRA under training, by base module name, as the penalties of `orthogonality` take
    them.

    Raises:
        UserError: if the model has no such adapter.
    """
    return {
        name: LiveFactors(layer.lora_A[adapter_name].weight, layer.lora_B[adapter_name].weight)
        for name, layer in _lora_layers(model, adapter_name).items()
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


def from_peft(
    source: nn.Module | Mapping[str, Tensor] | str | os.PathLike[str],
    config: LoraConfig | None = None,
    adapter_name: str = "default",
) -> Patch:
    """Read a LoRA as a patch, its scale folded into B.

    Args:
        source: a PEFT model, whose scales are taken as they are now; an adapter folder; or an adapter's state
            dict (`adapter_model.safetensors` read, keys `base_model.model.<module>.lora_A.weight`), which
            needs `config`. Scale is α/r, or α/√r with `use_rslora`, α and r by module where the config has
            patterns.
        config: the adapter's configuration, for a state dict only.
        adapter_name: which adapter of a PEFT model.

    Raises:
        UserError: if there is no such adapter, it is no plain LoRA over linear modules, is stored as a
            pickle, or holds values that are not finite.
    """
    if isinstance(source, nn.Module):
        layers = _lora_layers(source, adapter_name)
        configs: Any = source.peft_config
        _refuse_unsupported(configs[adapter_name])
        return _checked(
            (
                name,
                layer.lora_A[adapter_name].weight,
                layer.lora_B[adapter_name].weight,
                layer.scaling[adapter_name],
            )
            for name, layer in layers.items()
        )
    if isinstance(source, (str, os.PathLike)):
        folder = Path(source)
        weights = folder / SAFETENSORS_WEIGHTS_NAME
        if not (folder / CONFIG_NAME).is_file() or not weights.is_file():
            raise UserError(
                f"{folder} is not a PEFT adapter folder: it must hold {CONFIG_NAME} and "
                f"{SAFETENSORS_WEIGHTS_NAME} (an adapter_model.bin is a pickle and is not read; save it "
                "again as safetensors)"
            )
        try:
            source, config = safetensors.torch.load_file(weights), PeftConfig.from_pretrained(str(folder))
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"the adapter in {folder} is damaged ({error}); fetch or save it again") from None
    if config is None:
        raise ValueError("a state dict needs the adapter's config")
    _refuse_unsupported(config)
    return _checked(_scaled_factors(source, config))


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
        if B is None or A.ndim != 2 or B.ndim != 2:
            raise UserError(f"the adapter's {key} has no matching lora_B, or is no LoRA over a linear module")
        name = _base_name(name)
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


# ------------------------------------------------------------------------------------------------------------
# To and from a folder


def save(
    patch: Patch,
    folder: str | os.PathLike[str],
    *,
    base_model_name_or_path: str,
    fingerprint: str,
    fan_in_fan_out: bool = False,
    notes: Mapping[str, Any] | None = None,
    card: str | None = None,
) -> Path:
    """Write the patch as a PEFT LoRA adapter folder, all of it or nothing.

    Args:
        patch: padded with zeros to its largest rank, which becomes both r and alpha; float32.
        folder: replaced if it is an earlier adapter.
        base_model_name_or_path: the base, as PEFT records it.
        fingerprint: `fingerprint(base)`, of the untouched base.
        fan_in_fan_out: `is_fan_in_fan_out(base, patch)`; True for GPT-2's Conv1D.
        notes: more facts for `reveal_release.json`, as JSON values.
        card: the model card, `README.md`; without one, that of the earlier adapter stays.

    Returns:
        The folder.

    Raises:
        UserError: if the patch is empty, or the folder holds other files.
    """
    if not patch:
        raise UserError("there is no module in the patch, so there is nothing to save")
    folder = Path(folder)
    if folder.exists():
        foreign = {p.name for p in folder.iterdir()} - _OUR_FILES if folder.is_dir() else {folder.name}
        if foreign:
            raise UserError(
                f"{folder} is not an adapter's alone ({min(foreign)} is there); choose a new folder"
            )
    targets = sorted(patch)  # full names: for suffixes such as `q_proj` PEFT makes (empty) adapters where the patch has nothing
    rank = max(patch.rank, 1)  # PEFT knows no rank 0
    tensors = {}
    for name, m in patch.pad(rank).items():
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = m.A.cpu()
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = m.B.cpu()
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=targets,
        fan_in_fan_out=fan_in_fan_out,
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=base_model_name_or_path,
    )
    manifest = dict(notes or {})
    manifest |= {
        "format": 1,
        "base_model_name_or_path": base_model_name_or_path,
        "base_fingerprint": fingerprint,
        "rank": rank,
        "modules": len(patch),
        "norm": patch.norm(),
    }

    folder.parent.mkdir(parents=True, exist_ok=True)
    # Written in full beside its place and then renamed, so that an interrupted run leaves no half adapter.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        config.save_pretrained(str(new))
        _write_json(
            new / CONFIG_NAME, json.loads((new / CONFIG_NAME).read_text()) | {"target_modules": targets}
        )
        safetensors.torch.save_file(tensors, new / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
        shutil.copymode(new / CONFIG_NAME, new / SAFETENSORS_WEIGHTS_NAME)  # safetensors lets nobody else read
        _write_json(new / MANIFEST_NAME, manifest)
        if card is not None:
            (new / "README.md").write_text(card, encoding="utf-8")
        elif (folder / "README.md").exists():
            shutil.copy2(folder / "README.md", new)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:  # Ctrl-C too
            if old.exists():
                old.rename(folder)
            raise
    return folder


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def save_for(lm: LanguageModel, patch: Patch, folder: str | os.PathLike[str], card: str | None = None) -> Path:
    """`save` of a patch that was made for this model."""
    return save(
        patch,
        folder,
        base_model_name_or_path=lm.name,
        fingerprint=fingerprint(lm.model),
        fan_in_fan_out=is_fan_in_fan_out(lm.model, patch),
        card=card,
    )


def load(folder: str | os.PathLike[str], model: nn.Module | None = None) -> Patch:
    """Read a patch, and refuse a model that it was not made for.

    Args:
        folder: what `save` wrote, or any plain LoRA adapter; without `reveal_release.json` only the names and
            shapes of the modules can be checked.
        model: the base that the patch is meant for. None checks nothing.

    Raises:
        UserError: as `from_peft`, and if the model is another one.
    """
    patch = from_peft(folder)
    if model is None:
        return patch
    modules = _modules(model)
    for name, m in patch.items():
        _target(modules, name, m.shape)
    base, expected = recorded_base(folder)
    if expected and fingerprint(model) != expected:
        raise UserError(
            f"the patch in {folder} was made for another base ({base}): this model's weights differ from "
            "it (another model, a quantised one, or one with a patch already merged); give that base"
        )
    return patch


def recorded_base(folder: str | os.PathLike[str]) -> tuple[str | None, str | None]:
    """(name, fingerprint) of the base that a patch was saved for; (None, None) for an adapter that `save` did not write.

    Raises:
        UserError: if `reveal_release.json` is there and cannot be read.
    """
    path = Path(folder, MANIFEST_NAME)
    if not path.is_file():
        return None, None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return manifest["base_model_name_or_path"], manifest["base_fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error!r}); restore it, or delete it to skip the check") from None


# ------------------------------------------------------------------------------------------------------------
# On a model


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
        modules = _modules(model)
        targets = [(_target(modules, name, m.shape), m) for name, m in patch.items()]
        self._handles = [module.register_forward_hook(self._hook(module, m)) for module, m in targets]

    def _hook(
        self, module: nn.Linear | Conv1D, m: LowRank
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        weight = module.weight
        dtype = None if _quantised(weight) else weight.dtype
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


def _quantised(weight: Tensor) -> bool:
    """Also to eight-bit floats, whose scales stand elsewhere."""
    return not weight.is_floating_point() or weight.itemsize < 2


@contextlib.contextmanager
def applied(model: nn.Module, patch: Patch, scale: float = 1.0) -> Iterator[RuntimePatch]:
    """`RuntimePatch` for the length of a with block."""
    runtime = RuntimePatch(model, patch, scale)
    try:
        yield runtime
    finally:
        runtime.remove()


@torch.no_grad()
def merge_(model: nn.Module, patch: Patch, scale: float = 1.0) -> None:
    """Add scale·ΔW to the weights in place: for the merged model that is saved at the end.

    The sum is formed in float32 and rounded once to the weight's dtype. In bfloat16 that rounding can swallow
    a small ΔW; a `RuntimePatch` and a PEFT adapter do not lose it. A weight that is tied, such as that of an
    output layer that is the embedding too, is untied first (in the model's config as well), so that only the
    patched module changes, as it does at run time.

    Raises:
        UserError: if the patch does not fit the model, or a weight is quantised. Nothing is changed then.
    """
    modules = _modules(model)
    targets = [(name, _target(modules, name, m.shape), m) for name, m in patch.items()]
    for name, module, _ in targets:
        if _quantised(module.weight):
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
        delta = (m.B.to(weight.device) * scale) @ m.A.to(weight.device)
        weight.copy_(weight.float() + (delta.T if isinstance(module, Conv1D) else delta))
