"""The run folder: finished phases that a resumed run does not do again, and refusal of another run's folder."""

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from .config import NO_RESULT, RunConfig, UserError
from .files import check_writable, contents, read_json, write_results, write_text
from .lock import Lock
from .metrics.toxicity import BUNDLED as scorers
from .release.prose import BUNDLED as texts
from .tasks import task_identity

LEAST_FREE = 200 * 2**20
"""Bytes for all but the weights that are written."""


class RunFolder:
    """`state/` holds the result of every finished phase; it is written before the next one starts.

    Raises:
        UserError: the folder holds something else or another run, another process works in it, it cannot be written, or the disk is
            nearly full.
    """

    def __init__(self, config: RunConfig, kind: str = "run", model: str = "", bytes_written: int = 0, **others: Any) -> None:
        """`model`: `provenance.model_identity`. `bytes_written`: of weights, those of an earlier start among them. `others`: what else
        must stay the same for the work to go on."""
        self.path = Path(config.output)
        self.state = self.path / "state"
        version = importlib.metadata.version("reveal-release")
        identity = {"kind": kind, "version": version, "config_hash": config.hash(), "model": model, **others}
        if task := task_identity(config.task):
            identity["task"] = task
        given = {name: getattr(config.evaluate, name) for name in ("entities", "tofu", "retain_model", "scorer")}
        bundled = {"scorer": scorers, "reward": scorers, "utility_text": texts}
        for name, value in {**given, "reward": config.scorer, "utility_text": config.utility_text}.items():
            place = Path(value).expanduser()
            if value and value not in bundled.get(name, ()) and place.exists():  # else it is a name
                identity[name] = contents(place, below=name == "entities")  # of a saved data set
        if found := check_place(self.path, kind):
            if found["config_hash"] != identity["config_hash"] and (other := self._other_setting(config)):
                raise UserError(f"{self.path} was made {other}: give the same, or choose another --output")
            if found != identity:
                raise UserError(
                    f"{self.path} holds what `{found['kind']}` wrote with other settings (see its config.yaml), another model, patch, "
                    "task file, precision, device or version: choose another --output, or delete it"
                )
        try:
            self.state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {self.path} ({error.strerror}): choose another --output") from None
        self._lock = Lock.of(self.path)
        there = sum(file.stat().st_size for file in self.path.rglob("*.safetensors")) if bytes_written else 0
        free, needed = shutil.disk_usage(self.path).free, LEAST_FREE + max(0, bytes_written - there)
        if free < needed:
            raise UserError(f"{free / 2**20:.0f} MiB are free at {self.path}, a run needs {needed / 2**20:.0f}: free some space")
        self.write("state/identity.json", json.dumps(identity))
        self.write("config.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False))

    def _other_setting(self, config: RunConfig) -> str:
        """The first setting that was another one when this folder was made."""
        try:
            before = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
            whole = [(name, before[name], value) for name, value in config.to_dict().items() if name not in NO_RESULT]
            nested = [(part, old, new) for part, old, new in whole if isinstance(new, dict)]
            parts = [(f"{part}.{name}", old[name], new[name]) for part, old, new in nested for name in new if name not in NO_RESULT]
        except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):  # of another version, or edited
            return ""
        pairs = [*(one for one in whole if not isinstance(one[2], dict)), *parts]
        return next((f"with {name} {old}, and this has {new}" for name, old, new in pairs if old != new), "")

    def write(self, name: str, text: str) -> Path:
        """Writes a text file, all of it or nothing."""
        return write_text(self.path / name, text)

    def write_results(self, name: str, results: dict[str, Any]) -> Path:
        return write_results(self.path / name, results)

    def drop(self, *names: str) -> None:
        """Removes files and folders of these names, where they are."""
        for path in (self.path / name for name in names):
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)

    def results(self, name: str) -> dict[str, Any] | None:
        """What `write_results` wrote earlier, if it did."""
        path = self.path / name
        return read_json(path) if path.is_file() else None

    def write_rows(self, name: str, rows: list[dict[str, Any]]) -> Path:
        return self.write(name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def phase(self, name: str, work: Callable[[], Any]) -> Any:
        """The JSON result of `work`, from the earlier run where it had finished there."""
        path = self.state / f"{name}.json"
        if not path.is_file():
            self.write(f"state/{name}.json", json.dumps(work(), ensure_ascii=False))
        return read_json(path)

    def has(self, name: str) -> bool:
        return (self.state / name).exists()


def check_place(path: Path, kind: str) -> dict[str, Any] | None:
    """What identifies the work of this kind that a folder holds; None where it is new. Raises UserError where it holds anything else."""
    marker = path / "state" / "identity.json"
    if marker.is_file():
        try:
            found = json.loads(marker.read_text(encoding="utf-8"))
            held = found["kind"], found["config_hash"]
        except (ValueError, LookupError, TypeError):
            raise UserError(f"{marker} is damaged: choose another --output") from None
        if held[0] != kind:
            raise UserError(f"{path} holds what `{held[0]}` wrote, and this is `{kind}`: choose another --output")
        return found
    # A first start that ended early (full disk, killed) leaves an empty state/ at most, and that is no reason to refuse.
    if path.exists() and (not path.is_dir() or any(p != path / "state" and p.suffix != ".part" for p in path.rglob("*"))):
        raise UserError(f"{path} exists and is no run folder: choose another --output")
    check_writable(path)
    return None
