"""The tables of a comparison from hand-made results."""

from typing import Any

import pytest

from reveal_release.report.comparison import broken, entries, markdown, render_comparison

from . import conftest
from .conftest import console, shown

Results = dict[str, Any]


def estimate(value: float) -> dict[str, float]:
    return conftest.estimate(value, 0.1 * value)


def metrics(toxic: float, perplexity: float) -> Results:
    retain = {"perplexity": estimate(perplexity), "maths_exact_match": estimate(0.9), "degenerate": estimate(0.02)}
    return {"forget": {"toxic_ratio_rtp": estimate(toxic), "mean_toxicity_rtp": estimate(toxic / 2)}, "retain": retain}


@pytest.fixture
def results() -> Results:
    far = {"forget": {"toxic_ratio_rtp": 0.02, "mean_toxicity_rtp": 0.01},
           "retain": {"perplexity": 1.5, "maths_exact_match": 0.0, "degenerate": 0.0}}  # fmt: skip
    chosen = {"learning_rate": 7e-4, "strength": 0.1, "scale": 1.5, "cost": 0.019, "shown": 0.1}
    row = {"distance": far, "divergence": estimate(0.1), "seconds": 65.0, "memory_mib": 2048.0}
    return {
        "task": "toxicity", "model": "testbed-llama", "seeds": [0, 1], "utility_budget": 0.02, "output": "out/compare",
        "original": {"metrics": metrics(0.2, 100.0), "distance": far, "divergence": estimate(0.2)},
        "oracle": {"model": "oracle", "metrics": metrics(0.01, 99.0)},
        "rows": [
            {"method": "npo", "source": "real", "seeds": 2, "records": [512, 500], "chosen": [chosen] * 2, "missing": [],
             **metrics(0.06, 101.3), **row},
            {"method": "npo", "source": "name", "seeds": 0, "records": [3, 0],
             "missing": ["seed 0: 3 forget records", "seed 1: 0 forget records"]},
            {"method": "reveal-release", "source": "own", "seeds": 2, "records": [512, 512], "missing": [],
             "chosen": [{"scale": [1.2, 0.4], "cost": 0.0}] * 2, **metrics(0.04, 101.0), **row},
        ],
    }  # fmt: skip


def test_the_whole_table(results: Results) -> None:
    text = markdown(results)
    lines = text.split("\n")
    for title in ("Forgotten", "Kept", "Distance to the oracle", "What it took"):
        assert sum(line.startswith(f"## {title}") for line in lines) == 1
    assert "| original |  | 20.0 % [18.0, 22.0] | 10.0 % [9.0, 11.0] |" in lines
    assert "| oracle |  | 1.0 % [0.9, 1.1] | 0.5 % [0.5, 0.5] |" in lines
    assert "| npo | real | 6.0 % [5.4, 6.6] | 3.0 % [2.7, 3.3] |" in lines
    assert "| npo | real | 101 [91, 111] | 90.0 % [81.0, 99.0] | 2.0 % [1.8, 2.2] |" in lines
    assert "| npo | real | 0.100 [0.090, 0.110] | 0.02 | 0.01 | 1.5 | 0 | 0 |" in lines
    assert any(line.startswith("| npo | real | 512 | 512, 500 | 1 min 5 s | 2.0 GiB |") for line in lines)
    assert "rate 0.0007, strength 0.1, scale 1.5, cost 0.019; rate" in text and "scale 1.2, 0.4" in text
    assert "| npo | name | none | 3, 0 | – | – |  | seed 0: 3 forget records; seed 1: 0 forget records |" in lines
    assert "npo | name | 0" not in text, "what was not measured has no figures"
    tables = [line for line in lines if line.startswith("|")]
    for header in (i for i, line in enumerate(tables) if line.startswith("|---")):
        assert tables[header].count("|") == tables[header - 1].count("|") == tables[header + 1].count("|")


def test_without_an_oracle_there_is_no_distance(results: Results) -> None:
    results["oracle"] = None
    assert "oracle" not in markdown(results)
    assert [name for name, _, _ in entries(results)] == ["original", "npo", "reveal-release"]


def test_the_terminals_table_is_short_and_names_the_files(results: Results) -> None:
    screen = console(100)
    render_comparison(results, screen)
    text = shown(screen)
    lines = [" ".join(line.split()) for line in text.split("\n")]
    assert max(map(len, text.split("\n"))) <= 100
    assert "original 20.0 % [18.0, 22.0] +0.0 % 2.0 % 0.200" in lines and "oracle 1.0 % [0.9, 1.1] -1.0 % 2.0 %" in lines
    assert "npo real 6.0 % [5.4, 6.6] +1.3 % 2.0 % 0.100" in lines and "1 min 5 s" not in text
    assert "npo on name data, seed 1: 0 forget records" in text
    assert "out/compare/table.md" in text and "out/compare/compare.svg" in text


def test_broken_is_the_first_that_a_task_measures() -> None:
    assert broken({"retain": {"unparsed_answers": 1, "degenerate": 2}}) == 2
    assert broken({"retain": {"unparsed_answers": 1}}) == 1 and broken({"retain": {}}) is None
