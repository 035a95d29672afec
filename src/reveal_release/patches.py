"""Patches as files: what one holds, merged into its base and out again, added up, made smaller.

    info("out/patch", model="base")                  # refuses a model that it was not made for
    merge("base", "out/patch", "out/merged")         # a Hugging Face folder with the tokenizer
    revert("out/merged", "out/patch", "out/base")
    combine(["out/a", "out/b"], "out/both", [1.0, 0.5])
    truncate("out/patch", 4, "out/small")

Each returns its figures as a dictionary. An output folder must be new, and is written as a whole or not at all.

As an adapter a patch comes off bit for bit. A merge rounds W + ΔW, so that a revert, which subtracts ΔW again, is exact only where
that rounding was fine enough. `merge` tries this out, says how many weights come back, and records the base in the merged folder;
`revert` compares its result with that record. A base in bfloat16 comes back whole from nearly every merge in float32, and hardly
ever from one in bfloat16. Not promised: that a merge which something else made can be reverted.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.pytorch_utils import Conv1D
from transformers.utils import cached_file

from .config import UserError
from .files import check_writable, contents
from .located import located
from .models import LanguageModel, dtype_name, load_model, resolve, save_model
from .release.adapter import check_fits, recorded_base, recorded_task, save
from .release.base import fingerprint
from .release.lora import from_peft
from .release.patch import Patch
from .release.runtime import merge_
from .report.card import derived_card, names_hub

MERGE_NAME = "reveal_release_merge.json"
LARGEST = 5
Figures = dict[str, Any]


@dataclass(frozen=True)
class Opened:
    """A patch's folder, read. `base` is the name that it records, `revision` the part of that which is one.

    `fingerprint` is None for an adapter that another tool wrote.
    """

    folder: Path
    patch: Patch
    base: str
    revision: str | None
    fingerprint: str | None
    fan_in_fan_out: bool

    @property
    def digest(self) -> str:
        """sha256 of the weights' file."""
        return contents(self.folder / SAFETENSORS_WEIGHTS_NAME)


def info(folder: str, model: str | None = None) -> Figures:
    """Task, modules, rank, norm, base and largest modules of a patch; with `model`, that it is the base.

    `rank` is the largest that a module really has, `stored` what the file pads all to. With a model, `relative` is ‖ΔW‖ / ‖W‖ over
    the patched weights.
    """
    opened = _open(folder)
    small = opened.patch.compress()
    norms = {name: m.norm() for name, m in small.items()}
    figures = {
        "modules": len(small), "rank": small.rank, "least_rank": min(m.rank for m in small.values()),
        "stored": opened.patch.rank, "norm": small.norm(), "bytes": (opened.folder / SAFETENSORS_WEIGHTS_NAME).stat().st_size,
        "task": recorded_task(opened.folder), "base": opened.base, "fingerprint": opened.fingerprint, "checked": model, "relative": None,
        "largest": [(name, small[name].rank, norms[name]) for name in sorted(norms, key=lambda name: -norms[name])[:LARGEST]],
    }  # fmt: skip
    if model is not None:
        base = load_model(model, _stored(model), "cpu").model
        check_fits(opened.patch, opened.folder, base)
        figures["relative"] = small.norm() / math.hypot(*(float(_weight(base, name).float().norm()) for name in small))
    return figures


def merge(model: str, folder: str, output: str, dtype: str = "auto") -> Figures:
    """The patched model as a folder of its own.

    Args:
        dtype: of the merged weights; `auto` is the base's own, bfloat16 or float32.

    Returns:
        `rounding`: ‖(M - W) - ΔW‖ / ‖ΔW‖ of the merged weights M, what of the change is lost. `changed` weights, of which a revert
        gives `restored` back bit for bit; where the merge is coarser than the base, those of the base `rounded` to its precision.
        `unchecked`: the base that a patch without a fingerprint names, else empty.
    """
    target = _new(output)
    opened = _open(folder)
    stored = _stored(model)
    wanted = getattr(torch, stored if dtype == "auto" else dtype)
    finer = "float32" if "float32" in (stored, dtype_name(wanted)) else "bfloat16"
    lm = load_model(model, finer, "cpu")
    patch = opened.patch
    check_fits(patch, opened.folder, lm.model)
    # What a revert ends in: the precision of the base, or of the merge if that is coarser.
    end = torch.bfloat16 if "bfloat16" in (stored, dtype_name(wanted)) else torch.float32
    record = {
        "base_model_name_or_path": model, "base_fingerprint": fingerprint(lm.model), "base_sha256": _sha256(lm.model, end),
        "dtype": dtype_name(end), "tied": bool(lm.model.config.tie_word_embeddings), "patch_sha256": opened.digest,
    }  # fmt: skip
    lost, changed, restored = 0.0, 0, 0
    for name, m in patch.items():
        one = Patch({name: m})
        before = _weight(lm.model, name).clone()
        merge_(lm.model, one)
        weight = _weight(lm.model, name)
        merged = weight.to(wanted, copy=True)
        weight.copy_(merged)
        delta = m.delta().T if isinstance(lm.model.get_submodule(name), Conv1D) else m.delta()
        lost += float(((merged.float() - before.float()) - delta).square().sum())
        merge_(lm.model, one.negate())
        restored += int((_bits(weight.to(end)) == _bits(before.to(end))).sum())
        changed += weight.numel()
        weight.copy_(merged)
    norm = patch.norm()
    figures: Figures = {"changed": changed, "restored": restored, "rounding": math.sqrt(lost) / norm if norm else 0.0}
    figures["rounded"] = "" if dtype_name(end) == stored else dtype_name(end)
    lm.model.to(wanted)
    record |= {**figures, "merged_fingerprint": fingerprint(lm.model)}
    _write(lm, target, record)
    unchecked = "" if opened.fingerprint else opened.base
    return figures | {"output": output, "dtype": dtype_name(lm.model.dtype), "patch": folder, "unchecked": unchecked, "part": lm.part}


