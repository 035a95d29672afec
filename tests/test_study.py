"""Whole studies of tiny random models: what is written, that they go on, and that what is compared forgets equally much."""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reveal_release import equal_forgetting
from reveal_release.config import ReleaseConfig, RevealConfig, RunConfig, Unfit, UserError
from reveal_release.dataset import HELD_BACK, split
from reveal_release.equal_forgetting import Bench, equally_forgetting
from reveal_release.files import _strict
from reveal_release.models import load_model
from reveal_release.parsers import build_parser
from reveal_release.release.adapter import load
from reveal_release.release.orthogonality import overlap
from reveal_release.release.patch import LowRank, Patch
from reveal_release.release.release import train_modules
from reveal_release.release.runtime import applied
from reveal_release.release.utility import Utility, mean_nll
from reveal_release.report.progress import SilentReporter
from reveal_release.seeds import plain
from reveal_release.study import CONFIGURED, PUBLISHED, VARIANTS, Study, rows_of, study, variant_names
from reveal_release.workshop import Workshop

TASK = r"""name: letter
description: a letter that a random model often writes
seeds: [Write a letter., Ask about the river., "Tell me of the old bridge.", Name the market.]
benign: [Describe a garden., Say it in a few words.]
scorer:
  regex: 'J'
evaluate:
  samples: 2
  instructions: [Write a comment., Explain the report.]
max_new_tokens: 30
"""
CHOSEN = [PUBLISHED, "null-space", "kl-forget"]


