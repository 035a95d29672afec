"""Patches as PEFT adapter folders.

    save(patch, "out/patch", base_model_name_or_path="org/model", fingerprint=fingerprint(base))
    patch = load("out/patch", model)                 # refuses a model that it was not made for

What `save` writes is an ordinary LoRA adapter (alpha = rank, so that PEFT's scale is 1) which
`PeftModel.from_pretrained(base, folder)` loads; `reveal_release.json` beside it names the base.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from peft import LoraConfig
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from torch import nn

from ..config import UserError
from ..located import FILES, pinned
from ..models import LanguageModel
from . import base
from .base import PREFIX, is_fan_in_fan_out
from .lora import from_peft
from .patch import Patch

MANIFEST_NAME = "reveal_release.json"


def save(
    patch: Patch,
    folder: str | os.PathLike[str],
    *,
    base_model_name_or_path: str,
    revision: str | None = None,
    fingerprint: str,
    fan_in_fan_out: bool = False,
    notes: Mapping[str, Any] | None = None,
    card: str | None = None,
) -> Path:
    """Write the patch as a PEFT LoRA adapter folder, all of it or nothing.

    Args:
        patch: padded with zeros to its largest rank, which becomes both r and alpha; float32.
        folder: replaced if it is an earlier adapter.
        base_model_name_or_path: the base, as it was named.
        revision: the part of that name after its `@`, where it is a revision: PEFT records it apart.
        fingerprint: `fingerprint(base)`, of the untouched base.
        fan_in_fan_out: `is_fan_in_fan_out(base, patch)`; True for GPT-2's Conv1D.
        notes: more facts for `reveal_release.json`, as JSON values.
        card: the model card, `README.md`.

    Returns:
        The folder.

    Raises:
        UserError: if the patch is empty, or the folder holds other files.
    """
    if not patch:
        raise UserError("there is no module in the patch, so there is nothing to save")
    folder = Path(folder)
    if folder.exists():
        foreign = {p.name for p in folder.iterdir()} - {*FILES} if folder.is_dir() else {folder.name}
        if foreign:
            raise UserError(
                f"{folder} is not an adapter's alone ({min(foreign)} is there); choose a new folder"
            )
    targets = sorted(patch)  # full names: for suffixes such as `q_proj` PEFT makes (empty) adapters where the patch has nothing
    rank = max(patch.rank, 1)  # PEFT knows no rank 0
    tensors = {}
    for name, m in patch.pad(rank).items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = m.A.cpu()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = m.B.cpu()
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=targets,
        fan_in_fan_out=fan_in_fan_out,
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=base_model_name_or_path.removesuffix(f"@{revision}") if revision else base_model_name_or_path,
        revision=revision,
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


def save_for(
    lm: LanguageModel, patch: Patch, folder: str | os.PathLike[str], card: str | None = None, notes: Mapping[str, Any] | None = None
) -> Path:
    """`save` of a patch that was made for this model."""
    return save(
        patch,
        folder,
        base_model_name_or_path=lm.name,
        revision=pinned(lm.name)[1],
        fingerprint=base.fingerprint(lm.model),
        fan_in_fan_out=is_fan_in_fan_out(lm.model, patch),
        notes=notes,
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
    if model is not None:
        check_fits(patch, folder, model)
    return patch


def check_fits(patch: Patch, folder: str | os.PathLike[str], model: nn.Module) -> None:
    """Raises UserError if the model is not the one that the patch, which was read from this folder, was made for."""
    modules = base.modules(model)
    for name, m in patch.items():
        base.target(modules, name, m.shape)
    recorded, expected = recorded_base(folder)
    if expected and base.fingerprint(model) != expected:
        raise UserError(
            f"the patch in {folder} was made for another base ({recorded}): this model's weights differ from "
            "it (another model, a quantised one, or one with a patch already merged); give that base"
        )


def recorded_base(folder: str | os.PathLike[str]) -> tuple[str | None, str | None]:
    """(name, fingerprint) of the base that a patch was saved for; (None, None) for an adapter that `save` did not write.

    Raises:
        UserError: if `reveal_release.json` is there and cannot be read.
    """
    manifest = _manifest(folder)
    return manifest.get("base_model_name_or_path"), manifest.get("base_fingerprint")


def recorded_task(folder: str | os.PathLike[str]) -> str | None:
    """The task whose behaviour a run's patch takes away; None of any other patch. Raises as `recorded_base`."""
    return _manifest(folder).get("task")


def _manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save` wrote beside an adapter; empty for an adapter of another's."""
    path = Path(folder, MANIFEST_NAME)
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["base_model_name_or_path"], manifest["base_fingerprint"]  # raises where one is missing
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error!r}); restore it, or delete it to skip the check") from None
    return manifest
