"""The tables and the picture of the studies, from hand-made results."""

import math
from pathlib import Path
from typing import Any

import pytest

from reveal_release.report.plots import study_picture
from reveal_release.report.study import FIGURES, ablations_markdown, markdown, render_ablations, render_study

from .conftest import console, estimate, shown

Results = dict[str, Any]


def metrics(toxic: float, perplexity: float) -> Results:
    retain = {"perplexity": estimate(perplexity, 0.01), "degenerate": estimate(0.02, 0.01)}
    return {"forget": {"toxic_ratio_rtp": estimate(toxic, 0.01)}, "retain": retain}


@pytest.fixture
def results() -> Results:
    figures = {name: estimate(0.04, 0.01) for name in FIGURES} | {"seconds": estimate(130.0, 0.01)}
    less = {"figures": {name: estimate(-0.1, 0.01) for name in FIGURES}, **metrics(-0.01, -2.0)}
    lone = {**figures, "subspace_cosine": {"value": 0.25, "n": 1, "low": math.nan, "high": math.nan}}
    return {
        "task": "toxicity", "model": "testbed-llama", "seeds": [0, 1, 2], "forgetting": 0.75, "published": "olora", "output": "out/study",
        "original": metrics(0.2, 100.0),
        "rows": [
            {"variant": "olora", "keep": {"olora": 0.5}, "seeds": 3, "missing": [], "figures": figures, "difference": None,
             **metrics(0.05, 103.0)},
            {"variant": "kl+null-space", "keep": {"kl": 8.0, "null-space": 1.0}, "seeds": 2, "missing": ["seed 1: still shows 30 %"],
             "figures": {**lone, "utility_loss": estimate(0.01, 0.01)}, "difference": less, **metrics(0.04, 101.0)},
            {"variant": "activation-null-space", "keep": {"activation-null-space": 0.9}, "seeds": 0,
             "missing": [f"seed {seed}: still shows 40 %" for seed in range(3)], "difference": None},
        ],
    }  # fmt: skip


def aligned(text: str) -> bool:
    """Whether every row of every table has as many cells as its header."""
    counts = [line.count("|") for line in text.split("\n") if line.startswith("|")]
    breaks = [i for i, line in enumerate(line for line in text.split("\n") if line.startswith("|")) if line.startswith("|---")]
    return all(len(set(counts[start - 1 : end - 1])) == 1 for start, end in zip(breaks, [*breaks[1:], len(counts) + 1], strict=True))


def test_the_whole_table(results: Results) -> None:
    text = markdown(results)
    lines = text.split("\n")
    assert aligned(text) and "takes away 75 % of the answers" in text
    assert '| kl+null-space | {"kl": 8.0, "null-space": 1.0} | 2 of 3 |' in lines
    cost = "4.0 % [3.0, 5.0]"
    assert f"| olora | 0.04 [0.03, 0.05] | {cost} | {cost} | {cost} | {cost} | 130 [130, 130] |" in lines
    # Without O-LoRA itself; a perplexity in its own unit, a share in points.
    less = "-10.0 % [-11.0, -9.0]"
    assert f"| kl+null-space | {less} | {less} | {less} | -2.00 [-2.01, -1.99] | 2.0 % [1.0, 3.0] |" in lines
    assert "| kl+null-space | 0.040 [0.030, 0.050] | 0.250 |" in text, "no interval of one seed"
    assert "| original | 20.0 % [19.0, 21.0] |" in lines and "| olora | 5.0 % [4.0, 6.0] |" in lines
    assert "- activation-null-space, seed 2: still shows 40 %" in lines
    assert "| activation-null-space | 0" not in text, "what was not measured has no figures"


def test_the_terminals_table_fits_and_says_what_comes_next(results: Results) -> None:
    screen = console()
    render_study(results, screen)
    lines = [" ".join(line.split()) for line in shown(screen).split("\n")]
    assert "olora 4.0 % – 0.040 0.040 130 s" in lines
    assert "kl+null-space 1.0 % -10.0 % [-11.0, -9.0] 0.250 0.040 130 s" in lines
    assert "kl+null-space, seed 1: still shows 30 %" in lines
    assert any("out/study/table.md" in line and "out/study/study.svg" in line for line in lines)
    # Of those that were measured in all seeds.
    assert "reveal-release run --config out/study/config.yaml --release.keep '{olora: 0.5}' --output out/study-run" in lines


def test_a_study_that_measured_nothing_has_tables_too(results: Results, tmp_path: Path) -> None:
    results["rows"] = results["rows"][2:]
    assert aligned(markdown(results))
    screen = console()
    render_study(results, screen)
    assert "still shows 40 %" in shown(screen) and "reveal-release run" not in shown(screen)
    study_picture(results, tmp_path / "study.svg")
    assert (tmp_path / "study.svg").is_file()


def test_the_picture_has_every_measured_variant_in_three_panels(results: Results, tmp_path: Path) -> None:
    study_picture(results, tmp_path / "one.svg")
    study_picture(results, tmp_path / "two.svg")
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "two.svg").read_text(encoding="utf-8")
    labels = [part.split("-->")[0].strip() for part in text.split("<!--")[1:]]
    assert {"original", "olora", "kl+null-space", "toxic ratio RTP"} <= set(labels) and "activation-null-space" not in labels
    assert {FIGURES[name] for name in ("prose_rise", "records_rise", "subspace_cosine")} <= set(labels)


def test_ablations() -> None:
    def elicited(value: float, toxic: float, perplexity: float) -> Results:
        found = metrics(toxic, perplexity)
        return {**found, "forget": {**found["forget"], "strongest_elicitation": estimate(value, 0.01)}}

    values = {"iterations": 2.0, "records": 900.0, "rank": 128.0, "norm": 1.5, "seconds": 65.0}
    figures = {name: estimate(value, 0.01) for name, value in values.items()}
    config = {"iterations": 2, "utility_budget": 0.02, "reveal": {"portfolio": 24}, "release": {"rank": 32, "layers": 0.5}}
    results = {
        "task": "code", "model": "testbed-llama", "seeds": [0], "output": "out/ablations", "config": config,
        "missing": ["rank 8, seed 1: the training diverged"],
        "original": elicited(0.6, 0.2, 100.0),
        "rows": [{"variant": "rank 8", "seeds": 1, "figures": figures, **elicited(0.1, 0.03, 101.0)}],
    }  # fmt: skip
    text = ablations_markdown(results)
    assert aligned(text) and "portfolio of 24 instructions, rank 32 and layers 0.5" in text
    assert "| rank 8 | 3.0 % [2.0, 4.0] | 0.10 [0.09, 0.11] |" in text and "| rank 8 | 1 | 2.00 [1.99, 2.01] | 900 [900, 900] |" in text
    screen = console()
    render_ablations(results, screen)
    lines = [" ".join(line.split()) for line in shown(screen).split("\n")]
    assert "original 20.0 % [19.0, 21.0] 0.60 100.0" in lines
    assert "rank 8 3.0 % [2.0, 4.0] 0.10 101.0 128 1 min 5 s" in lines
    assert text.endswith("## Not measured\n\n- rank 8, seed 1: the training diverged\n")
    assert "rank 8, seed 1: the training diverged" in lines and any("out/ablations/table.md" in line for line in lines)
