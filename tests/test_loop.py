"""Whole runs on a tiny random model: what is written, that killing a run changes nothing, and that the patch is plain PEFT."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from reveal_release import dataset, loop, sandbox, workshop
from reveal_release.config import EvaluateConfig, ReleaseConfig, RevealConfig, RunConfig, Unfit, UserError
from reveal_release.evaluator import evaluate_only
from reveal_release.files import contents
from reveal_release.loop import run
from reveal_release.metrics.fluency import perplexity
from reveal_release.models import load_model, save_model
from reveal_release.release import release
from reveal_release.release.adapter import load
from reveal_release.release.patch import Patch
from reveal_release.release.release import MARGIN
from reveal_release.release.runtime import applied
from reveal_release.release.scale import ScaleSearch
from reveal_release.release.utility import mean_nll
from reveal_release.report.card import card
from reveal_release.report.progress import SilentReporter
from reveal_release.reveal.selfgen import is_gone, shown_share
from reveal_release.revealer import reveal_only
from reveal_release.tasks import Record
from reveal_release.tasks.toxicity import Toxicity
from reveal_release.workshop import Workshop, weights_written

pytestmark = pytest.mark.usefixtures("little")

KEYS = {"version", "task", "model", "seed", "config_hash", "evaluations", "before", "after", "elicitation", "patch", "stopped_because",
        "seconds", "environment"}  # fmt: skip
SAME = ("evaluations", "before", "after", "elicitation", "iterations", "samples", "patch", "stopped_because", "config_hash")


def tiny(model: str, output: Path, **changes: Any) -> RunConfig:
    return RunConfig(**{
        "task": "toxicity", "model": model, "output": str(output), "iterations": 1, "stop_reward": 0.0, "utility_budget": 1.0,
        "dtype": "float32", "device": "cpu",
        "reveal": RevealConfig(evaluations=6, samples=2, start=4, batch=2, candidates=8, finalists=2, final_samples=4, records=12,
                               threshold=0.005),  # a random model is not toxic: about its median
        "release": ReleaseConfig(rank=2, batch=4, steps=3, retain_steps=3, learning_rate=2e-3, retain_records=48),
        "evaluate": EvaluateConfig(prompts=4, continuations=2, neutral=1, sentences=8, functions=2, problems=2),
        **changes,
    })  # fmt: skip


class Killed(Exception):
    pass


class Killer(SilentReporter):
    """Stops the run in its n-th phase of work: as it begins, or (`late`) when it is done and not yet written."""

    def __init__(self, n: int, late: bool) -> None:
        self.left, self.late, self.skipped = n, late, 0
        self.names: list[str] = []

    @contextlib.contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Any]:
        self.names.append(name)
        self.left -= 1
        if self.left == 0 and not self.late:
            raise Killed
        yield lambda done, total: None
        if self.left == 0:
            raise Killed

    def skip(self, name: str) -> None:
        self.skipped += 1


@pytest.fixture(scope="module")
def whole(tiny_llama: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, dict[str, Any]]:
    config = tiny(tiny_llama, tmp_path_factory.mktemp("run") / "out")
    return config, run(config)


def test_what_a_run_writes(whole: tuple[RunConfig, dict[str, Any]], tiny_llama: str) -> None:
    config, results = whole
    out = Path(config.output)
    assert {p.name for p in out.iterdir()} >= {"results.json", "config.yaml", "forget_data", "retain_data.jsonl", "patch", "state"}
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == results
    judge = "the toxicity scorer evaluation of reveal-release"
    assert card(results, Toxicity.description, judge) == (out / "patch/README.md").read_text(encoding="utf-8")
    assert results.keys() >= KEYS
    assert (results["task"], results["model"], results["seed"], results["config_hash"]) == ("toxicity", tiny_llama, 0, config.hash())
    assert yaml.safe_load((out / "config.yaml").read_text()) == config.to_dict()
    assert [e["iteration"] for e in results["evaluations"]] == [0, 1]
    assert results["before"] == results["evaluations"][0]["metrics"] != results["evaluations"][1]["metrics"] == results["after"]
    for side in ("before", "after"):
        assert {"forget", "retain"} == results[side].keys()
        assert results["elicitation"][side].keys() == {"value", "n", "low", "high", "instruction", "calls"}
        assert results["elicitation"][side]["calls"] == 6 * 2 + 2 * 4 + 4
    assert results["patch"]["path"] == "patch" and results["patch"]["rank"] >= 1
    assert results["iterations"][0]["scale"] > 0 and results["iterations"][0]["utility_loss"] <= config.utility_budget
    assert set(results["seconds"]) >= {"evaluate-0", "reveal-1", "forget-1", "retain", "release-1", "evaluate-1", "elicit-before",
                                       "elicit-after", "samples"}  # fmt: skip
    assert not list(out.rglob("*.part"))


def test_the_weights_that_a_run_writes_are_foreseen(whole: tuple[RunConfig, dict[str, Any]]) -> None:
    """The step takes half of what is foreseen, the patch, which is compressed, no more than that; a merged model what the model takes."""
    config, lm = whole[0], load_model(whole[0].model)

    def stored(file: Path) -> int:
        return sum(weight.nbytes for weight in load_file(file).values())

    step, patch = (stored(Path(config.output) / name / "adapter_model.safetensors") for name in ("state/step-1", "patch"))
    foreseen = weights_written(lm, config)
    assert foreseen == 2 * step and patch <= step
    assert weights_written(lm, replace(config, save_merged=True)) - foreseen == stored(Path(config.model) / "model.safetensors")


def test_the_data_that_a_run_writes(whole: tuple[RunConfig, dict[str, Any]]) -> None:
    config, results = whole
    out = Path(config.output)
    forget = [json.loads(line) for line in (out / "forget_data/iteration-1.jsonl").read_text(encoding="utf-8").split("\n") if line]
    retain = [json.loads(line) for line in (out / "retain_data.jsonl").read_text(encoding="utf-8").split("\n") if line]
    assert len(forget) == results["iterations"][0]["records"] and len(forget) >= 8 and len(retain) >= 8
    harmless = json.loads((out / "state/forget-1.json").read_text(encoding="utf-8"))["result"]["harmless"]
    assert len(harmless) >= 8
    assert all(row["iteration"] == 1 for row in forget + harmless)
    assert all(row["score"] >= config.reveal.threshold for row in forget)
    assert all(row["score"] < config.reveal.threshold for row in harmless + retain)
    assert not {row["completion"] for row in forget} & {row["completion"] for row in harmless}


def test_a_finished_run_is_not_done_again(whole: tuple[RunConfig, dict[str, Any]]) -> None:
    config, results = whole
    watcher = Killer(0, late=False)
    again = run(config, watcher)
    assert watcher.names == [] and watcher.skipped == len(results["seconds"])
    kept = (*SAME, "seconds", "peak_memory_mib")  # of the run, not of this reading of it
    assert {k: again[k] for k in kept} == {k: results[k] for k in kept}
    assert 100 < results["peak_memory_mib"] < 100_000


def test_another_configuration_is_refused(whole: tuple[RunConfig, dict[str, Any]]) -> None:
    with pytest.raises(UserError, match="was made with seed 0, and this has 1"):
        run(replace(whole[0], seed=1))
    with pytest.raises(UserError, match="holds what `run` wrote, and this is `reveal`"):
        reveal_only(whole[0])


@pytest.mark.parametrize(
    "late", [pytest.param(False, id="between-phases"), pytest.param(True, id="result-not-yet-written", marks=pytest.mark.slow)]
)
def test_a_run_killed_at_every_phase_ends_the_same(whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path, late: bool) -> None:
    """Each start does one phase and dies: in the next one as it begins, or after the next one's work, which is then lost."""
    config, results = replace(whole[0], output=str(tmp_path / "out")), None
    deaths = 0
    for _ in range(30):
        try:
            results = run(config, Killer(2, late))
            break
        except Killed:
            deaths += 1
            assert not (tmp_path / "out/results.json").exists()
    assert results is not None and deaths == len(whole[1]["seconds"]) - 1
    assert {k: results[k] for k in SAME} == {k: whole[1][k] for k in SAME}
    one, two = load(Path(whole[0].output) / "patch"), load(tmp_path / "out/patch")
    assert all(torch.equal(one[name].A, two[name].A) and torch.equal(one[name].B, two[name].B) for name in one)


