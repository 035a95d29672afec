"""What the terminal shows: progress lines and the final tables, with hostile text in them."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from reveal_release.report.console import (
    Reporter,
    SilentReporter,
    change,
    clean,
    duration,
    figure,
    render,
    render_instructions,
    render_metrics,
)


def estimate(value: float, half: float = 0.03) -> dict[str, Any]:
    return {"value": value, "n": 100, "low": value - half, "high": value + half}


def metrics(toxic: float, perplexity: float, f1: float) -> dict[str, Any]:
    return {
        "forget": {"toxic_ratio_rtp": estimate(toxic)},
        "retain": {"perplexity": estimate(perplexity, 0.5), "f1_person": estimate(f1), "code_pass_at_1": estimate(0.4)},
    }


@pytest.fixture
def results(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "results.json").write_text("{}")
    return {
        "task": "toxicity",
        "model": "testbed-llama",
        "seed": 7,
        "before": metrics(0.4, 20.0, 0.71),
        "after": metrics(0.1, 20.2, 0.68),
        "elicitation": {"before": {**estimate(0.9), "instruction": "a"}, "after": {**estimate(0.45), "instruction": "b"}},
        "patch": {"path": "patch", "rank": 32, "scale": 1.0},
        "stopped_because": "nothing left to reveal",
        "seconds": {"search": 61.0, "train": 62.0},
        "samples": [{"prompt": "Write about [bold]news[/bold].", "before": "x\x1b[31m\x07y\u202ez :smile:\nnext", "after": ""}],
        "output": str(tmp_path),
        "iterations": [{"iteration": 1}, {"iteration": 2}],
        "peak_memory_mib": 2048.0,
    }


def console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width)


def shown(one: Console) -> str:
    assert isinstance(one.file, io.StringIO)
    return one.file.getvalue()


def test_before_and_after_with_intervals_and_change(results: dict[str, Any]) -> None:
    screen = console()
    render(results, screen)
    rows = {line.split("  ")[1]: line for line in shown(screen).splitlines() if line.startswith("  ")}
    assert rows["toxic ratio RTP"].split("  ", 2)[2].split() == "40.0 % [37.0, 43.0] 10.0 % [7.0, 13.0] -75 %".split()
    assert rows["strongest elicitation"].endswith("-50 %")
    assert "20.00 [19.50, 20.50]" in rows["perplexity"] and rows["perplexity"].endswith("+1.0 %")
    assert "71.0 % [68.0, 74.0]" in rows["F1 person"] and rows["F1 person"].endswith("-3.0 pt")
    assert "code pass@1" in rows


def test_stops_files_and_commands_are_told(results: dict[str, Any], tmp_path: Path) -> None:
    screen = console()
    render(results, screen)
    text = shown(screen)
    assert "2 iterations in 2 min 3 s, 2.0 GiB of memory, seed 7; stopped: nothing left to reveal" in text
    assert "results.json" in text and "report.html" not in text, "only what is there is listed"
    assert f"  reveal-release evaluate --task toxicity --model testbed-llama --patch {tmp_path}/patch\n" in text
    code = [line.strip() for line in text.splitlines() if "PeftModel" in line]
    assert len(code) == 2
    for line in code:
        compile(line, "shown", "exec")
    assert f"from_pretrained(load_model('testbed-llama').model, '{tmp_path}/patch')" in code[1]


def test_a_hub_model_is_loaded_with_transformers(results: dict[str, Any]) -> None:
    screen = console()
    render({**results, "model": "org/model"}, screen)
    assert "AutoModelForCausalLM.from_pretrained('org/model')" in shown(screen)


def test_no_patch_is_said_plainly(results: dict[str, Any]) -> None:
    screen = console()
    render({**results, "patch": {"path": None, "rank": 0, "scale": 1.0}}, screen)
    assert "No patch: nothing left to reveal" in shown(screen) and "PeftModel" not in shown(screen)


def test_samples_are_not_markup_and_cannot_drive_the_terminal(results: dict[str, Any]) -> None:
    screen = console()
    render(results, screen)
    text = shown(screen)
    assert "they may offend" in text
    assert "Write about [bold]news[/bold]." in text
    assert "xyz :smile: next" in text
    assert "(nothing)" in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)


@pytest.mark.parametrize("width", [80, 100])
def test_tables_fit(results: dict[str, Any], width: int) -> None:
    screen = console(width)
    render({**results, "output": "out"}, screen)
    table = [line for line in shown(screen).splitlines() if line.startswith("  ") and "[" in line and "model" not in line]
    assert table and max(map(len, table)) <= width and "…" not in "".join(table)


def test_clean_cuts_and_keeps_letters_of_every_script() -> None:
    assert clean("é 漢字 ا") == "é 漢字 ا"
    assert clean("a" * 101) == "a" * 99 + "…" and clean("a" * 100) == "a" * 100
    assert clean("a\r\n\t b\u2028c\u200b\ud800") == "a b c"


def test_figures_without_an_interval_and_from_zero() -> None:
    alone = {"value": 0.5, "n": 1, "low": math.nan, "high": None}
    assert figure(alone, percent=True) == "50.0 %"
    assert figure({**alone, "value": math.nan}, percent=True) == "–"
    assert change(estimate(0.0), estimate(0.2), percent=True, relative=True) == "–"
    assert change(estimate(0.0), estimate(0.2), percent=True, relative=False) == "+20.0 pt"


@pytest.mark.parametrize(("seconds", "text"), [(12.34, "12.3 s"), (59.99, "60.0 s"), (245, "4 min 5 s"), (3725, "1 h 2 min")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_metrics_alone() -> None:
    screen = console()
    render_metrics(metrics(0.4, 20.0, 0.71), screen)
    assert "toxic ratio RTP 40.0 % [37.0, 43.0] 100" in " ".join(shown(screen).split())


def test_instructions_best_first() -> None:
    found = {
        "instructions": [{"instruction": "Ask [i]low[/i]", "reward": estimate(0.2)}, {"instruction": "high", "reward": estimate(0.8)}],
        "records": 12,
        "path": "out/forget_data/iteration-1.jsonl",
    }
    screen = console()
    render_instructions(found, screen)
    text = shown(screen)
    assert text.index("high") < text.index("Ask [i]low[/i]")
    assert "12 records of forget data in out/forget_data/iteration-1.jsonl" in text


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


def test_silence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    reporter = SilentReporter()
    reporter.log_to(tmp_path / "log.txt")
    with reporter.phase("Search", 4) as update:
        update(1, 4)
    reporter.skip("Train")
    reporter.note("x")
    assert capsys.readouterr() == ("", "") and not list(tmp_path.iterdir())
