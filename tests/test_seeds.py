"""What several seeds have in common, by hand."""

import math
from pathlib import Path

import pytest

from reveal_release.config import RevealConfig, RunConfig, UserError
from reveal_release.metrics.statistics import Estimate
from reveal_release.release.patch import Patch
from reveal_release.seeds import SeveralSeeds, averaged, of_unlearning, over_seeds, plain


def test_an_endpoint_that_does_not_answer_is_told_before_the_original_is_measured(
    tiny_llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reveal = RevealConfig(sources=("seeds", "endpoint"), endpoint="http://localhost:1/v1", endpoint_model="any")
    work = SeveralSeeds(RunConfig(model=tiny_llama, device="cpu", output=str(tmp_path / "out"), reveal=reveal), "compare")
    monkeypatch.setattr(work.task, "measured", lambda *rest: pytest.fail("measured"))
    with pytest.raises(UserError, match="localhost:1"):
        work.measure("original", Patch())


def test_a_figure_that_all_seeds_agree_on_is_as_sure_as_theirs() -> None:
    none = Estimate.proportion(0, 50).to_dict()
    assert over_seeds([none] * 3) == {**none, "n": 3}
    same = Estimate(0.217, 400, 0.178, 0.256).to_dict()
    assert over_seeds([same, {**same, "value": 0.217 + 1e-16}, same]) == pytest.approx({**same, "n": 3}), "but for rounding"
    apart = over_seeds([none, Estimate.proportion(5, 50).to_dict()])
    assert apart["value"] == pytest.approx(0.05) and (apart["low"], apart["high"]) == (0.0, pytest.approx(0.05 + 12.7062 * 0.05, rel=1e-4))
    assert over_seeds([plain(0.0), plain(0.1)])["low"] < 0, "what has no interval may be no share"


def test_an_interval_is_no_narrower_than_the_seeds_own_in_the_mean() -> None:
    """One success more in a seed is no reason to be surer that there are none."""
    none, one = (Estimate.proportion(k, 100).to_dict() for k in (0, 1))
    found = over_seeds([none, none, one])
    assert found["value"] == pytest.approx(1 / 300) and found["low"] == 0.0
    assert found["high"] == pytest.approx((2 * none["high"] + one["high"]) / 3) and found["high"] > none["high"]
    near = [Estimate(value, 100, value - 0.1, value + 0.1).to_dict() for value in (0.646, 0.646, 0.647)]
    assert over_seeds(near)["low"] == pytest.approx(0.646 + 0.001 / 3 - 0.1)


def test_only_metrics_stay_between_0_and_1() -> None:
    """A rise of perplexity may be a fall."""
    pair = [Estimate(0.001, 9, 0.0005, 0.0015).to_dict(), Estimate(0.02, 9, 0.019, 0.021).to_dict()]
    cells = [{"figures": {"prose_rise": one}, "forget": {"toxic_ratio": one}, "retain": {}} for one in pair]
    found = averaged(cells)
    assert found["figures"]["prose_rise"]["low"] == pytest.approx(0.0105 - 12.7062 * 0.0095, rel=1e-4)
    assert found["forget"]["toxic_ratio"]["low"] == 0.0


def test_what_unlearning_takes_leaves_evaluation_out() -> None:
    phases = {"evaluate-0": 1.0, "reveal-1": 2.0, "forget-1": 4.0, "retain": 8.0, "release-1": 16.0, "evaluate-1": 32.0, "real": 64.0,
              "elicit-before": 128.0, "elicit-after": 256.0, "samples": 512.0, "further-2": 1024.0}  # fmt: skip
    assert sorted(of_unlearning(phases)) == [2.0, 4.0, 8.0, 16.0, 64.0, 1024.0]


def test_p_values_have_a_median() -> None:
    values = [plain(value) for value in (0.9, 1e-9, 0.3)]
    found = over_seeds(values, "forget_quality")
    assert (found["value"], found["n"]) == (0.3, 3) and math.isnan(found["low"]) and math.isnan(found["high"])


def test_the_one_figure_that_there_is_stays_as_it_is() -> None:
    one = Estimate(0.5, 40, 0.4, 0.6).to_dict()
    assert over_seeds([one, plain(math.nan)]) == over_seeds([plain(math.nan), one]) == over_seeds([one]) == one
    assert math.isnan(over_seeds([plain(math.nan)] * 2)["value"])


def test_a_text_that_cannot_be_read_is_refused_before_there_is_a_folder(tiny_llama: str, tmp_path: Path) -> None:
    config = RunConfig(model=tiny_llama, output=str(tmp_path / "out"), utility_text=str(tmp_path / "nowhere.txt"))
    with pytest.raises(UserError, match="nowhere.txt' cannot be read"):
        SeveralSeeds(config, "compare")
    assert not (tmp_path / "out").exists()
