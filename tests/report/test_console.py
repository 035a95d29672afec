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
    label,
    render,
    render_audit,
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
    assert "20.0 [19.5, 20.5]" in rows["perplexity"] and rows["perplexity"].endswith("+1.0 %")
    assert "71.0 % [68.0, 74.0]" in rows["F1 person"] and rows["F1 person"].endswith("-3.0 pt")
    assert "code pass@1" in rows


def test_what_rises_with_forgetting_says_so(results: dict[str, Any]) -> None:
    """And its change is in points: relative to a p-value of 1e-30 it would be a number of thirty digits."""
    for side, quality in (("before", 1e-30), ("after", 0.6)):
        results[side]["forget"]["forget_quality"] = {"value": quality, "n": 40, "low": math.nan, "high": math.nan}
    screen = console()
    render(results, screen)
    row = next(line for line in shown(screen).splitlines() if "forget quality" in line)
    assert row.split() == "forget quality ↑ 0.0 % 60.0 % +60.0 pt".split()


def test_stops_files_and_commands_are_told(results: dict[str, Any], tmp_path: Path) -> None:
    screen = console()
    render(results, screen)
    text = shown(screen)
    assert "2 iterations in 2 min 3 s, 2.0 GiB of memory, seed 7; stopped: nothing left to reveal" in text
    assert "results.json" in text and "report.html" not in text, "only what is there is listed"
    assert f"  reveal-release evaluate --config {tmp_path}/config.yaml --patch {tmp_path}/patch\n" in text
    assert f"  reveal-release audit --config {tmp_path}/config.yaml --patch {tmp_path}/patch --output {tmp_path}-audit\n" in text
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


@pytest.mark.parametrize(("name", "text"), [
    ("code_pass_at_1", "code pass@1"), ("expected_max_toxicity_rtp", "max toxicity RTP"), ("f1_person", "F1 person"),
    ("pass_rate", "pass rate"), ("expected_value", "expected value"),
])  # fmt: skip
def test_labels(name: str, text: str) -> None:
    assert label(name) == text


@pytest.mark.parametrize(("seconds", "text"), [(12.34, "12.3 s"), (59.99, "60.0 s"), (245, "4 min 5 s"), (3725, "1 h 2 min")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


TOXICITY = {
    "forget": {
        "toxic_ratio_rtp": (0.193, 0.157, 0.234), "mean_toxicity_rtp": (0.216, 0.18, 0.252),
        "expected_max_toxicity_rtp": (0.566, 0.478, 0.655), "toxic_ratio_neutral": (0.297, 0.248, 0.351),
        "mean_toxicity_neutral": (0.338, 0.291, 0.384), "expected_max_toxicity_neutral": (0.876, 0.811, 1.0),
    },
    "retain": {
        "perplexity": (1266.14, 1237.73, 1299.27), "perplexity_per_byte": (4.476, 4.321, 4.625), "f1_person": (0.533, 0.343, 0.706),
        "f1_other_types": (0.553, 0.364, 0.659), "unparsed_answers": (0.005, 0.002, 0.016), "code_pass_at_1": (1.0, 0.963, 1.0),
        "maths_exact_match": (0.973, 0.933, 0.99), "distinct_2": (0.949, 0.941, 0.956), "degenerate": (0.024, 0.015, 0.039),
    },
}  # fmt: skip


def test_every_figure_of_the_toxicity_task_is_one_line_of_80_columns(results: dict[str, Any]) -> None:
    """As measured on a small model; a label that wraps, or a figure that is cut, is another line."""
    measured = {
        part: {name: dict(zip(("value", "low", "high", "n"), (*e, 100), strict=True)) for name, e in rows.items()}
        for part, rows in TOXICITY.items()
    }
    screen = console(80)
    render({**results, "before": measured, "after": measured}, screen)
    table = shown(screen).partition("forget (should fall)")[2].partition("Samples.")[0]
    rows = [line for line in table.splitlines() if line.strip() and not line.startswith("retain (should stay)")]
    assert len(rows) == sum(map(len, TOXICITY.values())) + 1 == 16
    assert all("[" in row and "]" in row and "…" not in row and len(row) <= 80 for row in rows)
    assert [row.split("  ")[1] for row in rows][3:7] == ["toxic ratio neutral", "mean toxicity neutral", "max toxicity neutral",
                                                         "strongest elicitation"]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (266.14, 237.73, 299.27, "266 [238, 299]"),
        (99.94, 95.0, 104.0, "99.9 [95.0, 104.0]"),
        (10.0, 9.456, 10.5, "10.0 [9.5, 10.5]"),
        (9.456, 9.0, 10.0, "9.46 [9.00, 10.00]"),
    ],
)
def test_large_figures_have_fewer_decimals(value: float, low: float, high: float, text: str) -> None:
    assert figure({"value": value, "n": 9, "low": low, "high": high}, percent=False) == text


def test_metrics_of_a_suite() -> None:
    screen = console()
    render_metrics({"humaneval": {"pass_at_1": estimate(0.4), "pass_at_10": estimate(0.8)}}, screen)
    assert "humaneval pass@1 40.0 % [37.0, 43.0] 100 pass@10 80.0 %" in " ".join(shown(screen).split())


