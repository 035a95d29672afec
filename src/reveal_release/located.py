"""Names on the hub: the folder of a patch that is named there or here, the revision in a name, and what is told where the hub refuses.

    located("out/toxicity/patch")    # as it is
    located("owner/name")            # its snapshot in the cache of huggingface_hub; fetched where it is not there, or newer
    located("owner/name@v1")         # that of a branch, a tag or a commit
"""

from functools import lru_cache
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from .config import UserError, first_line

ADAPTER = "adapter_config.json"
FILES = (ADAPTER, "adapter_model.safetensors", "reveal_release.json", "README.md")
"""What a patch's folder holds."""
CURE = "give the folder `patch` of a run's output, or a name on the hub such as owner/name"

_OTHER_FORMS = ["*/*", "consolidated*"]
"""Where models are kept once more, in forms that transformers does not read."""


def located(patch: str | Path) -> Path:
    """The folder of a patch that is named by its folder or its name on the hub.

    Raises:
        UserError: it is neither, or cannot be fetched.
    """
    folder, name = Path(patch), str(patch)
    if (folder / ADAPTER).is_file():
        return folder
    if folder.exists() or name.startswith((".", "/", "~")) or pinned(name)[0].count("/") != 1:
        raise UserError(f"{name or repr(name)} holds no {ADAPTER} and is no patch: {CURE}")
    return _fetched(name)


@lru_cache
def _fetched(name: str) -> Path:
    """Asked once: what was checked is what is used."""
    try:
        found = snapshot(name, FILES)
    except Exception as error:  # the hub, its network library and the disk each raise their own kinds
        unreachable = f"the patch {name} is no folder here, and from the hub: {first_line(error)} ({CURE})"
        raise refused(name, error, "patch") or UserError(unreachable) from None
    if not (found / ADAPTER).is_file():
        raise UserError(f"{name} on the hub holds no {ADAPTER}, and is no patch: {CURE}")
    return found


@lru_cache
def snapshot(name: str, files: tuple[str, ...]) -> Path:
    """The folder in the cache with those files (patterns) of what the hub has under that name; asked once.

    Raises what huggingface_hub does.
    """
    repository, revision = pinned(name)
    return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files), ignore_patterns=_OTHER_FORMS))


def pinned(name: str) -> tuple[str, str | None]:
    """(name on the hub, revision) of `owner/name@revision`, as hf:// addresses have it; (name, None) of any other name."""
    repository, _, revision = name.partition("@")
    folder = name.startswith((".", "/", "~")) or repository.count("/") > 1 or Path(name).exists()
    return (repository, revision) if revision and not folder else (name, None)


def refused(name: str, error: BaseException, kind: str) -> UserError | None:
    """What to tell where the hub keeps back what `name` names, or has no such `kind` of thing; None for any other error."""
    if _caused_by(error, GatedRepoError):
        page = f"https://huggingface.co/{pinned(name)[0]}"
        return UserError(f"{name} is gated: accept its licence at {page}, and log in with `hf auth login`")
    if _caused_by(error, RevisionNotFoundError):
        return UserError("{} has no revision {!r} on the hub: give one of its branches, tags or commits".format(*pinned(name)))
    if _caused_by(error, RepositoryNotFoundError):
        cure = "check the name, or log in with `hf auth login` if it is private"
        return UserError(f"{name} is neither a folder here nor a public {kind} on the hub: {cure}")
    return None


def _caused_by(error: BaseException | None, kind: type[Exception]) -> bool:
    while error and not isinstance(error, kind):
        error = error.__cause__
    return error is not None
