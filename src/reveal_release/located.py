"""Where a patch is: a folder here, or an adapter on the hub.

    located("out/toxicity/patch")    # as it is
    located("owner/name")            # its snapshot in the cache of huggingface_hub; fetched where it is not there, or newer
"""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from .config import UserError, first_line

ADAPTER = "adapter_config.json"
FILES = (ADAPTER, "adapter_model.safetensors", "reveal_release.json", "README.md")


def located(patch: str | Path) -> Path:
    """The folder of a patch that is named by its folder or its name on the hub.

    Raises:
        UserError: it is neither, or cannot be fetched.
    """
    folder, name = Path(patch), str(patch)
    if (folder / ADAPTER).is_file():
        return folder
    ours = "give the folder `patch` of a run's output, or a name on the hub such as owner/name"
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(f"{name or repr(name)} holds no {ADAPTER} and is no patch: {ours}")
    try:
        found = Path(snapshot_download(name, allow_patterns=list(FILES)))
    except GatedRepoError:
        cure = f"accept its licence at https://huggingface.co/{name}, and log in with `hf auth login`"
        raise UserError(f"the patch {name} is gated: {cure}") from None
    except RepositoryNotFoundError:
        raise UserError(f"the patch {name} is neither a folder here nor public on the hub: {ours}") from None
    except (OSError, ValueError) as error:  # no network, no space, no such name
        raise UserError(f"the patch {name} is no folder here, and from the hub: {first_line(error)} ({ours})") from None
    if not (found / ADAPTER).is_file():
        raise UserError(f"{name} on the hub holds no {ADAPTER}, and is no patch: {ours}")
    return found
