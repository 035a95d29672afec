"""Where a patch is: a folder here, or an adapter on the hub; and what is told of a name that the hub refuses.

    located("out/toxicity/patch")    # as it is
    located("owner/name")            # its snapshot in the cache of huggingface_hub; fetched where it is not there, or newer
"""

from functools import lru_cache
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from .config import UserError, first_line

ADAPTER = "adapter_config.json"
FILES = (ADAPTER, "adapter_model.safetensors", "reveal_release.json", "README.md")
"""What a patch's folder holds."""
CURE = "give the folder `patch` of a run's output, or a name on the hub such as owner/name"


def located(patch: str | Path) -> Path:
    """The folder of a patch that is named by its folder or its name on the hub.

    Raises:
        UserError: it is neither, or cannot be fetched.
    """
    folder, name = Path(patch), str(patch)
    if (folder / ADAPTER).is_file():
        return folder
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(f"{name or repr(name)} holds no {ADAPTER} and is no patch: {CURE}")
    return _fetched(name)


@lru_cache
def _fetched(name: str) -> Path:
    """Asked once: what was checked is what is used."""
    try:
        found = Path(snapshot_download(name, allow_patterns=list(FILES)))
    except Exception as error:  # the hub, its network library and the disk each raise their own kinds
        unreachable = f"the patch {name} is no folder here, and from the hub: {first_line(error)} ({CURE})"
        raise refused(name, error, "patch") or UserError(unreachable) from None
    if not (found / ADAPTER).is_file():
        raise UserError(f"{name} on the hub holds no {ADAPTER}, and is no patch: {CURE}")
    return found


def refused(name: str, error: BaseException, kind: str) -> UserError | None:
    """What to tell where the hub keeps back what `name` names, or has no such `kind` of thing; None for any other error."""
    if _caused_by(error, GatedRepoError):
        return UserError(f"{name} is gated: accept its licence at https://huggingface.co/{name}, and log in with `hf auth login`")
    if _caused_by(error, RepositoryNotFoundError):
        cure = "check the name, or log in with `hf auth login` if it is private"
        return UserError(f"{name} is neither a folder here nor a public {kind} on the hub: {cure}")
    return None


def _caused_by(error: BaseException | None, kind: type[Exception]) -> bool:
    while error and not isinstance(error, kind):
        error = error.__cause__
    return error is not None
