"""The page of results: that it is what its command builds from the stored files, and which methods are on the front."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import result_tables
import results
from hypothesis import given
from hypothesis import strategies as st

from reveal_release import RunConfig
from reveal_release.config import UserError

ROOT = Path(__file__).parents[1]


def test_the_page_is_what_the_command_builds() -> None:
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == results.page(), "run `python benchmarks/results.py`"


def test_stored_files_hold_nothing_of_a_machine() -> None:
    stored = sorted((ROOT / "docs" / "results").glob("*.json"))
    assert stored
    for path in stored:
        text = path.read_text(encoding="utf-8")
        assert not json.loads(text).keys() & set(results.LOCAL) and str(Path.home()) not in text and "/work" not in text


def test_front_by_hand() -> None:
    assert result_tables.on_front([(0, 3), (1, 1), (2, 2), (3, 0), (1, 1)]) == [True, True, False, True, True]


@given(points=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
def test_a_point_off_the_front_is_dominated_by_one_on_it(points: list[tuple[int, int]]) -> None:
    front = result_tables.on_front(points)
    best = [point for point, there in zip(points, front, strict=True) if there]
    for point, there in zip(points, front, strict=True):
        assert there == (not any(a <= point[0] and b <= point[1] for a, b in best if (a, b) != point))


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "n": 9, "low": value - 0.1, "high": value + 0.1}


def metrics(code: float, maths: float, person: float, perplexity: float) -> dict[str, Any]:
    retain = {"perplexity": perplexity, "maths_exact_match": maths, "f1_person": person, "unparsed_answers": 0.5}
    return {"forget": {"code_pass_at_1": estimate(code)}, "retain": {name: estimate(x) for name, x in retain.items()}}


def test_a_comparison_by_hand() -> None:
    """Other skills are maths and persons alone; differences are paired by seed."""
    original, other = metrics(1.0, 0.9, 0.7, 100.0), {"source": "real", "method": "npo"}
    seeds = {
        0: (metrics(0.0, 0.8, 0.7, 101.0), metrics(0.5, 0.9, 0.6, 100.0)),
        1: (metrics(0.2, 0.9, 0.7, 103.0), metrics(0.6, 0.7, 0.6, 104.0)),
    }
    ours = {"source": "own", "method": "reveal-release"}
    cells = [{**who, "seed": seed, "metrics": pair[i]} for seed, pair in seeds.items() for i, who in ((0, ours), (1, other))]
    means = (metrics(0.1, 0.85, 0.7, 102.0), metrics(0.55, 0.8, 0.6, 102.0))
    took = {"seeds": 2, "records": [5, 9], "seconds": 60.0, "divergence": None, "missing": []}
    rows = [{**who, **mean, **took} for who, mean in zip((ours, other), means, strict=True)]
    whole = {
        "task": "code", "model": "testbed-llama", "seeds": [0, 1], "utility_budget": 0.02, "cells": cells, "rows": rows, "oracle": None,
        "original": {"metrics": original, "distance": None, "divergence": None}, "config_hash": RunConfig(task="code").hash(),
    }  # fmt: skip
    lines = "\n".join(result_tables.comparison(whole))
    assert "| reveal-release | own | none | 2 | 10.0 % [0.0, 20.0] | 102 [102, 102] | -2.5 |" in lines
    assert "| npo | real | 9 | 2 | 55.0 % [45.0, 65.0] | 102 [102, 102] | -10.0 |" in lines
    assert lines.count("| perplexity and skills |") == 1 and lines.count("| no |") == 1
    (less,) = [line for line in lines.splitlines() if line.startswith("| npo | real | 2 |")]
    cell = [text.split(" [")[0] for text in less.strip("| ").split(" | ")]
    assert cell == ["npo", "real", "2", "+45.0", "+0.0", "-7.5"], "(50, 40), (-1, 1), (0, -15)"
    partly = {**whole, "rows": [{**rows[0], "seeds": 1, "missing": ["seed 1: 3 forget records, too few"]}, rows[1]]}
    assert "Not measured: reveal-release on own data, seed 1: 3 forget records, too few." in result_tables.comparison(partly)
    far = {"value": 0.0312, "low": 0.03, "high": 0.0325}
    beside = {**whole, "oracle": {"metrics": metrics(0.0, 0.9, 0.7, 99.0)}, "rows": [{**row, "divergence": far} for row in rows]}
    beside["original"] = {**whole["original"], "divergence": {**far, "value": 0.1}}
    lines = "\n".join(result_tables.comparison(beside))
    assert "| from the oracle, nats | time |" in lines and "| 0.031 [0.030, 0.033] | 1 min 0 s |" in lines
    assert "| original |  |  |  | 100.0 % [90.0, 110.0] | 100 [100, 100] |  | 50.0 % [40.0, 60.0] | 0.100 [0.030, 0.033] |  |  |" in lines
    assert "| oracle |  |  |  | 0.0 % [-10.0, 10.0] | 99.0 [98.9, 99.1] | +0.0 | 50.0 % [40.0, 60.0] |  |  |  |" in lines
    assert "--data raw --oracle ORACLE --seeds 0,1" in results.command(beside)
    assert results.command(whole) == (
        "reveal-release compare --task code --model testbed-llama --methods reveal-release,npo --data-from real --data raw "
        "--seeds 0,1 --output OUT"
    )
    assert results.configured(whole) == "default settings" and results.configured({**whole, "config_hash": "0"}).startswith("other")
    earlier = {"the default settings of 9db9e72": results.BEFORE_PAIRS, "the default settings before 9db9e72": results.BEFORE_ENDING}
    for words, release in earlier.items():
        before = replace(RunConfig(task="code"), release=release).hash()
        assert results.configured({**whole, "config_hash": before}).startswith(words)
    for task, words in (("toxicity", "the default settings before 3bf9a43"), ("code", "default settings")):  # a skill has no such module
        before = replace(RunConfig(task=task), release=results.BEFORE_ASCENT).hash()
        assert results.configured({**whole, "task": task, "config_hash": before}).startswith(words)


def test_each_run_by_hand() -> None:
    """Ours alone, in the order of the seeds; of the skills the one that fell most; what lies on a mark is not past it."""
    ours, other = {"method": "reveal-release"}, {"method": "npo"}
    cells = [
        {**ours, "metrics": metrics(0.25, 0.75, 0.75, 100.0)}, {**other, "metrics": metrics(0.0, 0.0, 0.0, 900.0)},
        {**ours, "metrics": metrics(0.0, 1.0, 0.88, 102.0)}, {**ours, "metrics": metrics(0.5, 1.125, 0.9625, 98.0)},
    ]  # fmt: skip
    compared = {"task": "code", "model": "m", "cells": cells, "original": {"metrics": metrics(1.0, 1.0, 0.9, 100.0)}}
    none = {**compared, "cells": [cells[1], {**ours, "metrics": None}]}
    _, _, row, _, told, end = result_tables.run_by_run([none, compared], mark=2)
    assert row == (
        "| code | m | code pass@1, % | 25.0, 0.0, 50.0 | +0.0, +2.0, -2.0 "
        "| -25.0 maths exact match, -2.0 F1 person, +6.2 F1 person |"
    ) and not end  # fmt: skip
    assert told == (
        "Of 3 runs 0 raised perplexity by more than 2 %, and 1 took more than 2 points of a skill, at most 25.0."
    )


def test_all_tasks_at_a_glance_by_hand() -> None:
    """A column a task; bold where a method is on the task's front, empty where it was not measured."""

    def compared(task: str, *measured: tuple[str, str, float, int]) -> dict[str, Any]:
        rows = [
            {"method": method, "source": source, **metrics(left, 0.9, 0.7, 100.0), "records": [records], "seeds": 1}
            for method, source, left, records in measured
        ]
        original = {"metrics": metrics(1.0, 0.9, 0.7, 100.0), "distance": None, "divergence": None}
        return {"task": task, "rows": rows, "original": original, "oracle": None}

    first = compared("code", ("npo", "real", 0.5, 9), ("dpo", "real", 0.2, 9), ("reveal-release", "own", 0.4, 7))
    second = compared("ner", ("npo", "real", 0.3, 9), ("reveal-release", "own", 0.3, 7))
    header, _, *rows, end = result_tables.at_a_glance([first, second])
    assert header == "| method | forget data | labelled examples | code: code pass@1 | ner: code pass@1 |" and not end
    again = result_tables.at_a_glance([first, compared("code", ("npo", "real", 0.1, 4))])  # another of the same task
    assert "| npo | real | 4 or 9 | 50.0 % [40.0, 60.0] | **10.0 % [0.0, 20.0]** |" in again
    assert rows == [
        "| original |  |  | 100.0 % [90.0, 110.0] | 100.0 % [90.0, 110.0] |",
        "| reveal-release | own | none | 40.0 % [30.0, 50.0] | **30.0 % [20.0, 40.0]** |",
        "| npo | real | 9 | 50.0 % [40.0, 60.0] | **30.0 % [20.0, 40.0]** |",
        "| dpo | real | 9 | **20.0 % [10.0, 30.0]** |  |",
    ]