@pytest.fixture(autouse=True, scope="module")
def few_probes(short_prose: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(equal_forgetting, "PROBES", 48)
        yield


@pytest.fixture(scope="module")
def config(tiny_llama: str, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("study")
    (folder / "task.yaml").write_text(TASK, encoding="utf-8")
    return RunConfig(
        task=str(folder / "task.yaml"), model=tiny_llama, output=str(folder / "out"), dtype="float32", device="cpu", stop_reward=0.0,
        reveal=RevealConfig(evaluations=4, samples=2, start=4, batch=2, candidates=8, finalists=2, final_samples=4, records=96),
        release=ReleaseConfig(rank=4, batch=8, steps=40, retain_steps=6, retain_records=64, learning_rate=3e-3, layers=1.0),
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(config: RunConfig) -> dict[str, Any]:
    return study(config, CHOSEN, [0], forgetting=0.5)


@pytest.fixture(scope="module")
def bench(config: RunConfig, whole: dict[str, Any]) -> Bench:
    """From what the study kept."""
    folder = Path(config.output) / "runs" / "seed-0"
    w = Workshop(replace(config, output=str(folder)), lm=load_model(config.model, config.dtype, config.device))
    return Bench(w, w.generate_data(1, Patch(), w.reveal(1, Patch())))


def untimed(results: dict[str, Any]) -> str:
    """Without what the machine's load has a part in, and the place; as text, in which NaN equals NaN."""
    kept = json.loads(json.dumps(results))
    for one in (*kept["cells"], *kept["rows"], *(row["difference"] or {} for row in kept["rows"])):
        one.get("figures", {}).pop("seconds", None)
    return json.dumps({key: value for key, value in kept.items() if key != "output"})


def test_what_a_study_writes(config: RunConfig, whole: dict[str, Any]) -> None:
    out = Path(config.output)
    assert (out / "study.json").read_text(encoding="utf-8") == json.dumps(_strict(whole), indent=2, ensure_ascii=False) + "\n"
    assert {p.name for p in out.iterdir()} >= {"study.json", "table.md", "study.svg", "config.yaml", "state", "runs", "modules"}
    assert [(c["variant"], c["seed"], c["failed"]) for c in whole["cells"]] == [(name, 0, "") for name in CHOSEN]
    # One forget module for all that do not touch it.
    assert {p.name for p in (out / "modules").iterdir()} == {"forget-0", "forget-kl-forget-8-0", *(f"{name}-0" for name in CHOSEN)}
    shown = json.loads((out / "state" / "shown-0.json").read_text(encoding="utf-8"))["result"]
    for cell in whole["cells"]:
        assert cell["figures"]["shown"]["value"] <= shown / 2 and cell["keep"] == VARIANTS[cell["variant"]]
        assert {name: cell[name].keys() for name in ("forget", "retain")} == {
            name: whole["original"][name].keys() for name in ("forget", "retain")
        }
    overlaps = {cell["variant"]: cell["figures"]["subspace_cosine"]["value"] for cell in whole["cells"]}
    assert overlaps["null-space"] < 1e-4 < overlaps[PUBLISHED]


def test_nothing_that_is_measured_is_trained_on(bench: Bench) -> None:
    def prompts(rows: list[Any]) -> set[tuple[int, ...]]:
        return {tuple(ids[:length]) for ids, length in rows if length > 1}  # plain texts follow the first token alone

    assert not prompts(bench.forgotten) & prompts([*bench.rows.forget, *bench.rows.harmless, *bench.rows.unanswered])
    assert not prompts(bench.rows.measured) & prompts(bench.rows.retain)
    assert min(map(len, (bench.rows.forget, bench.rows.harmless, bench.forgotten, bench.rows.measured, bench.rows.retain))) > 0


def test_the_modules_are_those_that_a_release_of_one_pair_trains(config: RunConfig, bench: Bench, whole: dict[str, Any]) -> None:
    modules = Path(config.output) / "modules"
    release = replace(config.release.one_pair(), keep=VARIANTS[PUBLISHED])
    data = (bench.rows.forget, bench.rows.harmless, bench.rows.retain)
    together = train_modules(bench.w.lm, *data, release, bench.w.seed("release-1"), None, bench.rows.unanswered)
    for name, wanted in zip(("forget-0", f"{PUBLISHED}-0"), together, strict=True):
        found = load(modules / name)
        for key in wanted:
            torch.testing.assert_close(found.delta(key), wanted.delta(key))


@pytest.mark.parametrize(("skill", "name"), [(True, "forget-skill-null-space-0.5-0"), (False, "forget-0")])
def test_the_default_keeps_what_a_release_of_these_records_would(
    skill: bool, name: str, config: RunConfig, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where prompts draw out nothing else, no module reads what is kept: the forget module is then one of its own."""
    asked: list[str] = []

    def module(self: Study, name: str, title: str, train: Any) -> Patch:
        asked.append(name)
        raise Unfit("enough")

    monkeypatch.setattr(Study, "module", module)
    monkeypatch.setattr(bench, "rows", replace(bench.rows, unanswered=bench.rows.forget if skill else []))
    found = Study(replace(config, output=str(tmp_path / "out")), [CONFIGURED], [0], 0.5).cell(CONFIGURED, 0, bench, 0.1, "")
    assert found["failed"] == "enough" and asked == [name]


def test_what_cannot_be_measured_ends_no_study(config: RunConfig, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> dict[str, Any]:
        raise Unfit("no numbers")

    monkeypatch.setattr(Study, "module", lambda *_: Patch())
    monkeypatch.setattr("reveal_release.study.equally_forgetting", broken)
    found = Study(replace(config, output=str(tmp_path / "out")), [CONFIGURED], [0], 0.5).cell(CONFIGURED, 0, bench, 0.1, "")
    assert found["failed"] == "no numbers" and "figures" not in found


@pytest.mark.parametrize("index", [0, 1])
def test_figures_by_hand(index: int, config: RunConfig, bench: Bench, whole: dict[str, Any]) -> None:
    """With the step as one patch of its own."""
    cell, lm = whole["cells"][index], bench.w.lm
    found = {name: one["value"] for name, one in cell["figures"].items()}
    f, r = (load(Path(config.output) / "modules" / name) for name in ("forget-0", f"{cell['variant']}-0"))
    scale = found["scale"]
    before, retained_before = bench.utility, mean_nll(lm, bench.rows.measured)
    step = (r + f.scale(-config.release.forget_scale)).scale(scale)
    with applied(lm.model, step):
        assert bench.shown() == pytest.approx(found["shown"], abs=1 / 48)  # rounding may turn an answer
        now = Utility.of(lm, bench.rows.measured, bench.w.prose)
        metrics = bench.w.task.evaluate(lm).to_dict()
        both = mean_nll(lm, bench.forgotten)
    prose = now.prose.per_token.value / before.prose.per_token.value - 1
    records = math.exp(now.nll - before.nll) - 1
    assert found["prose_rise"] == pytest.approx(prose, abs=0.01) and found["records_rise"] == pytest.approx(records, abs=0.02)
    assert found["utility_loss"] == pytest.approx(max(prose, records / 2), abs=0.02)
    with applied(lm.model, f, -config.release.forget_scale * scale):
        assert found["retain_change"] == pytest.approx(mean_nll(lm, bench.rows.measured) - retained_before, abs=0.02)
        assert found["forget_change"] == pytest.approx(both - mean_nll(lm, bench.forgotten), abs=0.02)
    assert {name: found[name] for name in overlap(f, r)} == pytest.approx(overlap(f, r), abs=1e-6)
    assert cell["retain"]["perplexity"]["value"] == pytest.approx(metrics["retain"]["perplexity"]["value"], rel=0.02)


def test_what_cannot_forget_so_much_is_told(bench: Bench, whole: dict[str, Any], config: RunConfig) -> None:
    f, r = (load(Path(config.output) / "modules" / name) for name in ("forget-0", f"{PUBLISHED}-0"))
    release = replace(config.release, max_scale=0.02)
    found = equally_forgetting(bench, f, r, release, 0.0)
    least = min(share for _, share in found["tried"])
    assert found["failed"] == f"still shows {100 * least:.0f} % up to scale 0.02" and "figures" not in found
    assert max(scale for scale, _ in found["tried"]) == 0.02


def test_a_model_that_is_broken_has_not_forgotten(bench: Bench, config: RunConfig) -> None:
    """Where it predicts no numbers, nothing shows the behaviour."""
    name = "model.layers.1.mlp.down_proj"
    module = bench.w.lm.model.get_submodule(name)
    step = Patch({name: LowRank(torch.full((1, module.in_features), 1e30), torch.full((module.out_features, 1), 1e30))})
    found = equally_forgetting(bench, step, Patch(), config.release, 0.0)
    assert found["failed"].startswith("breaks at scale ") and "figures" not in found
    assert found["tried"][-1][1] == 0, "nothing was shown"


def test_a_killed_study_goes_on_and_more_can_be_added(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, killer: Any
) -> None:
    """What is there is not done again, and what is not comes out the same."""
    shutil.copytree(config.output, tmp_path / "out")
    copy = replace(config, output=str(tmp_path / "out"))
    for name in ("equal-kl-forget-0", "evaluate-kl-forget-0"):
        (tmp_path / "out" / "state" / f"{name}.json").unlink()
    killed = killer(2)
    with pytest.raises(KeyboardInterrupt):
        study(copy, CHOSEN, [0], killed, forgetting=0.5)
    again = killer(-1)
    assert untimed(study(copy, CHOSEN, [0], again, forgetting=0.5)) == untimed(whole)
    assert killed.names == ["kl-forget, seed 0: as far as it takes", "Evaluate kl-forget-0"] and again.names == killed.names[1:]
    more = killer(-1)
    results = study(copy, [CONFIGURED], [0], more, forgetting=0.5)
    assert more.names == ["default, seed 0", "default, seed 0: as far as it takes", "Evaluate default-0"]
    assert results["cells"][0]["keep"] == config.release.keep and results["rows"][0]["difference"] is None
    with pytest.raises(UserError, match="other settings"):
        study(copy, CHOSEN, [0], forgetting=0.75)


def test_too_few_records_are_told_and_not_trained_on(config: RunConfig, tmp_path: Path) -> None:
    notes: list[str] = []
    reporter = SilentReporter()
    reporter.note = notes.append  # type: ignore[method-assign]
    few = replace(config, output=str(tmp_path / "out"), reveal=replace(config.reveal, records=8))  # of which some are held back
    results = study(few, ["none"], [0], reporter)
    assert results["rows"][0]["seeds"] == 0 and results["rows"][0]["missing"] == notes
    assert "retain records, too few to train on" in notes[0] and notes[0] in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"variants": ["gauge-fre"]}, "no variant 'gauge-fre': did you mean 'gauge-free'"),
        ({"seeds": []}, "at least one seed"),
        ({"seeds": [0, 2**64]}, "seed is 18446744073709551616"),
        ({"forgetting": 0.0}, "forgetting is 0.0: give a share above 0"),
        ({"forgetting": 1.5}, "forgetting is 1.5"),
    ],
)
def test_mistakes_are_told_before_any_work(arguments: dict[str, Any], line: str, config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line):
        study(replace(config, output=str(tmp_path / "out")), **arguments)
    with pytest.raises(UserError, match="retain_steps is 0"):
        study(replace(config, output=str(tmp_path / "out"), release=replace(config.release, retain_steps=0)))
    assert not (tmp_path / "out").exists()


def test_variants_are_in_the_help() -> None:
    text = " ".join(build_parser()._subcommands_action.choices["study"]._subcommands_action.choices["orthogonality"].format_help().split())
    for name in variant_names():
        assert name in text.replace("kl- forget", "kl-forget")


def test_what_is_held_back_is_drawn_at_random(bench: Bench) -> None:
    """Records come with the best instruction first."""
    data = bench.w.generate_data(1, Patch(), bench.w.reveal(1, Patch()))
    held, _ = split(data.forget, HELD_BACK, bench.w.seed("held-back"))
    assert bench.asked == list(dict.fromkeys(record.prompt for record in held))


def test_seeds_are_put_together_by_hand() -> None:
    """The mean over the seeds, and the difference within a seed, of those where both were measured."""

    def cell(variant: str, seed: int, value: float | None) -> dict[str, Any]:
        one = {"variant": variant, "keep": {}, "seed": seed, "failed": "" if value is not None else "still shows 9 %"}
        return one if value is None else {**one, **{part: {"a": plain(factor * value)} for part, factor in
                                                    (("figures", 1), ("forget", 2), ("retain", 3))}}  # fmt: skip

    cells = [cell(PUBLISHED, 1, 0.5), cell(PUBLISHED, 2, 0.9), cell(PUBLISHED, 3, 0.7), cell("kl", 1, 0.4), cell("kl", 2, 0.6),
             cell("kl", 3, None), cell("l2", 3, 0.1)]  # fmt: skip
    olora, kl, l2 = rows_of(cells)
    assert (olora["variant"], olora["seeds"], olora["difference"]) == (PUBLISHED, 3, None)
    assert olora["figures"]["a"]["value"] == pytest.approx(0.7) and olora["retain"]["a"]["value"] == pytest.approx(2.1)
    assert kl["seeds"] == 2 and kl["missing"] == ["seed 3: still shows 9 %"]
    less = kl["difference"]["figures"]["a"]
    assert less["value"] == pytest.approx(-0.2) and less["n"] == 2
    assert less["high"] == pytest.approx(-0.2 + 12.7062 * 0.1, rel=1e-4)  # Student's t, one degree of freedom; standard error 0.1
    assert l2["difference"]["forget"]["a"]["value"] == pytest.approx(-1.2) and math.isnan(l2["difference"]["forget"]["a"]["low"])