def revert(model: str, folder: str, output: str) -> Figures:
    """The base, from a merged folder and the patch that was merged.

    Returns:
        `exact`: whether every weight is the base's bit for bit, None where the merge left no record; `same_fingerprint`; `changed`,
        `restored` and `rounded` as `merge` found them, the first two None without a record.

    Raises:
        UserError: also where the result cannot be told to be the base but for rounding. Nothing is written then.
    """
    target = _new(output)
    opened = _open(folder)
    record = _record(model)
    expected = record["base_fingerprint"] if record else opened.fingerprint
    if expected is None:
        raise UserError(f"neither {model} nor {folder} records the base, so a revert could not be checked: load the base itself")
    if record and record["patch_sha256"] != opened.digest:
        raise UserError(f"{model} was merged with another patch than {folder}: give the one that was merged")
    lm = load_model(model, _stored(model), "cpu")
    merged = fingerprint(lm.model)
    if merged == expected:
        raise UserError(f"{model} is the base of {folder}, with nothing merged into it: there is nothing to revert")
    if record and merged != record["merged_fingerprint"]:
        raise UserError(f"{model} was changed after the merge and cannot be reverted: load the base ({opened.base}) itself")
    merge_(lm.model, opened.patch.negate())
    if record:
        lm.model.to(getattr(torch, record["dtype"]))
        if record["tied"] and not lm.model.config.tie_word_embeddings:
            lm.model.get_output_embeddings().weight = lm.model.get_input_embeddings().weight
            lm.model.config.tie_word_embeddings = True
    same = fingerprint(lm.model) == expected
    if not same and not record:
        raise UserError(
            f"{model} without {folder} is not the base that the patch records: it is another model, or its merge was rounded too "
            f"coarsely; load the base ({opened.base}) itself"
        )
    _write(lm, target)
    return {
        "output": output, "base": opened.base, "same_fingerprint": same,
        "exact": _sha256(lm.model, lm.model.dtype) == record["base_sha256"] if record else None,
        "changed": record["changed"] if record else None, "restored": record["restored"] if record else None,
        "rounded": record["rounded"] if record else "",
    }  # fmt: skip


def combine(folders: Sequence[str], output: str, weights: Sequence[float] = ()) -> Figures:
    """The sum of patches of one base, each times its weight (1 by default): exact, then without what is numerically nothing.

    Returns:
        `rank` of the sum, of `concatenated` before compression; `error`: what compression changed, relative to the sum; of patches that
        cancel out, and so leave rounding, it is 0.
    """
    target = _new(output)
    weights = list(weights) or [1.0] * len(folders)
    if len(weights) != len(folders):
        raise UserError(f"{len(weights)} weights for {len(folders)} patches: give one for each, in their order")
    if not all(math.isfinite(weight) for weight in weights):
        raise UserError("a weight is not finite: give numbers such as 1 or -0.5")
    if not any(weights):
        raise UserError("every weight is 0, so nothing is left to save: give numbers such as 1 or -0.5")
    opened = [_ours(folder) for folder in folders]
    first = opened[0]
    for other in opened[1:]:
        if other.fingerprint != first.fingerprint:
            raise UserError(
                f"{first.folder} and {other.folder} were made for different bases ({first.base}, {other.base}): "
                "combine only patches of one"
            )
        if other.fan_in_fan_out != first.fan_in_fan_out:
            raise UserError(f"{first.folder} and {other.folder} change Conv1D and Linear modules, which no one adapter can")
    total = Patch()
    for one, weight in zip(opened, weights, strict=True):
        total = total + one.patch.scale(weight)
    small = total.compress()
    made = f"The sum of {len(opened)} patches, with weights {', '.join(f'{weight:g}' for weight in weights)}."
    _save(small, target, first, {"combined": {"sha256": [one.digest for one in opened], "weights": weights}}, made)
    norm, rounding = total.norm(), 1e-6 * sum(abs(weight) * one.patch.norm() for one, weight in zip(opened, weights, strict=True))
    error = (small + total.negate()).norm() / norm if norm > rounding else 0.0
    figures = {"rank": small.rank, "concatenated": total.rank, "norm": small.norm(), "error": error}
    return figures | {"output": output, "base": first.base}


