"""A patch by its folder or its name on the hub, without a network: from a cache laid out as huggingface_hub does."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from peft import PeftConfig

from reveal_release import cli, located
from reveal_release.audit.pair import Pair
from reveal_release.config import RunConfig, UserError
from reveal_release.models import LanguageModel, load_model
from reveal_release.patches import info, merge, revert, truncate
from reveal_release.release.adapter import load, save_for
from reveal_release.release.patch import LowRank, Patch
from reveal_release.report.card import derived_card

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, of a machine that is off the network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    located._fetched.cache_clear()
    located.snapshot.cache_clear()
    return tmp_path / "hub"


def published(hub: Path, name: str, folder: Path, revision: str = "main") -> Path:
    place = hub / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / revision).write_text(COMMIT)
    return Path(shutil.copytree(folder, place / "snapshots" / COMMIT))


@pytest.fixture
def patch(lm: LanguageModel, tmp_path: Path) -> Path:
    name = next(name for name, _ in lm.model.named_modules() if name.endswith("q_proj"))
    out, into = lm.model.get_submodule(name).weight.shape  # type: ignore[misc]
    return save_for(lm, Patch({name: LowRank(torch.randn(2, into), torch.randn(out, 2))}), tmp_path / "patch")


def test_a_folder_is_where_it_is(patch: Path, hub: Path) -> None:
    assert located.located(patch) == located.located(str(patch)) == patch


def test_a_merged_model_has_its_record_on_the_hub_too(patch: Path, hub: Path, tiny_llama: str, tmp_path: Path) -> None:
    merged = str(tmp_path / "merged")
    merge(tiny_llama, str(patch), merged, "float32")
    published(hub, "owner/merged", Path(merged))
    of_folder, of_hub = (revert(name, str(patch), str(tmp_path / out)) for name, out in ((merged, "one"), ("owner/merged", "other")))
    assert {**of_hub, "output": ""} == {**of_folder, "output": ""} and of_hub["restored"] is not None, "which the record says"


def test_a_name_on_the_hub_does_wherever_a_folder_does(
    patch: Path, hub: Path, tiny_llama: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = published(hub, "owner/name", patch)
    assert located.located("owner/name") == snapshot
    of_hub, of_folder = info("owner/name", tiny_llama), info(str(patch), tiny_llama)
    assert of_hub == of_folder and of_hub["modules"] == 1
    merge(tiny_llama, "owner/name", str(tmp_path / "one"))
    merge(tiny_llama, str(patch), str(tmp_path / "other"))
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "other/model.safetensors").read_bytes()
    truncate("owner/name", 1, str(tmp_path / "small"))
    assert info(str(tmp_path / "small"))["rank"] == 1
    pair = Pair(RunConfig(model=tiny_llama, output=str(tmp_path / "audit")), "owner/name", 1)
    assert (pair.named, pair.path, list(pair.patch)) == ("owner/name", snapshot, list(load(patch)))
    few = "--evaluate.prompts 2 --evaluate.continuations 1 --evaluate.neutral 1 --evaluate.sentences 1 --evaluate.functions 1"
    asked = f"evaluate --model {tiny_llama} {few} --evaluate.problems 1 --patch"
    for name, file in (("owner/name", "hub.json"), (str(patch), "folder.json")):
        assert cli.main([*asked.split(), name, "--json", file]) == 0
    first, second = (json.loads(Path(file).read_text()) for file in ("hub.json", "folder.json"))
    assert first["patch"] == "owner/name" and first["metrics"] == second["metrics"]


def test_a_folder_here_goes_before_the_hub(patch: Path, hub: Path, tmp_path: Path) -> None:
    published(hub, "owner/name", patch)
    (tmp_path / "owner/name").mkdir(parents=True)
    with pytest.raises(UserError, match=r"^owner/name holds no adapter_config.json and is no patch"):
        located.located("owner/name")


def test_a_model_on_the_hub_is_no_patch(hub: Path, tiny_llama: str) -> None:
    published(hub, "owner/model", Path(tiny_llama))
    with pytest.raises(UserError, match="owner/model on the hub holds no adapter_config.json"):
        located.located("owner/model")


@pytest.mark.parametrize("name", ["", "out", "./out/patch", "/out/patch", "~/patch", "a/b/c", "out/no such"])
def test_what_can_be_neither(name: str, hub: Path) -> None:
    with pytest.raises(UserError, match=r"give the folder `patch` of a run's output"):
        located.located(name)


def test_what_the_hub_refuses(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^the patch out/toxicty is no folder here, and from the hub: "):
        located.located("out/toxicty")

    def refusing(kind: type[Exception]) -> None:
        def download(*args: object, **kwargs: object) -> str:
            raise kind.__new__(kind)  # it needs no response of a server

        monkeypatch.setattr(located, "snapshot_download", download)

    refusing(GatedRepoError)
    with pytest.raises(UserError, match="hf auth login"):
        located.located("owner/name")
    refusing(RevisionNotFoundError)
    for refused in (located.located, load_model):
        with pytest.raises(UserError, match=r"^owner/name has no revision 'v0' on the hub: give one of its branches, tags or commits$"):
            refused("owner/name@v0")
    refusing(RepositoryNotFoundError)
    with pytest.raises(UserError, match="neither a folder here nor a public patch on the hub"):
        located.located("owner/name")
    refusing(ZeroDivisionError)  # as a network library's own errors, of no kind that is known here
    with pytest.raises(UserError, match="the patch owner/name is no folder here, and from the hub"):
        located.located("owner/name")


def test_what_was_checked_is_what_is_used(patch: Path, hub: Path) -> None:
    snapshot = published(hub, "owner/name", patch)
    assert located.located("owner/name") == snapshot
    shutil.rmtree(hub)
    assert located.located("owner/name") == snapshot, "it is not asked for again"


def test_a_revision(patch: Path, hub: Path, tiny_llama: str, tmp_path: Path) -> None:
    """Of a patch and of a model: `@` and a branch, a tag or a commit; what is made of it names both, as the libraries read them."""
    snapshot = published(hub, "owner/name", patch, "v1")
    assert located.located("owner/name@v1") == snapshot == located.located(f"owner/name@{COMMIT}")
    with pytest.raises(UserError, match="the patch owner/name is no folder here"):  # of which there is no main
        located.located("owner/name")
    published(hub, "owner/model", Path(tiny_llama), "v1")
    lm, plain = load_model("owner/model@v1"), load_model(tiny_llama)
    assert all(torch.equal(a, b) for a, b in zip(lm.model.parameters(), plain.model.parameters(), strict=True))
    with pytest.raises(UserError, match="cannot fetch model 'owner/model@v2' from the hub"):
        load_model("owner/model@v2")
    save_for(lm, load(patch), tmp_path / "own", card=derived_card(lm.name, "Made.", hub=True))
    config = PeftConfig.from_pretrained(str(tmp_path / "own"))
    assert (config.base_model_name_or_path, config.revision) == ("owner/model", "v1")
    card = (tmp_path / "own/README.md").read_text()
    assert "\nbase_model: owner/model\n" in card and "from_pretrained('owner/model', revision='v1')" in card
    assert load(tmp_path / "own", lm.model) and info(str(tmp_path / "own"))["base"] == "owner/model@v1"
    truncate(str(tmp_path / "own"), 1, str(tmp_path / "small"))
    small = PeftConfig.from_pretrained(str(tmp_path / "small"))
    assert (small.base_model_name_or_path, small.revision) == ("owner/model", "v1")
    assert "revision='v1'" in (tmp_path / "small/README.md").read_text()
    (tmp_path / "own/reveal_release.json").unlink()  # as of another tool
    assert info(str(tmp_path / "own"))["base"] == "owner/model@v1"


def test_only_a_name_on_the_hub_has_a_revision(patch: Path, hub: Path, tiny_llama: str, tmp_path: Path) -> None:
    named = {"a/b@v1": ("a/b", "v1"), "gpt2@main": ("gpt2", "main"), "a/b@refs/pr/1": ("a/b", "refs/pr/1"), "a/b": ("a/b", None)}
    assert {name: located.pinned(name) for name in named} == named
    shutil.copytree(tiny_llama, tmp_path / "mine@v1")
    for folder in ("mine@v1", "./mine@v1", "/a@b", "a/b/c@d", "a/b@"):
        assert located.pinned(folder) == (folder, None)
    lm = load_model("mine@v1")
    assert lm.path == "mine@v1"
    save_for(lm, load(patch), tmp_path / "own", card=derived_card(lm.name, "Made.", hub=False))
    (tmp_path / "mine@v1").rename(tmp_path / "elsewhere")
    truncate("own", 1, "small")  # where there is no such folder
    small = PeftConfig.from_pretrained("small")
    assert (small.base_model_name_or_path, small.revision) == ("mine@v1", None)
    assert "from_pretrained('mine@v1')" in Path("small/README.md").read_text()