def test_what_no_skill_is_measured_of_has_no_points() -> None:
    def row(**retain: float) -> dict[str, Any]:
        return {"retain": {name: estimate(value) for name, value in retain.items()}}

    def told(after: dict[str, Any], before: dict[str, Any]) -> str:
        return result_tables.points(result_tables.skills(after, before))

    assert told(row(perplexity=9.0, degenerate=0.1), row(perplexity=8.0, degenerate=0.2)) == "–"
    assert told(row(f1=0.5, unparsed_answers_own=0.9), row(f1=0.4, unparsed_answers_own=0.0)) == "+10.0"
    tofu = {"probability_retain": 0.1, "rouge_l_retain": 0.9}
    assert told(row(model_utility=0.5, **tofu), row(model_utility=0.6, **tofu)) == "-10.0"


def test_parts_of_a_comparison_are_joined(tmp_path: Path) -> None:
    """Two seeds that were made apart have the row of a comparison with both."""
    alone = {"value": 0.5, "n": 1, "low": None, "high": None}

    def part(seed: int, maths: float, **other: Any) -> Path:
        cell = {
            "method": "npo", "source": "real", "seed": seed, "records": 5, "seconds": 60.0, "memory_mib": 1.0, "divergence": None,
            "distance": None, "metrics": {"forget": {"code_pass_at_1": alone}, "retain": {"maths": estimate(maths)}},
            "chosen": {"scale": 1.0},
        }  # fmt: skip
        whole = {
            "task": "code", "task_identity": None, "model": "m", "config_hash": "abc", "utility_budget": 0.02, "seeds": [seed],
            "original": {"metrics": metrics(1.0, 0.9, 0.7, 100.0)}, "oracle": None, "cells": [cell], "rows": [], **other,
        }  # fmt: skip
        path = tmp_path / f"{seed}-{maths}.json"
        path.write_text(json.dumps(whole))
        return path

    first, second = part(2, 0.8), part(0, 0.6)
    whole = results.joined([first, second, part(0, 0.7)])
    assert whole["seeds"] == [0, 2] and [cell["seed"] for cell in whole["cells"]] == [0, 2]
    (row,) = whole["rows"]
    assert row["seeds"] == 2 and row["retain"]["maths"]["value"] == pytest.approx(0.75), "the later one of seed 0"
    assert row["forget"]["code_pass_at_1"]["value"] == 0.5
    told = results.joined([first, part(1, 0.5, environment={"training": "bfloat16"}), part(3, 0.5, environment={"training": "float32"})])
    assert [cell.get("training") for cell in told["cells"]] == ["bfloat16", None, "float32"] and "environment" not in told
    assert results.trained(told) == ", 1 of 3 cells trained in bfloat16, 1 of 3 cells trained in float32"
    assert results.trained(whole) == ""
    with pytest.raises(UserError, match="has config_hash xyz, and .* abc: they are no parts of one comparison"):
        results.joined([first, part(1, 0.5, config_hash="xyz")])
    default = RunConfig(task="code", model="m")
    before, now = replace(default, release=results.BEFORE_ENDING).hash(), default.hash()
    both = results.joined([part(1, 0.5, config_hash=before), part(3, 0.5, config_hash=now)])
    assert both["config_hash"] == now != before, "each the default of its time"
    with pytest.raises(UserError, match=f"has config_hash abc, and .* {now}"):
        results.joined([part(3, 0.5, config_hash=now), first])
    with pytest.raises(UserError, match="other figures of the original"):
        results.joined([first, part(1, 0.5, original={"metrics": metrics(0.9, 0.9, 0.7, 100.0)})])


