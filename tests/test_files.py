"""Whole files or none, and JSON for any reader."""

import json
import math
import os
from pathlib import Path

import pytest

from reveal_release.config import UserError
from reveal_release.files import contents, read_json, write_results, write_text


def test_results_are_json_for_any_reader(tmp_path: Path) -> None:
    path = write_results(tmp_path / "r.json", {"a": [{"low": math.nan, "value": 0.5}, (1, math.inf)], "b": None, "c": True, "é": "NaN"})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    found = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert found == {"a": [{"low": None, "value": 0.5}, [1, None]], "b": None, "c": True, "é": "NaN"}


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_text(tmp_path / "notes/a.txt", "first")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "fsync", full)
        write_text(path, "second")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half a character: \ud800")
    assert path.read_text() == "first"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("harm", [b"", b'{"result"', "\u00e9".encode("latin-1")])
def test_a_damaged_file_is_told_with_its_name(harm: bytes, tmp_path: Path) -> None:
    path = write_results(tmp_path / "results.json", {"a": [1, None]})
    assert read_json(path) == {"a": [1, None]}
    path.write_bytes(harm)
    with pytest.raises(UserError, match="results.json is damaged: delete it, and the same command makes it again"):
        read_json(path)


def test_what_a_folder_holds_is_its_files_names_and_bytes(tmp_path: Path) -> None:
    for name, text in (("one/a", "1"), ("two/a", "1"), ("named/b", "1"), ("other/a", "2"), ("deep/a", "1"), ("deep/below/a", "1")):
        write_text(tmp_path / name, text)
    one, two, named, other, deep = (contents(tmp_path / name) for name in ("one", "two", "named", "other", "deep"))
    assert one == two == deep and len({one, named, other}) == 3
    assert contents(tmp_path / "deep", below=True) != one == contents(tmp_path / "one", below=True)
    assert contents(tmp_path / "one/a") == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
