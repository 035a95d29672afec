"""Adapter folders: the round trip, another base, and saves that fail."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from reveal_release.config import UserError
from reveal_release.release import adapter
from reveal_release.release.adapter import load, save
from reveal_release.release.base import fingerprint
from reveal_release.release.lora import from_peft
from reveal_release.release.patch import Patch
from reveal_release.release.runtime import merge_

from .conftest import logits, random_patch, save_for, tiny


def test_round_trip_gives_the_same_change(family, tmp_path):
    model = tiny(family)
    patch = random_patch(model, family, 1)
    save_for(model, patch, tmp_path / "patch", notes={"task": "toxicity"})
    again = load(tmp_path / "patch", model)
    assert set(again) == set(patch)
    assert all(torch.equal(again.delta(name), patch.delta(name)) for name in patch)
    manifest = json.loads((tmp_path / "patch" / "reveal_release.json").read_text())
    assert manifest["task"] == "toxicity" and manifest["base_fingerprint"] == fingerprint(model)
    # What PEFT makes of the folder reads back the same.
    plain = PeftModel.from_pretrained(tiny(family), tmp_path / "patch")
    assert all(torch.equal(from_peft(plain).delta(name), patch.delta(name)) for name in patch)


def test_load_refuses_another_base(tmp_path):
    model = tiny("llama")
    patch = random_patch(model, "llama", 1)
    save_for(model, patch, tmp_path / "patch")
    with pytest.raises(UserError, match="made for another base .tiny.*give that base"):
        load(tmp_path / "patch", tiny("llama", seed=1))
    with pytest.raises(UserError, match="does not have; use the base model"):
        load(tmp_path / "patch", tiny("gpt2"))
    assert load(tmp_path / "patch").norm() == pytest.approx(patch.norm())
    # The patch must not be put on twice: its own merged model is another base.
    merge_(model, patch)
    with pytest.raises(UserError, match="already merged"):
        load(tmp_path / "patch", model)
    (tmp_path / "patch" / "reveal_release.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "patch", tiny("llama"))


def test_an_interrupted_save_leaves_the_earlier_adapter(tmp_path, monkeypatch):
    model = tiny("llama")
    patch = random_patch(model, "llama", 1)
    folder = save_for(model, patch, tmp_path / "patch", card="first")
    rename = Path.rename

    def stops(self, target):
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stops)
    with pytest.raises(KeyboardInterrupt):
        save_for(model, patch.scale(2), folder, card="second")
    assert load(folder, model).norm() == pytest.approx(patch.norm()) and (folder / "README.md").read_text() == "first"
    monkeypatch.undo()
    save_for(model, patch.scale(2), folder, card="second")
    assert load(folder, model).norm() == pytest.approx(2 * patch.norm()) and (folder / "README.md").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["patch"]


def test_save_replaces_an_adapter_and_nothing_else(tmp_path):
    model = tiny("llama")
    patch = random_patch(model, "llama", 1)
    folder = save_for(model, patch, tmp_path / "a" / "patch")
    first = (folder / "adapter_config.json").read_bytes()
    save_for(model, patch.scale(2), folder)
    assert load(folder, model).norm() == pytest.approx(2 * patch.norm())
    assert (folder / "adapter_config.json").read_bytes() == first  # the same patch gives the same bytes
    assert [p.name for p in folder.parent.iterdir()] == ["patch"]  # no scratch left behind

    (tmp_path / "a" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is there.; choose a new folder"):
        save_for(model, patch, tmp_path / "a")
    assert (tmp_path / "a" / "thesis.tex").read_text() == "precious"
    with pytest.raises(UserError, match="nothing to save"):
        save(Patch(), tmp_path / "b", base_model_name_or_path="tiny", fingerprint="")


def test_a_save_that_fails_leaves_the_old_adapter(tmp_path, monkeypatch):
    model = tiny("llama")
    patch = random_patch(model, "llama", 1)
    folder = save_for(model, patch, tmp_path / "patch")

    def full(*_args, **_more):
        raise OSError("no space left on device")

    monkeypatch.setattr(adapter.safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        save_for(model, patch.scale(2), folder)
    assert load(folder, model).norm() == pytest.approx(patch.norm())
    assert [p.name for p in tmp_path.iterdir()] == ["patch"]


def test_a_patch_of_rank_zero_can_be_saved(tmp_path):
    model = tiny("llama")
    patch = random_patch(model, "llama", 1)
    save_for(model, (patch + patch.negate()).compress(), tmp_path / "patch")
    plain = PeftModel.from_pretrained(tiny("llama"), tmp_path / "patch").eval()
    assert torch.equal(logits(plain), logits(model))