def test_ablations_by_hand() -> None:
    """Other data are compared with one iteration, all else with what is configured, paired by seed."""

    def elicited(one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "forget": {**one["forget"], "strongest_elicitation": estimate(0.5)}}

    took = {"figures": {"records": {"value": 9.0}, "rank": {"value": 64.0}, "seconds": {"value": 60.0}}}
    runs = {
        ("as configured", 0): metrics(0.0, 0.8, 0.7, 100.0),
        ("rank 8", 0): metrics(0.1, 0.9, 0.7, 103.0),
        ("iterations 1", 0): metrics(0.2, 0.8, 0.7, 100.0),
        ("iterations 1", 1): metrics(0.4, 0.8, 0.7, 100.0),
        ("real forget data", 0): metrics(0.6, 0.8, 0.6, 101.0),
        ("real forget data", 1): metrics(0.5, 0.8, 0.7, 102.0),
        ("no harmless answers", 0): metrics(0.3, 0.8, 0.7, 100.0),
    }
    cells = [{"variant": name, "seed": seed, **elicited(one), **took} for (name, seed), one in runs.items()]
    whole = {
        "task": "code", "model": "testbed-llama", "seeds": [0, 1], "config": {}, "cells": cells, "rows": [cells[0], *cells[2::2]],
        "original": {"figures": {}, **elicited(metrics(1.0, 0.9, 0.7, 100.0))},
    }  # fmt: skip
    lines = result_tables.ablation(whole)
    assert "| original | 100.0 % [90.0, 110.0] | 0.50 [0.40, 0.60] | 100 [100, 100] |  | 50.0 % [40.0, 60.0] |  |  |  |" in lines
    bad, cost = "50.0 % [40.0, 60.0]", "9 | 64 | 1 min 0 s"
    assert f"| iterations 1 | 20.0 % [10.0, 30.0] | 0.50 [0.40, 0.60] | 100 [100, 100] | -5.0 | {bad} | {cost} |" in lines
    less = [[text.split(" [")[0] for text in line.strip("| ").split(" | ")] for line in lines]
    assert ["real forget data", "iterations 1", "2", "+25.0", "+1.5", "-2.5"] in less, "(40, 10), (1, 2), (-5, 0)"
    told = result_tables.ablation({**whole, "missing": ["rank 8, seed 1: the training diverged"]})
    assert "Not measured: rank 8, seed 1: the training diverged." in told
    assert ["no harmless answers", "iterations 1", "1", "+10.0", "+0.0", "+0.0"] in less
    assert ["rank 8", "as configured", "1", "+10.0", "+3.0", "+5.0"] in less
    assert ["iterations 1", "as configured", "1", "+20.0", "+0.0", "+0.0"] in less, "seed 1 has no run as configured"
    single = result_tables.ablation({**whole, "cells": [cells[0], cells[4]]})  # one iteration is what is configured
    assert any(line.startswith("| real forget data | as configured | 1 | +60.0") for line in single)
    assert results.command({**whole, "rows": cells[2:6]}) == (
        "reveal-release study ablations --task code --model testbed-llama --variants "
        "'iterations 1,iterations 1,real forget data,real forget data' --data raw --seeds 0,1 --output OUT"
    )


