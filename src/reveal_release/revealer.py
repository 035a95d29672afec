"""Reveal without release: search and self-generation alone, for those who want only the forget set.

    reveal_only(RunConfig(task="toxicity", output="out"), formats="trl")
"""

from collections.abc import Sequence
from typing import Any

from .config import RunConfig
from .dataset import Data
from .release.patch import Patch
from .reveal.export import FORMATS, convert, wanted
from .runfolder import RunFolder
from .workshop import Workshop


def reveal_only(config: RunConfig, reporter: Any = None, formats: str | Sequence[str] = ()) -> dict[str, Any]:
    """Search and self-generation alone, for those who want only the forget set, also in `formats` of other tools.

    Raises:
        UserError: as `run`, and for an unknown format.
    """
    names = wanted(formats)
    w = Workshop(config, reporter, kind="reveal")
    found = w.reveal(1, Patch())
    data = w.generate_data(1, Patch(), found) if w.found(found) else Data([], [], [])
    result = {
        "best": found["best"],
        "stop_reward": config.stop_reward,
        "instructions": found["finalists"],
        "records": len(data.forget),
        "wanted": config.reveal.records,
        "retained": {"records": len(data.retain), "path": str(w.folder.path / "retain_data.jsonl") if data.forget else None},
        "path": str(w.folder.path / "forget_data" / "iteration-1.jsonl") if data.forget else None,
        "exports": [one for name in names for one in export(w.folder, data, name)] if data.forget else [],
    }
    w.folder.write_results("results.json", result)
    return result


def export(folder: RunFolder, data: Data, name: str) -> list[dict[str, Any]]:
    """Writes the forget and the retain set in a format of `reveal.export`, and says what was written and what was left out."""
    written = []
    for part, records in (("forget", data.forget), ("retain", data.retain)):
        rows, left_out = convert(records, name)
        file = f"export/{name}/{part}.jsonl"
        if rows:  # a file without rows loads nowhere
            folder.write_rows(file, rows)
        path = str(folder.path / file) if rows else None
        counts = {"records": len(rows), "left_out": left_out, "holds": FORMATS[name].holds}
        written.append({"format": name, "set": part, "path": path, **counts})
    return written
