"""Progress: on a terminal, without one, in the log, and none."""

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from reveal_release.report.progress import Reporter, SilentReporter
from reveal_release.report.terminal import LastingConsole

from .conftest import console, shown


def test_without_a_terminal_one_line_a_phase_and_the_log(tmp_path: Path) -> None:
    screen = console()
    reporter = Reporter(screen)
    reporter.note("before the log")
    reporter.log_to(tmp_path / "log.txt")
    with reporter.phase("Search [x]", 4) as update:
        update(1, 4)
        assert shown(screen) == "before the log\n", "no bar where nobody watches"
    reporter.skip("Train")
    lines = shown(screen).splitlines()
    assert lines == ["before the log", "Search [x]  0.0 s", "Train  (kept from the earlier run)"]
    logged = (tmp_path / "log.txt").read_text().splitlines()
    assert [line[21:] for line in logged] == lines[1:]


def test_a_failed_phase_leaves_no_line() -> None:
    screen = console()
    with pytest.raises(ValueError, match="broken"), Reporter(screen).phase("Search"):
        raise ValueError("broken")
    assert shown(screen) == ""


def test_on_a_terminal_elapsed_and_estimated_remaining_time() -> None:
    screen = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None, _environ={"TERM": "xterm"})
    with Reporter(screen).phase("Search", 4) as update:
        update(2, 4)
    text = shown(screen)
    assert "0:00 elapsed, ~0:00 left" in text and "50%" in text
    assert text.endswith("Search  0.0 s\n")


def test_work_goes_on_when_the_reader_has_had_enough(tmp_path: Path) -> None:
    """As of `| head`."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        reporter = Reporter(LastingConsole(file=pipe))
        reporter.log_to(tmp_path / "log.txt")
        for name in ("one", "two"):
            with reporter.phase(name):
                pass
        pipe.write("to nobody")
    assert [line.split()[2] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["one", "two"]


def test_silence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    reporter = SilentReporter()
    reporter.log_to(tmp_path / "log.txt")
    with reporter.phase("Search", 4) as update:
        update(1, 4)
    reporter.skip("Train")
    reporter.note("x")
    assert capsys.readouterr() == ("", "") and not list(tmp_path.iterdir())
