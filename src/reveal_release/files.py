"""Files: written as a whole or not at all, and known by what they hold."""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

from .config import UserError


def check_writable(path: Path, what: str = "--output") -> None:
    """Raises UserError where a file or folder cannot be made, or not be filled."""
    at = path.absolute()
    parent = next(one for one in (at, *at.parents) if one.exists())
    if not parent.is_dir():
        raise UserError(f"{what} {path}: {parent} is no folder; give another")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{what} {path}: nothing can be written in {parent}; give another")


def contents(path: Path, below: bool = False) -> str:
    """SHA-256 of a file, or of a folder's files with their names; of those in folders `below` it as well."""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    found = [(str(one.relative_to(path)), contents(one)) for one in sorted(path.rglob("*") if below else path.iterdir()) if one.is_file()]
    return hashlib.sha256(repr(found).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """What a file that this tool wrote as a whole holds. Raises UserError where it is no JSON any more, as after a crash of the disk."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is damaged: delete it, and the same command makes it again") from None


def write_results(path: Path, results: dict[str, Any]) -> Path:
    """JSON that any reader takes: what is no number, such as the bounds of a figure without an interval, is null."""
    return write_text(path, json.dumps(_strict(results), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: Path, text: str) -> Path:
    """Writes a file, all of it or nothing, whoever else writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
