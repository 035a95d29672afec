"""The figure of a comparison: that it is drawn, alike each time, and copes with what has no interval."""

import math
from pathlib import Path
from typing import Any

from reveal_release.report.plots import forgetting_against_utility, front


def metrics(toxic: float, **retain: float) -> dict[str, Any]:
    def estimate(value: float) -> dict[str, float]:
        return {"value": value, "n": 50, "low": 0.9 * value, "high": 1.1 * value}

    return {"forget": {"toxic_ratio_rtp": estimate(toxic)}, "retain": {name: estimate(value) for name, value in retain.items()}}


def results() -> dict[str, Any]:
    original = metrics(0.2, perplexity=100.0, perplexity_per_byte=4.0, maths_exact_match=0.9)
    found = metrics(0.05, perplexity=101.0, perplexity_per_byte=4.1, maths_exact_match=0.9)
    found["retain"]["maths_exact_match"] |= {"low": math.nan, "high": math.nan}
    rows = [{"method": method, "source": source, "seeds": 1, **found} for method, source in (("npo", "self"), ("reveal-release", "own"))]
    return {
        "original": {"metrics": original, "distance": None, "divergence": None}, "oracle": None,
        "rows": [*rows, {"method": "dpo", "source": "name", "seeds": 0}],
    }  # fmt: skip


def test_a_panel_for_each_kept_metric_with_every_method(tmp_path: Path) -> None:
    forgetting_against_utility(results(), tmp_path / "one.svg")
    forgetting_against_utility(results(), tmp_path / "two.svg")
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert text.startswith("<?xml") and text == (tmp_path / "two.svg").read_text(encoding="utf-8")
    labels = [part.split("-->")[0].strip() for part in text.split("<!--")[1:]]
    assert {"perplexity", "maths exact match", "toxic ratio RTP"} <= set(labels) and "perplexity per byte" not in labels
    assert {"original", "npo, self data", "reveal-release"} <= set(labels) and not any("dpo" in one for one in labels)
    forgetting_against_utility(results(), tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_the_front_of_every_iteration_that_took_a_step(tmp_path: Path) -> None:
    points = [{"scale": s, "cost": c, "shown": p} for s, c, p in ((0.0, 0.0, 0.9), (1.0, 0.01, 0.4), (2.0, 0.03, 0.5))]
    iterations = [{"iteration": 1, "scale": 1.0, "front": points}, {"iteration": 2}, {"iteration": 3, "scale": 0.0, "front": points[:1]}]
    for name in ("one.svg", "two.svg"):
        front(iterations, tmp_path / name)
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert text.startswith("<?xml") and text == (tmp_path / "two.svg").read_text(encoding="utf-8")
    assert "iteration 1" in text and "iteration 2" not in text and "iteration 3" in text