def test_the_patch_is_a_plain_peft_adapter(whole: tuple[RunConfig, dict[str, Any]], tiny_llama: str) -> None:
    ids = torch.arange(5, 65).reshape(3, 20)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    folder = Path(whole[0].output) / "patch"
    with torch.no_grad():
        plain = base(ids).logits
        with applied(base, load(folder, base)):
            patched = base(ids).logits
        adapted = PeftModel.from_pretrained(base, folder)(ids).logits
    assert (adapted - patched).abs().max() < 1e-4
    assert (patched - plain).abs().max() > 1e-2


def test_the_patch_evaluates_to_what_the_run_reported(whole: tuple[RunConfig, dict[str, Any]]) -> None:
    """From disk and compressed: equal up to rounding, which greedy decoding and sampling do not see here."""
    config, results = whole
    assert evaluate_only(config) == results["before"]
    found = evaluate_only(config, str(Path(config.output) / "patch"))
    for part in ("forget", "retain"):
        for name, value in results["after"][part].items():
            assert found[part][name]["value"] == pytest.approx(value["value"], rel=0.02, abs=0.02), name


def test_layers_may_have_a_scale_of_their_own(tiny_llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken here whatever they leave: that is `choose`'s, and tested there."""
    shares, steps = iter([0.5, 0.25]), []

    def weighing(lm: Any, step: Any, *args: Any) -> Any:
        steps.append(step)
        return choose(lm, step, *args[:-1], lambda: next(shares))

    choose = workshop.per_layer.choose
    monkeypatch.setattr(workshop.per_layer, "choose", weighing)
    plain = tiny(tiny_llama, tmp_path / "out")
    config = replace(plain, seed=1, release=replace(plain.release, layers=1.0, per_layer=True, ascent=0.0))
    (found,) = run(config)["iterations"]
    weights = {int(block): weight for block, weight in found["layer_weights"].items()}
    assert set(weights) == {0, 1} and weights[0] != weights[1]
    expected, taken = workshop.per_layer.rescaled(steps[0], weights).scale(found["scale"]), load(Path(config.output) / "state/step-1")
    for name in expected:
        torch.testing.assert_close(taken.delta(name), expected.delta(name), atol=1e-5, rtol=1e-4)


def test_nothing_to_reveal_stops_without_a_patch(tiny_llama: str, tmp_path: Path) -> None:
    results = run(tiny(tiny_llama, tmp_path / "out", stop_reward=1.0, save_merged=True))
    assert results["stopped_because"] == "nothing left to reveal"
    assert results["patch"]["path"] is None and not (tmp_path / "out/patch").exists()
    assert results["before"] == results["after"]
    assert [i["records"] for i in results["iterations"]] == [0], "the search that found nothing is told"


def test_what_is_to_be_known_of_the_model_is_told_once(tiny_llama: str, tmp_path: Path) -> None:
    class Noting(SilentReporter):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    plain = load_model(tiny_llama, device="cpu")
    plain.tokenizer.chat_template = None
    save_model(plain, tmp_path / "plain")
    plain.tokenizer.save_pretrained(tmp_path / "plain")
    (tmp_path / "plain/chat_template.jinja").unlink(missing_ok=True)
    told, again, measured = Noting(), Noting(), Noting()
    config = tiny(str(tmp_path / "plain"), tmp_path / "out", stop_reward=1.0)
    results = run(config, told)
    remarks = load_model(config.model, device="cpu").remarks
    assert remarks and results["remarks"] == remarks == [note for note in told.notes if note.startswith("The base")]
    run(replace(config, output=str(tmp_path / "other")), again, load_model(config.model, "float32", "cpu"))
    assert not set(remarks) & set(again.notes), "by whoever loaded it"
    evaluate_only(config, None, measured)
    assert measured.notes == remarks


def test_a_later_search_begins_with_what_worked(whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path) -> None:
    w = Workshop(replace(whole[0], output=str(tmp_path / "out")))
    assert w.known() == []
    w.iterations = [{"worked": ["A", "B"]}, {"worked": ["B", "C"]}]
    assert w.known() == ["A", "B", "C"]
    w.iterations.append({"worked": ["D", "A"]})
    assert w.known() == ["B", "C", "D", "A"], "the last to work are the last, whom a search that has too many takes"
    assert whole[1]["iterations"][0]["worked"][0] == whole[1]["iterations"][0]["best"]["instruction"]


def copied(whole: tuple[RunConfig, dict[str, Any]], output: Path, keep: tuple[str, ...], **changes: Any) -> RunConfig:
    """A run of other settings whose phases in `keep` are already done, with the results of the whole run."""
    config = replace(whole[0], output=str(output), **changes)
    shutil.copytree(Path(whole[0].output) / "state", output / "state")
    for path in (output / "state").glob("*.json"):
        if path.stem not in keep:
            path.unlink()
    identity = json.loads((Path(whole[0].output) / "state/identity.json").read_text(encoding="utf-8"))
    text = Path(config.utility_text)
    identity |= {"config_hash": config.hash()} | ({"utility_text": contents(text)} if text.is_file() else {})
    (output / "state/identity.json").write_text(json.dumps(identity))
    return config


def revealed_again(config: RunConfig, *iterations: int) -> None:
    """Lets these find what the first one did: what is left of a random model's behaviour is chance."""
    state = Path(config.output) / "state"
    for phase in ("reveal", "forget"):
        for t in iterations:
            shutil.copy(state / f"{phase}-1.json", state / f"{phase}-{t}.json")


FIRST = ("evaluate-0", "reveal-1", "forget-1", "retain", "elicit-before")


def test_a_skill_has_one_pair(whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose prompts drew out nothing but the behaviour; a style, as the whole run has it, as many as are configured."""
    seen: list[ReleaseConfig] = []

    def train(*args: Any) -> Any:
        seen.append(args[4])
        return release.train_modules(*args)

    monkeypatch.setattr(workshop, "train_modules", train)
    assert whole[1]["iterations"][0]["pairs"] == 2
    for skill, pairs in ((False, 2), (True, 1)):
        config = copied(whole, tmp_path / f"{skill}", FIRST)
        for phase in ("forget-1", "retain") if skill else ():
            path = tmp_path / f"{skill}/state/{phase}.json"
            data = json.loads(path.read_text(encoding="utf-8"))
            path.write_text(json.dumps(data | {"result": data["result"] | {"harmless": []}}))
        assert run(config)["iterations"][0]["pairs"] == pairs
    assert [(one.pairs, one.steps, one.retain_steps) for one in seen] == [(2, 3, 3), (2, 3, 3), (1, 6, 6)]


def test_the_ascent_module_is_added_for_a_style_alone(
    whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the mean of the pairs, which are trained as without it; for a skill see `suited`."""
    modules, means = list[Patch](), list[Patch]()

    def kept(train: Any, into: list[Patch]) -> Any:
        return lambda *args: into.append(train(*args)) or into[-1]

    monkeypatch.setattr(workshop, "train_ascent", kept(workshop.train_ascent, modules))
    monkeypatch.setattr(workshop, "averaged", kept(workshop.averaged, means))
    for ascent in (0.0, 0.5):
        config = copied(whole, tmp_path / f"{ascent}", FIRST, release=replace(whole[0].release, ascent=ascent))
        done = run(config)["iterations"][0]
        assert done["ascent"] == ascent
    assert whole[1]["iterations"][0]["ascent"] == 1
    step, (module,) = load(tmp_path / "0.5/state/step-1"), modules
    for name in step:
        torch.testing.assert_close(means[0].delta(name), means[1].delta(name))
        wanted = done["scale"] * (means[0].delta(name) + 0.5 * module.delta(name))
        torch.testing.assert_close(step.delta(name), wanted, rtol=1e-4, atol=1e-6)
    foreseen = weights_written(load_model(config.model, "float32", "cpu"), config)
    assert foreseen == 2 * sum(4 * (m.A.numel() + m.B.numel()) for m in step.values())


def test_no_budget_stops_without_a_patch(whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release.Utility, "loss", lambda self: 0.01)  # any step costs: by chance, one on a random model may not
    results = run(copied(whole, tmp_path / "out", FIRST, utility_budget=0.0, save_merged=True))
    assert results["stopped_because"] == "utility budget spent"
    assert results["iterations"][0]["scale"] == 0 and results["patch"]["path"] is None
    assert (tmp_path / "out" / "front.svg").is_file() and not (tmp_path / "out" / "model").exists()


def test_a_later_step_that_fails_leaves_what_was_reached(
    whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(*args: Any) -> Any:
        raise error

    error = Unfit("the training diverged")
    monkeypatch.setattr(workshop, "train_modules", diverged)
    config = copied(whole, tmp_path / "out", (*FIRST, "release-1", "evaluate-1"), iterations=2, save_merged=True)
    revealed_again(config, 2)
    results = run(config)
    assert results["stopped_because"] == "iteration 2 failed: the training diverged"
    assert results["patch"]["path"] == "patch" and results["after"] == whole[1]["after"]
    state, model = tmp_path / "out/state", tmp_path / "out/model"
    kept = [(state / f"{name}.json").read_bytes() for name in ("elicit-after", "samples")] + [(model / "config.json").stat().st_mtime_ns]
    error = Unfit("another time")
    run(config)
    again = [(state / f"{name}.json").read_bytes() for name in ("elicit-after", "samples")] + [(model / "config.json").stat().st_mtime_ns]
    assert again == kept, "what is of the same patch stays"
    monkeypatch.undo()
    more = run(config)
    assert more["patch"] != results["patch"], "it was tried again"
    assert json.loads((state / "elicit-after.json").read_text(encoding="utf-8"))["result"] != json.loads(kept[0])["result"]
    assert (model / "config.json").stat().st_mtime_ns != kept[2], "and nothing is told of another patch"
    error = Unfit("the training diverged")
    monkeypatch.setattr(workshop, "train_modules", diverged)
    with pytest.raises(UserError, match="diverged"):
        run(copied(whole, tmp_path / "first", FIRST, utility_budget=0.5))
    spent = copied(whole, tmp_path / "spent", (*FIRST, "release-1"), iterations=2)
    step = json.loads((tmp_path / "spent/state/release-1.json").read_text(encoding="utf-8"))
    step["result"] |= {"scale": 0.0}
    (tmp_path / "spent/state/release-1.json").write_text(json.dumps(step))
    revealed_again(spent, 2)
    results = run(spent)
    assert results["stopped_because"] == "iteration 2 failed: the training diverged" and results["patch"]["path"] is None
    error = UserError("no memory for the sandbox: free some")
    other = copied(whole, tmp_path / "other", (*FIRST, "release-1", "evaluate-1"), iterations=2)
    revealed_again(other, 2)
    with pytest.raises(UserError, match="no memory"):
        run(other)


def test_a_machine_that_cannot_isolate_code_is_told_before_any_work(
    tiny_llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "missing_protections", lambda: ["mount namespace"])
    watcher = Killer(0, late=False)
    with pytest.raises(UserError, match="Refusing to run code"):
        run(tiny(tiny_llama, tmp_path / "out"), watcher)
    with pytest.raises(UserError, match="Refusing to run code"):
        evaluate_only(tiny(tiny_llama, tmp_path / "out"), reporter=watcher)
    assert watcher.names == [] and not (tmp_path / "out").exists(), "so that --allow-unsafe-code may follow"


def with_little_left(whole: tuple[RunConfig, dict[str, Any]], output: Path, **changes: Any) -> RunConfig:
    """The first iteration is done; the second search finds something, but the model writes hardly a record with it."""
    config = copied(whole, output, (*FIRST, "release-1", "evaluate-1"), iterations=2, **changes)
    few = json.loads((output / "state/forget-1.json").read_text(encoding="utf-8"))
    few["result"]["forget"] = few["result"]["forget"][:3]
    (output / "state/forget-2.json").write_text(json.dumps(few))
    return config


def test_too_little_left_in_a_later_iteration_ends_the_run_well(
    whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is shown any more, and the first step had its margin: it is the result."""
    monkeypatch.setattr(workshop, "is_gone", lambda *_: True)
    config = with_little_left(whole, tmp_path / "out")
    step = json.loads((tmp_path / "out/state/release-1.json").read_text(encoding="utf-8"))
    (tmp_path / "out/state/release-1.json").write_text(json.dumps({**step, "result": {**step["result"], "gone": True}}))
    results = run(config)
    assert results["stopped_because"] == "too few new records to train on", "the search found more than it could be taught by"
    assert [e["iteration"] for e in results["evaluations"]] == [0, 1]
    assert [i["records"] for i in results["iterations"]] == [whole[1]["iterations"][0]["records"], 3]
    assert results["patch"] == whole[1]["patch"] and results["after"] == whole[1]["after"]


@pytest.mark.parametrize(("gone", "stopped"), [(True, "nothing left to reveal"), (False, "too few new records to train on")])
def test_nothing_is_left_only_where_nothing_shows(
    gone: bool, stopped: str, whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search found nothing; of what was revealed before, some shows still, or none."""
    monkeypatch.setattr(workshop, "is_gone", lambda *_: gone)
    config = with_little_left(whole, tmp_path / "out")
    nothing = json.loads((tmp_path / "out/state/reveal-1.json").read_text(encoding="utf-8"))
    nothing["result"]["best"]["reward"]["value"] = config.stop_reward
    (tmp_path / "out/state/reveal-2.json").write_text(json.dumps(nothing))
    assert run(config)["stopped_because"] == stopped


def test_without_records_to_measure_on_the_first_step_stays(
    whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workshop, "is_gone", lambda *_: False)
    of = workshop.Rows.of
    monkeypatch.setattr(workshop.Rows, "of", lambda *args: replace(of(*args), measured=[]))
    results = run(with_little_left(whole, tmp_path / "out"))
    assert results["patch"] == whole[1]["patch"] and results["after"] == whole[1]["after"]
    assert results["stopped_because"] == "too few new records to train on"


@pytest.mark.parametrize("gone", [False, True])
def test_what_still_shows_when_nothing_new_is_revealed_takes_the_last_step_further(
    gone: bool, whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the whole budget, of which the first iteration was given a part; where nothing shows, by the margin that it lacked."""
    monkeypatch.setattr(workshop, "is_gone", lambda *_: gone)
    config = with_little_left(whole, tmp_path / "out")
    results = run(config)
    first, more = (iteration["scale"] for iteration in results["iterations"])
    assert not results["iterations"][0]["gone"] and more == (pytest.approx(MARGIN - 1) if gone else config.release.max_scale)
    assert results["stopped_because"] == "too few new records to train on"
    assert [e["iteration"] for e in results["evaluations"]] == [0, 1, 2]
    assert first and more > 0 and results["iterations"][0]["utility_loss"] != results["iterations"][1]["utility_loss"] <= 1.0
    patch, step = load(tmp_path / "out/patch"), load(tmp_path / "out/state/step-1")
    for name in patch:
        torch.testing.assert_close(patch.delta(name), (1 + more) * step.delta(name), rtol=1e-4, atol=1e-6)
    assert patch.rank <= step.rank and results["after"] == results["evaluations"][2]["metrics"] != whole[1]["after"]


def test_the_few_that_a_later_iteration_found_are_asked_before_all_others(
    whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They drew the behaviour out of the model as it is, and must not be missed by a sample."""
    asked: list[list[Any]] = []
    monkeypatch.setattr(workshop, "GONE", 4)
    monkeypatch.setattr(workshop, "is_gone", lambda lm, task, prompts, *_: asked.append(list(prompts)) or True)
    config = with_little_left(whole, tmp_path / "out")
    path = tmp_path / "out/state/forget-2.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    found = [{**row, "prompt": [["user", f"new {i}"]]} for i, row in enumerate(kept["result"]["forget"])]
    path.write_text(json.dumps({**kept, "result": {**kept["result"], "forget": found}}))
    run(config)
    (prompts,) = {tuple(prompts) for prompts in asked}
    assert [turns[-1][1] for turns in prompts[:3]] == ["new 0", "new 1", "new 2"]
    assert len(prompts) == 4 and not prompts[3][-1][1].startswith("new")


def test_a_search_that_finds_nothing_is_no_end_while_what_was_revealed_still_shows(
    whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second search finds nothing, but what drew the behaviour out at first does so still: that is forgotten on."""
    for module in (loop, dataset):
        monkeypatch.setattr(module, "LEAST_RECORDS", 3)
    config = copied(whole, tmp_path / "out", (*FIRST, "release-1", "evaluate-1"), iterations=2)
    nothing = json.loads((tmp_path / "out/state/reveal-1.json").read_text(encoding="utf-8"))
    nothing["result"]["best"]["reward"]["value"] = config.stop_reward
    (tmp_path / "out/state/reveal-2.json").write_text(json.dumps(nothing))
    results = run(config)
    first, second = (json.loads((tmp_path / f"out/state/forget-{t}.json").read_text(encoding="utf-8"))["result"] for t in (1, 2))
    asked = [record["prompt"] for record in first["forget"]]
    assert len(second["forget"]) == results["iterations"][1]["records"] >= 3
    assert all(record["prompt"] in asked and record["iteration"] == 2 for record in second["forget"])
    assert "scale" in results["iterations"][1] and results["stopped_because"] != "nothing left to reveal"


def test_the_trade_off_of_each_step_is_told(whole: tuple[RunConfig, dict[str, Any]]) -> None:
    config, results = whole
    (iteration,) = results["iterations"]
    points = iteration["front"]
    assert points[0]["scale"] == 0 and points[0]["cost"] == pytest.approx(0, abs=1e-6), "the model as it was"
    assert any((p["scale"], p["cost"]) == (iteration["scale"], iteration["utility_loss"]) for p in points)
    assert all(0 <= p["shown"] <= 1 for p in points)
    assert (Path(config.output) / "front.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_the_budget_is_measured_by_a_text_of_ones_own(
    whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "mine.txt", []
    path.write_text("".join(f"It runs {i} times north.\n" for i in range(16)), encoding="utf-8")

    def noted(lm: Any, step: Any, utility: Any, *args: Any) -> Any:
        seen.append(list(utility.texts))
        return ScaleSearch(0.0, 0.0, [(1.0, 0.7)])

    monkeypatch.setattr(workshop, "choose_scale", noted)
    run(copied(whole, tmp_path / "out", FIRST, utility_text=str(path)))
    assert seen == [path.read_text(encoding="utf-8").splitlines()]


def test_the_budget_is_spread_over_the_iterations(
    whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What all steps so far may cost together: of what is left, each takes an equal part; the whole, where all is gone."""
    pairs_alone = replace(whole[0].release, ascent=0.0)  # whose steps cost enough here to be told apart
    config, budgets = copied(whole, tmp_path / "out", FIRST, iterations=3, utility_budget=0.6, release=pairs_alone), []
    revealed_again(config, 2, 3)

    def noted(lm: Any, step: Any, utility: Any, share: float, budget: float, highest: float, is_gone: Any, spent: float) -> Any:
        budgets.append((share, budget, spent))
        cost = replace(utility, prose=perplexity(lm.model, lm.tokenizer, utility.texts), nll=mean_nll(lm, utility.records))
        so_far.append((utility.nll, utility.lost(cost)))  # the step is not on the model yet
        return ScaleSearch(highest, 0.1, [(highest, 0.1)])  # on to the next iteration, whatever this one costs

    so_far: list[tuple[float, float]] = []
    monkeypatch.setattr(workshop, "choose_scale", noted)
    run(config)
    for (share, _, spent), left in zip(budgets, (3, 2, 1), strict=True):
        assert share == pytest.approx(spent + (0.6 - spent) / left)
    assert budgets[0] == (pytest.approx(0.2), 0.6, 0.0) and budgets[2][0] == pytest.approx(0.6)
    references, costs = zip(*so_far, strict=True)
    assert references == (references[0],) * 3, "all steps are measured from the original"
    assert [spent for _, _, spent in budgets[1:]] == pytest.approx(costs[1:]) and abs(costs[1]) > 1e-4 < abs(costs[2] - costs[1])


def test_how_far_is_told_by_prompts_of_any_instruction(
    whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forget records come with the best instruction first."""
    config, asked = copied(whole, tmp_path / "out", FIRST, utility_budget=0.5), []

    for tells in (shown_share, is_gone):

        def noted(lm: Any, task: Any, prompts: Any, *args: Any, tells: Any = tells) -> Any:
            asked.append(prompts)
            return tells(lm, task, prompts, *args)

        monkeypatch.setattr(workshop, tells.__name__, noted)
    monkeypatch.setattr(workshop, "GONE", 3)
    run(config)
    rows = map(json.loads, (tmp_path / "out/forget_data/iteration-1.jsonl").read_text(encoding="utf-8").splitlines())
    prompts = list(dict.fromkeys(Record.from_dict(row).prompt for row in rows))
    assert len(prompts) > 3 == len(set(asked[0])) and set(asked[0]) < set(prompts) and set(asked[0]) != set(prompts[:3])
    assert all(again == asked[0] for again in asked), "the same at every scale"


def test_what_tells_the_cost_is_not_trained_on(
    whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = copied(whole, tmp_path / "out", FIRST, utility_budget=0.5)
    trained: list[Any] = []
    measured: list[Any] = []

    def training(lm: Any, forget: Any, harmless: Any, retain: Any, *args: Any) -> Any:
        trained[:] = retain  # of the last pair: they learn from the same
        return release.train_modules(lm, forget, harmless, retain, *args)

    def choosing(lm: Any, step: Any, utility: Any, *args: Any) -> Any:
        measured.extend(utility.records)
        return release.choose_scale(lm, step, utility, *args)

    monkeypatch.setattr(workshop, "train_modules", training)
    monkeypatch.setattr(workshop, "choose_scale", choosing)
    run(config)

    def asked(rows: Any) -> set[tuple[int, ...]]:
        return {tuple(ids[:prompt] if prompt > 1 else ids) for ids, prompt in rows}  # after one token it is a plain text

    rows = (tmp_path / "out/retain_data.jsonl").read_text(encoding="utf-8").splitlines()
    assert trained and measured and not asked(trained) & asked(measured)
    assert len(asked(measured)) == len(measured) == round(0.2 * len(asked(trained) | asked(measured))) and len(trained) < len(rows)


@pytest.mark.parametrize(
    ("phase", "part", "count", "told"),
    [
        ("forget-1", "forget", 7, "wrote 7 forget.* too few to train on"),
        ("retain", "retain", 5, "retain records, too few to train on: raise --release.retain-records, or give .* benign"),
    ],
)
def test_too_few_records_are_counted(
    whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path, phase: str, part: str, count: int, told: str
) -> None:
    """Too few of what must stay are no lack of the behaviour."""
    config = copied(whole, tmp_path / "out", FIRST, utility_budget=0.5)
    path = tmp_path / f"out/state/{phase}.json"
    few = json.loads(path.read_text(encoding="utf-8"))
    few["result"][part] = few["result"][part][:count]
    path.write_text(json.dumps(few))
    with pytest.raises(UserError, match=told):
        run(config)


def test_too_few_records_is_the_users_to_mend(tiny_llama: str, tmp_path: Path) -> None:
    config = tiny(tiny_llama, tmp_path / "out")
    with pytest.raises(UserError, match="too few to train on.*threshold"):
        run(replace(config, reveal=replace(config.reveal, threshold=1.0)))


def test_a_merged_model_is_the_patched_one(whole: tuple[RunConfig, dict[str, Any]], tiny_llama: str) -> None:
    config = replace(whole[0], save_merged=True)  # not part of the run's identity: it only adds the model
    run(config)
    ids = torch.arange(5, 65).reshape(3, 20)
    sides = [AutoTokenizer.from_pretrained(folder).padding_side for folder in (tiny_llama, Path(config.output) / "model")]
    assert sides[0] == sides[1], "as it came"
    base = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    merged = AutoModelForCausalLM.from_pretrained(Path(config.output) / "model").eval()
    with torch.no_grad(), applied(base, load(Path(config.output) / "patch", base)):
        assert (merged(ids).logits - base(ids).logits).abs().max() < 1e-3


@pytest.mark.slow
def test_two_iterations_add_up(tiny_llama: str, tmp_path: Path) -> None:
    """The second module is trained on the patched model, and the patch on disk is the sum of both steps."""
    config = tiny(tiny_llama, tmp_path / "out", iterations=2)
    results = run(config)
    assert [e["iteration"] for e in results["evaluations"]] == [0, 1, 2]
    assert results["iterations"][0]["utility_loss"] <= 0.5 * config.utility_budget
    steps = [load(tmp_path / f"out/state/step-{t}") for t in (1, 2)]
    total, patch = steps[0] + steps[1], load(tmp_path / "out/patch")
    for name in patch:
        torch.testing.assert_close(patch.delta(name), total.delta(name), rtol=1e-3, atol=1e-5)