def test_metrics_alone() -> None:
    screen = console()
    render_metrics(metrics(0.4, 20.0, 0.71), screen)
    assert "toxic ratio RTP 40.0 % [37.0, 43.0] 100" in " ".join(shown(screen).split())


def test_instructions_best_first() -> None:
    found = {
        "instructions": [{"instruction": "Ask [i]low[/i]", "reward": estimate(0.2)}, {"instruction": "high", "reward": estimate(0.8)}],
        "records": 12,
        "path": "out/forget_data/iteration-1.jsonl",
        "exports": [
            {"format": "a", "set": "forget", "records": 12, "path": "out/export/a/forget.jsonl", "left_out": 0, "holds": "x"},
            {"format": "a", "set": "retain", "records": 0, "path": None, "left_out": 7, "holds": "one turn"},
        ],
    }
    screen = console()
    render_instructions(found, screen)
    text = shown(screen)
    assert "a, forget set: 12 records, in out/export/a/forget.jsonl\n" in text
    assert "a, retain set: 0 records, so no file; 7 left out, as it holds only one turn\n" in text
    assert text.index("high") < text.index("Ask [i]low[/i]")
    assert "12 records of forget data in out/forget_data/iteration-1.jsonl" in text


@pytest.fixture
def audited() -> dict[str, Any]:
    def attack(reward: float, share: float) -> dict[str, Any]:
        told = {"reward": estimate(reward), "share": estimate(share)}
        return {**told, "by_seed": [{"reward": estimate(reward)}, {"reward": estimate(reward / 2)}]}

    strongest = [{"instruction": "Ask [i]so[/i]\x1b[31m", "original": attack(0.8, 0.9), "released": attack(0.1, 0.02)}]
    return {
        "task": "toxicity", "model": "testbed-llama", "patch": "out/[b]patch", "output": "out/audit", "evaluations": 144,
        "seeds": [11, 12], "calls": {"original": 900, "released": 800}, "seconds": {"a": 62.0, "b": 3.0}, "strongest": strongest,
        "attacks": {
            "search": {"original": attack(0.8, 0.9), "released": attack(0.1, 0.02)},
            "few_shot": {"original": attack(0.7, 0.75), "released": attack(0.2, 0.125)},
            "prefix": {"original": attack(0.6, 0.55), "released": attack(0.15, 0.1), "control": estimate(0.06)},
            "quantise": {
                "level": "4-bit weights", "original": attack(0.7, 0.7), "released": attack(0.3, 0.25),
                "before": {"released": attack(0.1, 0.02)},
                "levels": [{"level": f"{bits}-bit weights", "released": attack(0.1, share)} for bits, share in ((8, 0.03), (4, 0.25))],
            },
            "relearn": {
                "before": {side: attack(0.3, 0.2) for side in ("original", "released", "oracle")},
                "levels": [{"level": "100 harmless answers", **{side: attack(0.3, 0.4) for side in ("original", "released", "oracle")}}],
            },
        },
        "drawn_out": ["few_shot"], "verdict": "Still drawn out: by [i]examples[/i].",
    }  # fmt: skip


def test_an_audit_by_attack_then_the_instructions_then_the_verdict(audited: dict[str, Any]) -> None:
    screen = console()
    render_audit(audited, screen)
    text = shown(screen)
    assert "Audit: toxicity, testbed-llama with out/[b]patch" in text
    assert "2 searches of 144 instructions in 1 min 5 s\ncalls: 900 answers of the original, 800 of the released model\n" in text
    rows = {line[2:].split("  ")[0]: " ".join(line.split()) for line in text.splitlines() if line.startswith("  ")}
    assert rows["search 2, best"].endswith("best 0.40 [0.37, 0.43] 0.05 [0.02, 0.08]")
    assert rows["examples in the context"].endswith("context 0.70 [0.67, 0.73] 0.20 [0.17, 0.23] 75 % → 12 %")
    assert rows["first tokens given"].endswith("55 % → 10 %") and "The given tokens themselves score 0.06 [0.03, 0.09]." in text
    assert rows["4-bit weights"].endswith("70 % → 25 %") and "in 2 %, 8-bit weights 3 %, 4-bit weights 25 %.\n" in text
    assert rows["nothing"].count("20 % [17, 23]") == rows["100 harmless answers"].count("40 % [37, 43]") == 3
    assert "0.80 [0.77, 0.83]  0.10 [0.07, 0.13]  Ask [i]so[/i]" in text
    assert text.index("Ask [i]so[/i]") < text.index("Still drawn out: by [i]examples[/i].") and "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_an_attack_that_could_not_be_made(audited: dict[str, Any]) -> None:
    screen = console()
    render_audit({**audited, "attacks": {**audited["attacks"], "few_shot": None, "prefix": None}}, screen)
    rows = [line.split() for line in shown(screen).splitlines() if line.startswith(("  examples", "  first"))]
    assert [row[-3:] for row in rows] == [["–"] * 3] * 2 and "themselves" not in shown(screen)


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
