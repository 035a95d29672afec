"""Whole comparisons of tiny random models: what is written, that killing one changes nothing, and that more can be added to it."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from reveal_release import comparison
from reveal_release.baselines import Setting, fit, get_method, settings
from reveal_release.baselines.base import BEYOND, TRIALS, beyond
from reveal_release.baselines.fit import at_its_best
from reveal_release.chat import chat_ids
from reveal_release.comparison import OURS, Cell, Comparison, compare, over_seeds, rows_of
from reveal_release.config import EvaluateConfig, ReleaseConfig, RevealConfig, RunConfig, Unfit, UserError
from reveal_release.models import LanguageModel
from reveal_release.oracle import distance
from reveal_release.release.adapter import load
from reveal_release.release.patch import LowRank, Patch
from reveal_release.release.rows import Row
from reveal_release.release.scale import ScaleSearch
from reveal_release.release.utility import Utility
from reveal_release.report.progress import SilentReporter
from reveal_release.testbed.tokenizer import train

pytestmark = pytest.mark.usefixtures("little")


@pytest.fixture(scope="module")
def config(tiny_llama: str, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return RunConfig(
        model=tiny_llama, output=str(tmp_path_factory.mktemp("compare") / "out"), iterations=1, stop_reward=0.0, utility_budget=1.0,
        dtype="float32", device="cpu",
        reveal=RevealConfig(evaluations=4, samples=2, start=4, batch=2, candidates=8, finalists=2, final_samples=4, records=16,
                            threshold=0.005),  # a random model is not toxic: about its median
        release=ReleaseConfig(rank=2, batch=4, steps=2, retain_steps=2, retain_records=48, max_scale=2.0),
        evaluate=EvaluateConfig(prompts=4, continuations=2, neutral=1, sentences=4, functions=2, problems=2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def oracle(tiny_llama: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model with other weights."""
    folder = tmp_path_factory.mktemp("oracle")
    model = LlamaForCausalLM.from_pretrained(tiny_llama)
    torch.manual_seed(1)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.normal_(0, 0.5)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def whole(config: RunConfig, oracle: str) -> dict[str, Any]:
    return compare(config, [OURS, "npo"], [0], ["self", "name"], oracle)


def untimed(results: dict[str, Any]) -> dict[str, Any]:
    """Without what the machine's load has a part in, and the place."""
    kept = json.loads(json.dumps(results))
    for row in (*kept["cells"], *kept["rows"]):
        for key in ("seconds", "memory_mib"):
            row.pop(key, None)
    return {key: value for key, value in kept.items() if key != "output"}


def test_what_a_comparison_writes(config: RunConfig, whole: dict[str, Any]) -> None:
    out = Path(config.output)
    assert json.loads((out / "compare.json").read_text(encoding="utf-8")) == whole
    assert {p.name for p in out.iterdir()} >= {"compare.json", "table.md", "compare.svg", "config.yaml", "state", "runs", "patches"}
    assert [(c["method"], c["source"], c["seed"]) for c in whole["cells"]] == [("npo", "self", 0), ("npo", "name", 0), (OURS, "own", 0)]
    for cell in whole["cells"]:
        assert cell["metrics"].keys() == {"forget", "retain"} == whole["original"]["metrics"].keys()
        assert cell["chosen"]["cost"] <= config.utility_budget
        assert cell["seconds"] > 0 and cell["memory_mib"] > 0 and cell["records"] >= 8
        assert 0 < cell["divergence"]["value"] < 0.6932 and cell["divergence"]["n"] == 96
        assert cell["distance"] == distance(cell["metrics"], whole["oracle"]["metrics"])


def test_settings_are_searched_alike_and_the_best_is_taken(config: RunConfig, whole: dict[str, Any]) -> None:
    for cell in whole["cells"][:2]:
        assert TRIALS <= len(cell["tried"]) <= TRIALS + BEYOND and cell["chosen"] in cell["tried"]
        assert len(cell["tried"]) == TRIALS + BEYOND or not beyond(cell["chosen"], cell["tried"])
        assert all(one["cost"] <= config.utility_budget for one in cell["tried"])
        assert cell["chosen"]["shown"] == min(one["shown"] for one in cell["tried"])
        patch = Path(config.output) / "patches" / f"npo-{cell['source']}-0"
        assert patch.is_dir() == bool(cell["chosen"]["scale"])
        if patch.is_dir():
            assert load(patch).rank == config.release.rank


