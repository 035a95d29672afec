"""The models that ship inside the package. Apart from models.py, so that they are listed without torch."""

from importlib.resources import files
from pathlib import Path


def testbeds() -> dict[str, Path]:
    """Their folders, by name."""
    root = Path(str(files("reveal_release"))) / "data"
    return {path.name: path for path in sorted(root.glob("testbed-*")) if (path / "config.json").is_file()}
