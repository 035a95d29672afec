"""The floors that CONTRIBUTING.md tells of: every module stands on one, and none imports from a higher one."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "reveal_release"
APART = {"__init__", "__main__", "_sandbox_child", "testbed"}  # what the text says of itself, or that has no imports of its own


def floors() -> dict[str, int]:
    """Name of a module or folder of the package -> its floor, 0 being the top."""
    told = re.search(r"^Floors, from the top: (.*?)\. No import goes up", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL | re.M)
    assert told
    return {name.rstrip("/"): i for i, floor in enumerate(told[1].split("→")) for name in re.findall(r"`([\w/]+)`", floor)}


def imports(path: Path) -> Iterator[str]:
    """Modules and folders of the package that a file imports from, wherever in it."""
    package = ["reveal_release", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) + 1 - node.level] + (node.module.split(".") if node.module else [])
            yield from [base[1]] if len(base) > 1 else [alias.name for alias in node.names]


def test_imports_within_the_package_are_relative() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("reveal_release") for name in names), path


def test_every_module_has_a_floor_and_none_imports_from_a_higher_one() -> None:
    height, found = floors(), 0
    here = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert here - APART == height.keys()
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for name in imports(path) if own not in APART else ():
            if name in height:  # else the version, or the testbed
                found += 1
                assert height[name] >= height[own], f"{path.relative_to(ROOT)} imports from {name}"
    assert found > 300