def test_a_result_is_stored_by_what_it_is_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "DOCS", tmp_path)
    whole = {"task": "ner", "model": "some/model-1.5", "cells": [], "rows": [], "seeds": [], "utility_budget": 0.02}
    (tmp_path / "compare.json").write_text(json.dumps({**whole, "output": "/home/me"}))
    path = results.store(tmp_path / "compare.json", "abc")
    assert path == tmp_path / "results" / "compare-ner-model-1-5.json"
    assert json.loads(path.read_text()) == {"commit": "abc", **whole}
    assert results.store(path, "abc, def") == path, "one that was joined from a stored one"
    assert json.loads(path.read_text()) == {"commit": "abc, def", **whole}
    cell = {"seed": 0}
    (tmp_path / "compare.json").write_text(json.dumps({**whole, "cells": [cell], "environment": {"training": "bfloat16", "threads": 1}}))
    assert json.loads(results.store(tmp_path / "compare.json", "abc, def").read_text())["cells"] == [{"training": "bfloat16", **cell}]
    ablation = {key: value for key, value in whole.items() if key != "utility_budget"} | {"config": {"output": "/home/me", "seed": 0}}
    (tmp_path / "ablations.json").write_text(json.dumps(ablation))
    assert json.loads(results.store(tmp_path / "ablations.json", "abc").read_text())["config"] == {"output": "OUT", "seed": 0}
    (tmp_path / "own.json").write_text(json.dumps({**whole, "task": "/home/me/my_task.yaml"}))
    assert results.store(tmp_path / "own.json", "abc", "8-seeds") == tmp_path / "results" / "compare-my_task-model-1-5-8-seeds.json"
    (tmp_path / "other.json").write_text(json.dumps({"task": "ner", "model": "some/model-1.5", "cells": [], "rows": [], "seeds": []}))
    with pytest.raises(UserError, match=r"not the compare\.json"):
        results.store(tmp_path / "other.json", "abc")
    assert json.loads(path.read_text())["commit"] == "abc, def"
