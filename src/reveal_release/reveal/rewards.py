"""Rewards on disk: what a search has drawn and scored is not drawn again, whether it was killed or is run anew.

    cache = RewardCache.of(lm, task, config, patch, folder)
    search(lm, task, config.reveal, seed, cache=cache)

The folder is one in the run's own, so that what the model wrote goes with the run; with the environment variable REVEAL_RELEASE_CACHE
it is the one that this names, and runs that differ only in how they release what they found share it.

An entry is one whole call: its instructions, its sampling seeds, and all that can change the answers or their scores. Not one entry an
instruction: an answer depends, by float rounding, on what else is in its batch, so a partly filled cache would change results.

Not promised: that another classifier under the same name, or a change in what a task's Python file imports, is noticed. Empty a shared
folder after that. Nothing is ever removed from it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ..config import ReleaseConfig, RunConfig
from ..files import check_writable, read_json, write_text
from ..models import LanguageModel
from ..provenance import environment, model_identity
from ..release.patch import Patch
from ..tasks import Record, Task

VARIABLE = "REVEAL_RELEASE_CACHE"


class RewardCache:
    """Calls that are done, in a folder.

    identity: JSON of all that can change a record beside instructions and seeds.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder, self.identity = folder, identity
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of(cls, lm: LanguageModel, task: Task, config: RunConfig, patch: Patch, folder: Path) -> "RewardCache":
        """For searches of a model with a patch. `folder`: where the rewards are kept if the environment does not say."""
        same = replace(
            config, seed=0, iterations=1, stop_reward=0.0, release=ReleaseConfig(), utility_budget=0.0, utility_text="encyclopedia"
        )
        identity = {
            "model": model_identity(lm),
            "patch": patch.digest(),
            "task": [type(task).__name__, task.file_digest],
            "settings": same.hash(),
            "code": code_digest(),
            "environment": environment(lm),
        }
        return cls(shared() or folder, identity)

    def records(self, instructions: Sequence[str], seeds: Sequence[int], draw: Callable[[], list[Record]]) -> list[Record]:
        """What `draw` gives for these, from the disk where it was given before."""
        text = json.dumps([self.identity, list(instructions), list(seeds)], sort_keys=True)
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
        if path.is_file():
            return [Record.from_dict(row) for row in read_json(path)]
        records = draw()
        write_text(path, json.dumps([record.to_dict() for record in records]))
        return records


def shared() -> Path | None:
    """The folder that the environment names. Raises UserError where it can be neither made nor written to."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    check_writable(Path(named), VARIABLE)
    return Path(named)


@cache
def code_digest() -> str:
    """Of this package's code and scorers: another version of it scores anew."""
    root = Path(__file__).parents[1]
    files = sorted([*root.rglob("*.py"), *(root / "data" / "scorers").rglob("*.*")])
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
