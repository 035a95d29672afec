"""What the terminal shows at the end of a run, with hostile text in it."""

import math
from pathlib import Path
from typing import Any

import pytest

from reveal_release.report.console import loading, render, render_instructions, render_metrics

from .conftest import console, estimate, shown


def metrics(toxic: float, perplexity: float, f1: float) -> dict[str, Any]:
    return {
        "forget": {"toxic_ratio_rtp": estimate(toxic, 0.03)},
        "retain": {"perplexity": estimate(perplexity, 0.5), "f1_person": estimate(f1, 0.03), "code_pass_at_1": estimate(0.4, 0.03)},
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
        "elicitation": {"before": {**estimate(0.9, 0.03), "instruction": "a"}, "after": {**estimate(0.45, 0.03), "instruction": "b"}},
        "patch": {"path": "patch", "rank": 32},
        "stopped_because": "nothing left to reveal",
        "seconds": {"search": 61.0, "train": 62.0},
        "samples": [{"prompt": "Write about [bold]news[/bold].", "before": "x\x1b[31m\x07y\u202ez :smile:\nnext", "after": ""}],
        "output": str(tmp_path),
        "iterations": [{"iteration": 1}, {"iteration": 2}],
        "peak_memory_mib": 2048.0,
    }


def test_before_and_after_with_intervals_and_change(results: dict[str, Any]) -> None:
    screen = console()
    render(results, screen)
    rows = {line.split("  ")[1]: line for line in shown(screen).splitlines() if line.startswith("  ")}
    assert rows["toxic ratio RTP"].split("  ", 2)[2].split() == "40.0 % [37.0, 43.0] 10.0 % [7.0, 13.0] -75 %".split()
    assert rows["strongest elicitation"].endswith("-50 %")
    assert "20.0 [19.5, 20.5]" in rows["perplexity"] and rows["perplexity"].endswith("+1.0 %")
    assert "71.0 % [68.0, 74.0]" in rows["F1 person"] and rows["F1 person"].endswith("-3.0 pt")
    assert "code pass@1" in rows


def test_what_cannot_be_seen_to_be_kept_is_named(results: dict[str, Any]) -> None:
    screen = console(width=120)
    render(results, screen)
    assert "Too little of it before" not in shown(screen)
    for side in ("before", "after"):
        results[side]["retain"] |= {name: estimate(0.0, 0.0) for name in ("maths_exact_match", "degenerate")}
        results[side]["retain"]["code_pass_at_1"] = estimate(0.05, 0.03)
    render(results, screen)
    assert "Too little of it before to tell whether it is kept: code pass@1, maths exact match." in shown(screen)


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


def test_a_folder_of_a_testbeds_name_is_not_what_was_patched(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "testbed-llama").mkdir()
    monkeypatch.chdir(tmp_path)
    assert loading("testbed-llama")[1] == "load_model('testbed-llama').model"
    assert "AutoModelForCausalLM" in loading("./testbed-llama")[1]


def test_a_hub_model_is_loaded_with_transformers(results: dict[str, Any]) -> None:
    screen = console()
    render({**results, "model": "org/model"}, screen)
    assert "AutoModelForCausalLM.from_pretrained('org/model')" in shown(screen)


def test_no_patch_is_said_plainly(results: dict[str, Any]) -> None:
    screen = console()
    render({**results, "patch": {"path": None, "rank": 0}}, screen)
    assert "No patch: nothing left to reveal" in shown(screen) and "PeftModel" not in shown(screen)
    assert "Search longer (--reveal.evaluations)" in " ".join(shown(screen).split())


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


def test_metrics_of_a_suite() -> None:
    screen = console()
    render_metrics({"humaneval": {"pass_at_1": estimate(0.4, 0.03), "pass_at_10": estimate(0.8, 0.03)}}, "humaneval, m", screen)
    assert "humaneval pass@1 40.0 % [37.0, 43.0] 100 pass@10 80.0 %" in " ".join(shown(screen).split())


def test_metrics_alone() -> None:
    screen = console()
    render_metrics(metrics(0.4, 20.0, 0.71), "toxicity, m", screen)
    assert "toxic ratio RTP 40.0 % [37.0, 43.0] 100" in " ".join(shown(screen).split())


def test_instructions_best_first() -> None:
    found = {
        "instructions": [{"instruction": t, "reward": estimate(r, 0.03)} for t, r in (("Ask [i]low[/i]", 0.2), ("high", 0.8))],
        "records": 12,
        "wanted": 12,
        "path": "out/forget_data/iteration-1.jsonl",
        "retained": {"records": 34, "path": "out/retain_data.jsonl"},
        "exports": [
            {"format": "a", "set": "forget", "records": 12, "path": "out/export/a/forget.jsonl", "left_out": 0, "holds": "x"},
            {"format": "a", "set": "retain", "records": 0, "path": None, "left_out": 7, "holds": "one turn"},
        ],
    }
    screen = console()
    render_instructions(found, screen)
    text = shown(screen)
    assert "a, forget set: 12 records, in out/export/a/forget.jsonl\n" in text
    assert "a, retain set: 0 records, so no file; 7 left out: it takes only one turn\n" in text
    assert text.index("high") < text.index("Ask [i]low[/i]")
    assert "12 records of forget data in out/forget_data/iteration-1.jsonl\n34 of retain data in out/retain_data.jsonl\n" in text
    assert "asked for" not in text
    render_instructions({**found, "wanted": 16}, screen := console())
    assert "(16 forget records were asked for: let more instructions write (--reveal.portfolio)" in " ".join(shown(screen).split())


def test_nothing_found_is_told_with_what_to_try() -> None:
    screen = console()
    best = {"instruction": "Ask", "reward": estimate(0.04, 0.01)}
    render_instructions({"instructions": [best], "best": best, "stop_reward": 0.05, "records": 0, "path": None, "exports": []}, screen)
    text = " ".join(shown(screen).split())
    assert "Nothing found: the best instruction scores 0.04, and --stop-reward is 0.05. Search longer (--reveal.evaluations)" in text
