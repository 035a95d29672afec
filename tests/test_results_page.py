"""The page of results: that it is what its command builds from the stored files, and which methods are on the front."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def results() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results", ROOT / "benchmarks" / "results.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_command_builds(results: ModuleType) -> None:
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == results.page(), "run `python benchmarks/results.py`"


def test_stored_files_hold_nothing_of_a_machine(results: ModuleType) -> None:
    stored = sorted((ROOT / "docs" / "results").glob("*.json"))
    assert stored
    for path in stored:
        text = path.read_text(encoding="utf-8")
        assert not json.loads(text).keys() & set(results.LOCAL) and str(Path.home()) not in text and "/work" not in text


def test_front_by_hand(results: ModuleType) -> None:
    assert results.on_front([(0, 3), (1, 1), (2, 2), (3, 0), (1, 1)]) == [True, True, False, True, True]


@given(points=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
def test_a_point_off_the_front_is_dominated_by_one_on_it(results: ModuleType, points: list[tuple[int, int]]) -> None:
    front = results.on_front(points)
    best = [point for point, there in zip(points, front, strict=True) if there]
    for point, there in zip(points, front, strict=True):
        assert there == (not any(a <= point[0] and b <= point[1] for a, b in best if (a, b) != point))


def test_a_difference_is_paired_and_signed(results: ModuleType) -> None:
    assert results._paired([0.5], 100) == "+50.0" and results._paired([-1.0, -3.0]).startswith("-2.0 [")


def test_a_result_is_stored_by_what_it_is_of(results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "DOCS", tmp_path)
    (tmp_path / "compare.json").write_text(json.dumps({"task": "ner", "model": "some/model-1.5", "output": "/home/me", "cells": []}))
    path = results.store(tmp_path / "compare.json", "abc")
    assert path == tmp_path / "results" / "compare-ner-model-1-5.json"
    assert json.loads(path.read_text()) == {"commit": "abc", "task": "ner", "model": "some/model-1.5", "cells": []}