def truncate(folder: str, rank: int, output: str) -> Figures:
    """The best approximation of every module at `rank` (Eckart-Young).

    Returns:
        `errors`: for every module ‖ΔW - ΔW_rank‖ / ‖ΔW‖; `error`: the same of all modules together; `rank` and what it `was`.
    """
    target = _new(output)
    opened = _ours(folder)
    full = opened.patch.compress()
    if full.rank <= 1:
        raise UserError(f"the patch has rank {full.rank}, and there is none below")
    if not 1 <= rank < full.rank:
        raise UserError(f"--rank {rank}: the patch has rank {full.rank}; give a rank of at least 1 and below that")
    small, errors = full.truncate(rank)
    error = full.lost(errors)
    made = f"A patch cut from rank {full.rank} to {rank}, which took {100 * error:.3g} % of its norm."
    _save(small, target, opened, {"truncated": {"from_rank": full.rank, "relative_error": error}}, made)
    return {"output": output, "rank": rank, "was": full.rank, "error": error, "errors": errors, "base": opened.base}


# ---- folders ----


def _open(folder: str) -> Opened:
    path = located(folder)
    patch = from_peft(path)
    if not patch:
        raise UserError(f"{folder} changes no module: give another patch")
    config = PeftConfig.from_pretrained(str(path))
    assert isinstance(config, LoraConfig)  # from_peft refuses others
    base, identity = recorded_base(path)
    named = (config.base_model_name_or_path or "unknown") + (f"@{config.revision}" if config.revision else "")
    return Opened(path, patch, base or named, config.revision, identity, config.fan_in_fan_out)


def _ours(folder: str) -> Opened:
    opened = _open(folder)
    if opened.fingerprint is None:
        raise UserError(f"{folder} has no reveal_release.json, so its base cannot be told: give a patch that reveal-release wrote")
    return opened


def _save(patch: Patch, target: Path, base: Opened, notes: Figures, made: str) -> None:
    assert base.fingerprint is not None
    named = {
        "base_model_name_or_path": base.base, "revision": base.revision, "fingerprint": base.fingerprint,
        "fan_in_fan_out": base.fan_in_fan_out,
    }  # fmt: skip
    save(patch, target, **named, notes=notes, card=derived_card(base.base, made, names_hub(base.folder)))  # type: ignore[arg-type]


def _new(output: str) -> Path:
    if not output.strip():
        raise UserError("--output is empty: name a folder")
    target = Path(output)
    if target.exists():
        raise UserError(f"{output} exists: choose another --output, or delete it")
    check_writable(target)
    return target


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder to write to, which takes its place when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        part = Path(scratch, "part")
        yield part
        part.rename(folder)


def _write(lm: LanguageModel, target: Path, record: Figures | None = None) -> None:
    with _whole(target) as part:
        save_model(lm, part)
        if record:
            (part / MERGE_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _record(model: str) -> Figures | None:
    """What `merge` wrote beside a merged model, here or on the hub."""
    try:
        path = Path(str(cached_file(resolve(model), MERGE_NAME)))
    except OSError:  # there is none; where there is no model either, `load_model` tells
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        needed = "base_fingerprint base_sha256 dtype tied patch_sha256 changed restored rounded merged_fingerprint".split()
        return {key: record[key] for key in needed}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error!r}): restore it, or delete it to go without") from None


# ---- weights ----


def _weight(model: nn.Module, name: str) -> Tensor:
    weight = model.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight


def _stored(model: str) -> str:
    """bfloat16 or float32: the precision that a model's weights are stored in; float32 for any other."""
    try:
        stored = AutoConfig.from_pretrained(resolve(model), trust_remote_code=False).dtype
    except (OSError, ValueError):  # load_model tells
        stored = None
    return "bfloat16" if stored == torch.bfloat16 else "float32"


def _bits(weights: torch.Tensor) -> torch.Tensor:
    """As integers: to == a zero is a negative zero."""
    return weights.view(torch.int16 if weights.itemsize == 2 else torch.int32)


def _sha256(model: nn.Module, dtype: torch.dtype) -> str:
    """Of every bit of every parameter, in the given precision."""
    digest = hashlib.sha256()
    for name, p in sorted(model.named_parameters()):
        digest.update(f"{name}{tuple(p.shape)}".encode())
        digest.update(p.detach().to(dtype).contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
