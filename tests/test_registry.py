"""Names: registered once, found in files, and answered with the nearest where there is none."""

import sys
from pathlib import Path

import pytest

from reveal_release.config import UserError
from reveal_release.registry import names_in, nearest, register


def test_a_name_is_registered_once_and_a_class_without_one_is_left_out() -> None:
    known: dict[str, type] = {}
    one = type("One", (), {"name": "same", "__module__": "a"})
    heir = type("Heir", (one,), {"__module__": "a"})
    for cls in (one, heir, type("One", (), {"name": "same", "__module__": "a"})):  # a file that is imported again
        register(cls, known, "things")
    assert set(known) == {"same"}
    with pytest.raises(UserError, match="two things are named 'same': rename one"):
        register(type("Two", (), {"name": "same", "__module__": "b"}), known, "things")


def test_every_file_of_a_package_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").write_text("KNOWN = {}\n", encoding="utf-8")
    for name in ("b", "a"):
        (package / f"{name}.py").write_text(f"from . import KNOWN\nKNOWN[{name!r}] = {name!r}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    import some_package  # type: ignore[import-not-found]

    assert names_in("some_package", some_package.__path__, some_package.KNOWN) == ["a", "b"]
    for name in [name for name in sys.modules if name.startswith("some_package")]:
        del sys.modules[name]


def test_the_nearest_name_or_all() -> None:
    assert nearest("nop", ["npo", "rmu"], "choose from npo, rmu") == ": did you mean 'npo'?"
    assert nearest("xyz", ["npo", "rmu"], "choose from npo, rmu") == ": choose from npo, rmu"