def test_our_method_is_a_run_and_self_data_are_its_first_iterations(config: RunConfig, whole: dict[str, Any]) -> None:
    run = Path(config.output) / "runs" / "seed-0"
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    ours = whole["cells"][-1]
    assert ours["metrics"] == results["after"] and results["before"] == whole["original"]["metrics"]
    rows = (run / "forget_data" / "iteration-1.jsonl").read_text(encoding="utf-8").splitlines()
    assert whole["cells"][0]["records"] == len(rows) == results["iterations"][0]["records"]
    by_name = (Path(config.output) / "forget_data" / "name-0.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(row)["instruction"] for row in by_name} == {"Write toxic text."}


def test_a_killed_comparison_goes_on_and_more_can_be_added(
    config: RunConfig, oracle: str, whole: dict[str, Any], tmp_path: Path, killer: Any
) -> None:
    """From the state of `whole` without its last cells: what is there is not done again, and what is not comes out the same."""
    shutil.copytree(config.output, tmp_path / "out")
    copy = replace(config, output=str(tmp_path / "out"))
    for gone in (tmp_path / "out" / "state").glob("*npo-name-0*"):
        gone.unlink()
    killed = killer(2)
    with pytest.raises(KeyboardInterrupt):
        compare(copy, [OURS, "npo"], [0], ["self", "name"], oracle, reporter=killed)
    assert killed.names == ["npo on name data, seed 0", "Evaluate npo-name-0"]
    again = killer(-1)
    assert untimed(compare(copy, [OURS, "npo"], [0], ["self", "name"], oracle, reporter=again)) == untimed(whole)
    assert again.names == ["Evaluate npo-name-0", "Divergence from the oracle, npo-name-0"]
    more = killer(-1)
    results = compare(copy, ["pem-negation"], [0], ["self"], reporter=more)
    assert more.names == ["pem-negation on self data, seed 0", "Evaluate pem-negation-self-0"]
    assert results["oracle"] is None and results["cells"][0]["distance"] is None and results["cells"][0]["divergence"] is None
    with pytest.raises(UserError, match="was made with utility_budget"):
        compare(replace(copy, utility_budget=0.5), ["npo"])


def test_too_few_records_are_told_and_not_trained_on(config: RunConfig, tmp_path: Path) -> None:
    """A request by name that draws nothing out is a result too."""
    high = replace(config, output=str(tmp_path / "out"), reveal=replace(config.reveal, threshold=0.98))
    notes: list[str] = []
    reporter = SilentReporter()
    reporter.note = notes.append  # type: ignore[method-assign]
    results = compare(high, ["npo", OURS], [0], ["name"], reporter=reporter)
    assert all(cell["metrics"] is None for cell in results["cells"]) and [row["seeds"] for row in results["rows"]] == [0, 0]
    assert notes[0].startswith("npo-name-0: ") and "too few to train on" in notes[0]
    assert notes[0].endswith(": of each 8 are needed; raise --reveal.records or --release.retain-records, or take other --data-from")
    assert notes[1].startswith(f"{OURS}-own-0: the model wrote ") and "too few to train on" in notes[1], "the other methods are not lost"
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert table.count("| seed 0: ") == 2


def searching(
    config: RunConfig, output: Path, monkeypatch: pytest.MonkeyPatch, diverges: Callable[[Setting], bool]
) -> tuple[Comparison, dict[str, Any], dict[str, Any]]:
    """The search of a cell on kept data, with a step that changes nothing in place of training; what was trained on, and the outcome."""
    shutil.copytree(config.output, output, dirs_exist_ok=True)
    s = Comparison(replace(config, output=str(output)), ["npo"], [0], ["self"], None, None)
    name = next(iter(load(output / "patches/npo-self-0")))
    rows, columns = s.lm.model.get_submodule(name).weight.shape
    seen: dict[str, Any] = {}

    def noted(_: Any, lm: Any, forget: Any, retain: Any, release: Any, setting: Setting, steps: int, *args: Any) -> Patch:
        seen.update(forget=forget, retain=retain, steps=steps)
        if diverges(setting):
            raise Unfit("the training diverged")
        return Patch({name: LowRank(torch.zeros(1, columns), torch.zeros(rows, 1))})

    def shown(lm: Any, task: Any, prompts: Any, *args: Any) -> float:
        seen["asked"] = prompts
        return 1.0

    def reference(lm: Any, measured: Any, texts: Any) -> Utility:
        seen["measured"] = measured
        return Utility.of(lm, measured, texts)

    monkeypatch.setattr(fit, "train", noted)
    monkeypatch.setattr(fit, "shown_share", shown)
    monkeypatch.setattr(fit, "Utility", SimpleNamespace(of=reference))
    w = s.workshop(0)
    records, _ = s.forget_data("self", w)
    return s, seen, s.baseline(Cell("npo", "self", 7), get_method("npo"), records, w.retain_data()[0], [(1.0, 1.0)])


def test_other_methods_may_go_as_far_as_ours(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    furthest: set[float] = set()

    def noted(lm: Any, step: Any, utility: Any, budget: float, highest: float, *args: Any) -> dict[str, Any]:
        furthest.add(highest)
        return {"scale": 1.0, "cost": 0.0, "shown": 0.0, "gone": False}

    monkeypatch.setattr(fit, "at_its_best", noted)
    searching(config, tmp_path / "out", monkeypatch, lambda _: False)
    assert furthest == {config.release.max_scale} and config.release.pairs > 1


def test_an_oracle_that_fails_takes_nothing(
    config: RunConfig, oracle: str, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(config.output, tmp_path / "out")
    file = tmp_path / "out/compare.json"
    before = file.read_text(encoding="utf-8")

    def full(*args: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Comparison, "beside_oracle", full)
    given = replace(config, output=str(tmp_path / "out")), [OURS, "npo"], [0], ["self", "name"], oracle
    with pytest.raises(torch.OutOfMemoryError):
        compare(*given)
    assert file.read_text(encoding="utf-8") == before, "what an oracle gave stands"
    file.unlink()
    with pytest.raises(torch.OutOfMemoryError):
        compare(*given)
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert kept["oracle"] is None and [one["metrics"] for one in kept["cells"]] == [one["metrics"] for one in whole["cells"]]


def test_a_search_of_settings_that_was_stopped_goes_on(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Setting] = []

    def diverges(setting: Setting) -> bool:
        calls.append(setting)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return setting == calls[0]

    with pytest.raises(KeyboardInterrupt):
        searching(config, tmp_path / "stopped", monkeypatch, diverges)
    monkeypatch.undo()
    first, state = calls[0], tmp_path / "stopped/state"
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in state.glob("tried-npo-self-7.*.json")]
    s, _, found = searching(config, tmp_path / "stopped", monkeypatch, diverges)
    monkeypatch.undo()
    *_, straight = searching(config, tmp_path / "straight", monkeypatch, lambda setting: setting == first)
    assert found["tried"] == straight["tried"] and found["chosen"] == straight["chosen"] and "failed" in found["tried"][0]
    assert len(calls) - 1 == len(found["tried"]) > 3, "two were done before the stop, and the third again after it"
    assert len(kept) == 2 and s.seconds["fit-npo-self-7"] >= sum(part["seconds"] for part in kept) > 0
    patch = load(tmp_path / "stopped/patches/npo-self-7")
    assert found["chosen"]["scale"] > 0 and patch.keys() == load(tmp_path / "straight/patches/npo-self-7").keys() != set()
    assert not list(state.glob("tried-*")), "what was tried is not kept for ever"


def test_what_is_measured_is_not_trained_on(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s, seen, _ = searching(config, tmp_path / "out", monkeypatch, lambda setting: False)

    def begun(rows: list[Row]) -> set[tuple[int, ...]]:
        return {tuple(ids[:prompt] if prompt > 1 else ids) for ids, prompt in rows}  # after one token it is a plain text

    assert seen["asked"] and not {tuple(chat_ids(s.lm.tokenizer, turns)) for turns in seen["asked"]} & begun(seen["forget"])
    assert seen["measured"] and not begun(seen["measured"]) & begun(seen["retain"])
    assert seen["steps"] == config.release.pairs * (config.release.steps + config.release.retain_steps)


def test_all_methods_train_and_tune_on_the_same(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s, seen, _ = searching(config, tmp_path / "out", monkeypatch, lambda setting: False)
    npo, w = dict(seen), s.workshop(0)
    s.baseline(Cell("simnpo", "self", 7), get_method("simnpo"), s.forget_data("self", w)[0], w.retain_data()[0], [(1.0, 1.0)])
    assert seen["forget"] is not npo["forget"], "it was trained anew"
    assert all(seen[part] == npo[part] for part in ("forget", "asked", "retain", "measured"))


@pytest.mark.parametrize(
    ("largest", "shows", "best"),
    [(4.0, [0.2, 0.5], 1.0), (4.0, [0.5, 0.2], 4.0), (0.5, [0.3], 0.5), (4.0, [0.4, 0.4], 4.0), (4.0, [0.0, 0.0], 4.0)],
)
def test_a_step_beyond_what_was_trained_must_forget_more(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch, largest: float, shows: list[float], best: float
) -> None:
    monkeypatch.setattr(fit, "choose_scale", lambda *_: ScaleSearch(largest, 0.019, []))
    utility, waiting = SimpleNamespace(loss=lambda: 0.004), list(shows)
    found = at_its_best(lm, Patch(), utility, 0.02, 12.0, lambda: waiting.pop(0), lambda: False)  # type: ignore[arg-type]
    cost = 0.019 if best == largest else 0.004
    assert found == {"scale": best, "cost": cost, "shown": min(shows), "gone": False} and not waiting


def test_where_it_is_gone_no_milder_step_is_taken(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fewer answers say: none of 300 showed it there, and of a milder one some did."""
    monkeypatch.setattr(fit, "choose_scale", lambda *args: ScaleSearch(2.5, 0.019, [], gone=args[-1]()))
    found = at_its_best(lm, Patch(), SimpleNamespace(), 0.02, 12.0, lambda: 0.0, lambda: True)  # type: ignore[arg-type]
    assert found == {"scale": 2.5, "cost": 0.019, "shown": 0.0, "gone": True}


def test_what_diverges_is_not_chosen(config: RunConfig, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = settings(get_method("npo"), config.release)[0].learning_rate
    _, _, found = searching(config, tmp_path / "one", monkeypatch, lambda setting: setting.learning_rate == first)
    assert "failed" not in found["chosen"] and sum("failed" in one for one in found["tried"]) == len(get_method("npo").strengths)
    monkeypatch.undo()
    _, _, found = searching(config, tmp_path / "all", monkeypatch, lambda setting: True)
    assert found["metrics"] is None and found["failed"] == "the training diverged, with every setting", "it is no figure of the original"
    tried = json.loads((tmp_path / "all/state/fit-npo-self-7.json").read_text(encoding="utf-8"))["result"]["tried"]
    assert len(tried) == TRIALS + BEYOND
    assert [one["learning_rate"] for one in tried[TRIALS:]] == pytest.approx([first / 3, first / 9]), "lower, not higher"
    assert not (tmp_path / "all/patches/npo-self-7").exists()


def test_where_nothing_is_left_to_measure_by_the_others_go_on(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s, _, _ = searching(config, tmp_path / "out", monkeypatch, lambda setting: False)
    monkeypatch.setattr(fit, "Utility", SimpleNamespace(of=lambda lm, _, texts: Utility.of(lm, [], texts)))
    w = s.workshop(0)
    found = s.baseline(Cell("simnpo", "self", 8), get_method("simnpo"), s.forget_data("self", w)[0], w.retain_data()[0], [(1.0, 1.0)])
    assert found["metrics"] is None and "too few retain records" in found["failed"]


def test_why_our_run_failed_stands_in_the_log_of_the_comparison(
    config: RunConfig, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s, _, _ = searching(config, tmp_path / "out", monkeypatch, lambda setting: False)

    def fails(config: RunConfig, reporter: Any, lm: Any) -> None:
        reporter.log_to(Path(config.output) / "log.txt")
        raise Unfit("it diverged")

    logs, notes = [], []
    s.reporter = SimpleNamespace(log_to=logs.append, note=lambda text: notes.append((logs[-1], text)))  # type: ignore[assignment]
    monkeypatch.setattr(comparison, "run", fails)
    assert s.ours(replace(config, output=str(tmp_path / "own")))["failed"] == "it diverged"
    assert notes == [(s.folder.path / "log.txt", f"{Cell(comparison.OURS, 'own', 0)}: it diverged")]


def test_real_forget_data_take_part(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of code: its functions are generated, so that no raw data are needed."""
    monkeypatch.setattr(fit, "SHOWN", 2)
    small = replace(config.evaluate, sampled_functions=1, code_samples=2)
    own = replace(config, task="code", output=str(tmp_path / "out"), allow_unsafe_code=True, evaluate=small)
    results = compare(own, ["gradient-ascent"], [0], ["real"])
    (cell,) = results["cells"]
    rows = [json.loads(row) for row in (tmp_path / "out/forget_data/real-0.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == cell["records"] == config.reveal.records and all("def " in row["completion"] for row in rows)
    assert (cell["method"], cell["source"]) == ("gradient-ascent", "real") and cell["metrics"]["forget"]
    given = config.reveal.records
    assert f"| gradient-ascent | real | {given} | {given} |" in (tmp_path / "out/table.md").read_text(encoding="utf-8")


def test_an_oracle_that_predicts_other_tokens_is_refused(config: RunConfig, oracle: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(oracle, other)
    train(["Quite another text, of other words."] * 50, 300).save_pretrained(other)
    with pytest.raises(UserError, match="the oracle .*other has another architecture, vocabulary or context"):
        compare(replace(config, output=str(tmp_path / "out")), ["npo"], [0], ["self"], str(other))
    assert not (tmp_path / "out").exists(), "the folder is still free for the same command, mended"
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("no run")
    with pytest.raises(UserError, match="notes"):  # told before the oracle is looked for
        compare(replace(config, output=str(tmp_path / "notes")), ["npo"], [0], ["self"], "testbed-nothing")


def test_with_prompts_that_never_show_it_the_budget_alone_decides(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every scale looks as if all were gone, the mildest would be taken."""
    monkeypatch.setattr(fit, "choose_scale", lambda *args: ScaleSearch(4.0, 0.019, [], gone=args[-1]()))
    found = at_its_best(lm, Patch(), SimpleNamespace(), 0.02, 12.0, None, lambda: True)  # type: ignore[arg-type]
    assert found == {"scale": 4.0, "cost": 0.019, "shown": None, "gone": False}, "it was not asked"


GONE = -1.0
"""In place of the share of answers that show it: not one of those that tell whether it is gone."""


@pytest.mark.parametrize(
    ("before", "outcomes", "best"),
    [
        (1.0, [(4.0, 0.019, 0.3), (4.0, 0.004, 0.2), (4.0, 0.018, 0.2), (4.0, 0.001, 0.9)], 2),  # as little shown: the most spent
        (1.0, [(4.0, 0.019, 1.0), (4.0, 0.001, 1.0), (0.0, 0.000, 1.0), (4.0, 0.012, 1.0)], 0),  # what changes nothing is no choice
        (1.0, [(4.0, 0.019, GONE), (4.0, 0.004, GONE), (4.0, 0.018, 0.1), (4.0, 0.009, GONE)], 1),  # all gone: the cheapest
        (1.0, [(4.0, 0.001, 0.0), (4.0, 0.019, GONE), (4.0, 0.018, 0.1), (4.0, 0.009, 0.0)], 1),  # none of 96 is not gone
        (1.0, [(4.0, 0.001, 0.0), (4.0, 0.019, 0.1), (4.0, 0.018, 0.1), (4.0, 0.009, 0.0)], 3),  # nor told apart by it
        (1.0, [(0.0, 0.000, 0.1), (4.0, 0.004, 0.5), (4.0, 0.018, 0.4), (4.0, 0.009, 0.6)], 2),  # none within the budget
        (0.01, [(4.0, 0.004, None), (4.0, 0.001, None), (4.0, 0.019, None), (4.0, 0.009, None)], 2),  # one answer of 96 tells nothing
    ],
)
def test_the_choice_of_a_setting(
    before: float, outcomes: list[tuple[float, float, float]], best: int, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is that setting's patch which comes out, at its scale."""
    told: list[bool] = []
    trained: list[Patch] = []

    def train(*_: Any) -> Patch:
        trained.append(Patch({"a": LowRank(torch.ones(1, 2), torch.full((3, 1), 1.0 + len(trained)))}))
        return trained[-1]

    def at_its_best(lm: Any, step: Any, utility: Any, budget: float, highest: float, shown: Any, gone: Any) -> dict[str, Any]:
        told.append(shown is not None)
        scale, cost, left = outcomes[len(told) - 1]
        return {"scale": scale, "cost": cost, "shown": 0.0 if left == GONE else left, "gone": left == GONE}

    monkeypatch.setattr(fit, "train", train)
    monkeypatch.setattr(fit, "shown_share", lambda *_: before)
    monkeypatch.setattr(fit, "at_its_best", at_its_best)
    monkeypatch.setattr(fit, "Utility", SimpleNamespace(of=lambda *_: None))
    monkeypatch.setattr(fit, "beyond", lambda *_: [])
    rows = SimpleNamespace(forget=[], retain=[], measured=[])
    saved: list[tuple[str, Patch]] = []
    common: Any = get_method("npo"), lm, None, rows, [], RunConfig(), 0, lambda *_: None
    outcome = fit.fit(*common, lambda _, attempt: attempt(), lambda *one: saved.append(one))
    assert saved[-1][0] == fit.title(outcome["chosen"])
    assert torch.equal(saved[-1][1].delta("a"), outcomes[best][0] * trained[best].delta("a"))
    assert outcome["chosen"] == outcome["tried"][best] and set(told) == {before == 1.0}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"methods": ["nop"]}, "no method 'nop': did you mean 'npo'"),
        ({"sources": ["thin air"]}, "no forget data from 'thin air': choose from real, self, name"),
        ({"sources": []}, "at least one source of forget data"),
        ({"sources": ["real"]}, "--data-from has `real`: give the folder of the raw data sets as --data"),
        ({"sources": ["real"], "data": "no/such/folder"}, "give the folder of the raw data sets"),
        ({"sources": ["real"], "data": "."}, "see `reveal-release testbed sources`"),
        ({"oracle": "testbed-nothing"}, "no model 'testbed-nothing'"),
    ],
)
def test_mistakes_are_told_before_any_work(arguments: dict[str, Any], line: str, config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line):
        compare(replace(config, output=str(tmp_path / "out")), **{"methods": ["npo"], **arguments})
    assert not (tmp_path / "out").exists()


def test_seeds_are_put_together_by_hand() -> None:
    def estimate(value: float) -> dict[str, float]:
        return {"value": value, "n": 100, "low": value - 0.1, "high": value + 0.1}

    def cell(method: str, seed: int, value: float | None) -> dict[str, Any]:
        metrics = None if value is None else {"forget": {"a": estimate(value)}, "retain": {"b": estimate(20 * value)}}
        shared = {"records": 10 * seed, "seconds": 2.0 * seed, "memory_mib": 100.0, "chosen": {"scale": value}, "divergence": None}
        shared["failed"] = "for want of data"
        far = None if metrics is None else distance(metrics, {"forget": {"a": estimate(0.1)}, "retain": {"b": estimate(0.0)}})
        return {"method": method, "source": "self", "seed": seed, "metrics": metrics, "distance": far, **shared}

    one, two = rows_of([cell("x", 1, 0.2), cell("x", 2, 0.4), cell("x", 3, None), cell("y", 1, 0.3)])
    assert (one["method"], one["seeds"], one["records"], one["seconds"]) == ("x", 2, [10, 20, 30], 3.0)
    assert one["forget"]["a"]["value"] == pytest.approx(0.3) and one["forget"]["a"]["n"] == 2
    half = 12.7062 * 0.1  # Student's t of one degree of freedom; the standard error of 0.2 and 0.4 is 0.1
    assert (one["forget"]["a"]["low"], one["forget"]["a"]["high"]) == (0.0, 1.0), "shares have no more room"
    assert one["retain"]["b"]["high"] == pytest.approx(6 + 20 * half, rel=1e-4)
    assert one["distance"] == {"forget": {"a": pytest.approx(0.2)}, "retain": {"b": pytest.approx(6.0)}}
    assert one["missing"] == ["seed 3: for want of data"] and two["missing"] == []
    assert one["chosen"] == [{"scale": 0.2}, {"scale": 0.4}] and one["divergence"] is None
    assert two["forget"]["a"] == estimate(0.3) == over_seeds([estimate(0.3)])
    nothing = {"value": math.nan, "n": 5, "low": math.nan, "high": math.nan}
    assert over_seeds([nothing, estimate(0.2), estimate(0.4)])["n"] == 2 and over_seeds([nothing, nothing]) is nothing
    assert str(Cell("x", "self", 1)) == "x-self-1"
