"""The command line: what is parsed, in which order, and how mistakes are told. A model is loaded only to audit or measure it."""

import dataclasses
import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from reveal_release import RunConfig, UserError, ablations, auditor, cli, comparison, evaluator, loop, parsers, study
from reveal_release.config import RevealConfig
from reveal_release.models import LanguageModel, load_model
from reveal_release.release.adapter import save
from reveal_release.release.base import fingerprint
from reveal_release.release.patch import LowRank, Patch
from reveal_release.report.words import clean
from reveal_release.sandbox import missing_protections
from reveal_release.suites import SUITES, evaluate
from reveal_release.testbed import recipe
from reveal_release.testbed.sources import SOURCES, TOFU, verify

SUITE_DATA = Path(__file__).with_name("suites") / "data"
MINE = """name: mine
description: shouting
seeds: [Write a comment., Shout at me.]
benign: [Whisper to me.]
scorer: {regex: '[A-Z]{4}'}
evaluate: {instructions: [Write a reply.]}
"""


def parsed(*arguments: str, command: str = "run") -> RunConfig:
    options = parsers.build_parser().parse_args(parsers.config_first([command, *(parsers.dashed(a) for a in arguments)]))
    return parsers.run_config(options[command])


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a refused command."""
    assert cli.main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err
    return err.removeprefix("error: ").strip()


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no `out` of an earlier `make demo` lies."""
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


# ---- parsing ----


def test_defaults_are_the_dataclass() -> None:
    for command in ("run", "reveal", "evaluate"):
        assert parsed(command=command) == RunConfig()


def test_every_field_is_a_flag_with_a_help_text() -> None:
    keys = [key for key, *_ in parsers.settings()]
    tree = RunConfig().to_dict()
    nested = [f"{name}.{key}" for name, part in tree.items() if isinstance(part, dict) for key in part]
    assert sorted(keys) == sorted([name for name, part in tree.items() if not isinstance(part, dict)] + nested)
    assert all(text for *_, text in parsers.settings())


def test_help_texts_of_fields_that_share_a_line() -> None:
    @dataclasses.dataclass
    class Sharing:
        """Two on a line.

        Args:
            width: of a page, in mm; height: of a page: the other side.
            depth: 0 means none; nothing else does.
        """

        width: int = 1
        height: int = 2
        depth: int = 3

    assert {key: text for key, _, _, text in parsers.settings(Sharing)} == {
        "width": "of a page, in mm", "height": "of a page: the other side", "depth": "0 means none; nothing else does",
    }  # fmt: skip
    texts = {key: text for key, _, _, text in parsers.settings()}
    assert texts["device"] == "auto, cpu or cuda"
    assert texts["reveal.sources"] == "where candidates come from: seeds, rewrite, user_turn, induction, soft_prompt, endpoint"
    assert ";" not in texts["release.steps"]


@pytest.mark.parametrize("flag", ["--utility-budget", "--utility_budget"])
def test_dashes_or_underscores(flag: str) -> None:
    assert parsed(flag, "0.05").utility_budget == parsed(f"{flag}=0.05").utility_budget == 0.05
    assert parsed("--reveal.final_samples", "5").reveal.final_samples == 5
    assert parsed("--reveal.final-samples", "5").reveal.final_samples == 5


def test_underscores_in_values_stay() -> None:
    assert parsed("--output=out_of/my_run", "--model", "my_model") == RunConfig(output="out_of/my_run", model="my_model")


@pytest.mark.parametrize(("arguments", "saved"), [((), False), (("--save-merged",), True), (("--save_merged", "false"), False)])
def test_bare_switches(arguments: tuple[str, ...], saved: bool) -> None:
    assert parsed(*arguments, "--seed", "3") == RunConfig(save_merged=saved, seed=3)
    assert parsed("--seed", "3", *arguments) == RunConfig(save_merged=saved, seed=3)


def test_flags_win_over_yaml_which_wins_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("seed: 4\nreveal:\n  evaluations: 60\n  samples: 3\nrelease:\n  learning_rate: 1e-3\nsave_merged: true\n")
    config = parsed("--reveal.evaluations", "70", "--config", str(path), "--reveal.sources", "[seeds]", "--seed=5")
    assert (config.reveal.samples, config.release.learning_rate, config.save_merged) == (3, 1e-3, True)
    assert config.reveal.sources == ("seeds",)
    assert config.reveal.records == RunConfig().reveal.records
    assert config.seed == 5 and config.reveal.evaluations == 70
    flags = ["--reveal.evaluations", "70", "--seed=5", "--release.keep.l2", "1e-2", f"--config={path}"]
    for turn in range(len(flags)):  # wherever the file is named
        if not flags[turn - 1].startswith("--") or "=" in flags[turn - 1]:
            assert parsed(*flags[turn:], *flags[:turn]) == parsed(f"--config={path}", *flags[:-1])
    assert parsed(*flags).release.keep == {**RunConfig().release.keep, "l2": 0.01}


@pytest.mark.parametrize("command", ["run", "reveal", "evaluate", "audit"])
def test_printed_configuration_loads_to_the_same(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--release.keep", "{kl: 2, gauge-free: 1e-5}", "--reveal.sources", "[seeds, rewrite]", "--save-merged", "--task", "ner"]
    assert cli.main([command, *arguments, "--print-config"]) == 0
    text = capsys.readouterr().out
    path = tmp_path / "c.yaml"
    path.write_text(text)
    more = ["--patch", "p"] if command == "audit" else []  # what it cannot do without
    first = parsed(*arguments, *more, command=command)
    assert first.release.keep == {"kl": 2.0, "gauge-free": 1e-5} and first.task == "ner"
    assert parsed("--config", str(path), *more, command=command) == first
    assert cli.main([command, "--print_config", "--config", str(path)]) == 0
    assert capsys.readouterr().out == text


def test_the_run_folders_configuration_loads(tmp_path: Path) -> None:
    config = dataclasses.replace(RunConfig(), seed=9, dtype="bfloat16", save_merged=True)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.to_dict(), sort_keys=False))
    for command, more in (("run", []), ("evaluate", []), ("audit", ["--patch", "p"])):
        assert parsed("--config", str(path), *more, command=command) == config


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_has_an_example_that_parses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command.split(), "--help"]) == 0
    out = capsys.readouterr().out
    examples = [line.split() for line in re.split(r"^examples?:$", out, flags=re.MULTILINE)[1].splitlines() if line]
    assert len(examples) == (2 if command in ("evaluate", "testbed tofu") or command.startswith("study") else 1)
    for example in examples:
        assert example[0] == "reveal-release" and " ".join(example[1:]).startswith(command)
        parsers.build_parser().parse_args(example[1:])


@pytest.mark.parametrize(
    ("command", "named", "left_out"),
    [
        ("run", ["--reveal.samples", "--release.rank", "--evaluate.prompts", "--utility-budget"], []),
        ("reveal", ["--reveal.samples", "--stop-reward", "--release.retain-records"], ["--release.rank", "--evaluate.prompts"]),
        ("evaluate", ["--evaluate.prompts", "--reveal.threshold", "--seed"], ["--release.rank", "--reveal.samples", "--output"]),
        ("audit", ["--reveal.samples", "--release.learning-rate"], ["--release.rank", "--evaluate.prompts", "--utility-budget"]),
    ],
)
def test_help_leaves_out_what_the_command_has_no_use_for(
    command: str, named: list[str], left_out: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {flag} " in out for flag in named) and not any(f"  {flag} " in out for flag in left_out)
    assert "(default: )" not in out and "(default: 0)" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("reveal-release ")


def test_formats_may_be_repeated_and_are_no_setting(capsys: pytest.CaptureFixture[str]) -> None:
    options = parsers.build_parser().parse_args(["reveal", "--format", "trl,jsonl", "--format=openunlearning"]).reveal
    assert options.format == ["trl,jsonl", "openunlearning"] and parsers.run_config(options) == RunConfig()
    assert cli.main(["reveal", "--print-config"]) == 0
    assert "format" not in yaml.safe_load(capsys.readouterr().out), "so that `run` takes it too"


def test_build_flags_are_the_recipes() -> None:
    options = parsers.build_parser().parse_args(["testbed", "build", "--data", "d", "--output", "o"]).testbed.build.as_dict()
    assert options.pop("processes") == 1 and options.pop("without") is None
    default = recipe.BuildConfig(data="d", output="o")
    assert options == {name: getattr(default, name) for name in options}
    for family in recipe.FAMILIES:
        arguments = ["testbed", "build", "--data", "d", "--output", "o", "--without", "a", "--without", "b", "--family", family]
        assert parsers.build_parser().parse_args(arguments).testbed.build.without == ["a", "b"]


# ---- mistakes ----


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("compare --seeds 0,x", "--seeds has 'x': give whole numbers with commas between, such as 0,1,2"),
        ("--task toxicity", "no command before --task: did you mean `reveal-release run --task ...`?"),
        ("compare --methods ,", "--methods names nothing: give names with commas between, or leave it out"),
        ("compare --data raw", "--data is for `--data-from real`: give that too, or leave it out"),
        ("run --forget-type city", "forget_type is 'city', but the task toxicity does not read it: leave it out, or give --task ner"),
        ("run --utilty-budget 0.1", "no option '--utilty-budget': did you mean '--utility-budget'?"),
        ("run --reveal.evalutions=9", "no option '--reveal.evalutions': did you mean '--reveal.evaluations'?"),
        ("run --xyz 3", "no option '--xyz': --help lists them"),
        ("run --rank 8", "no option '--rank': did you mean '--release.rank'?"),
        ("run --batch 8", "no option '--batch': did you mean '--reveal.batch' or '--release.batch'?"),
        ("run --lr 1e-4", "no option '--lr': did you mean '--release.learning-rate'?"),
        ("run --lora-r 8", "no option '--lora-r': did you mean '--release.rank'?"),
        ("run --cpu", "no option '--cpu': did you mean '--device'?"),
        ("evaluate --json=", "--json is empty: give a file, or leave it out"),
        ("run --model_name_or_path x", "no option '--model-name-or-path': did you mean '--model'?"),
        ("evaluate --fp16", "no option '--fp16': did you mean '--dtype'?"),
        ("patch info x --fp16", "no option '--fp16': --help lists them"),
        ("run --config .", "no file '.': --config takes a YAML file of settings"),
        ("run --seed -1", "seed is -1: give a number from 0 to 4294967295"),
        ("run extra", "'extra' is no option: options start with --, and several values have commas between"),
        ("compare --seeds 0 1", "'1' is no option: options start with --, and several values have commas between"),
        ("compare --methods reveal-releas", "no method 'reveal-releas': did you mean 'reveal-release'?"),
        ("patch combine a b --weights 1,x --output o", "--weights has '1,x': give numbers with commas between, such as 1,0.5"),
        ("run --reveal.evaluations -3", "reveal.evaluations is -3: give a whole number of at least 1"),
        (
            "run --task knowledge --forget-authors forget2",
            "--forget-authors 'forget2' is no split of TOFU's: give forget01, forget05, forget10 or names",
        ),
        ("run --device gpu", "no device 'gpu': give auto, cpu or cuda"),
        ("run --seed x", "seed is 'x': give a whole number"),
        ("run --reveal.threshold high", "reveal.threshold is 'high': give a number"),
        ("run --dtype int8", "dtype is 'int8': give one of auto, float32, bfloat16"),
        ("run --save-merged maybe", "save_merged is 'maybe': give true or false"),
        ("run --reveal.sources seeds", "reveal.sources is 'seeds': give a list such as '[seeds, rewrite]'"),
        ("run --seed", "--seed needs a value"),
        ("evaluate --suite-limit few", "suite_limit is 'few': give a whole number"),
        ("evaluate --suite-temperature hot", "suite_temperature is 'hot': give a number"),
        ("evaluate --suite-max-new-tokens 9", "--suite-max-new-tokens without a suite: give --suite too, or leave it out"),
        ("reveal --format trl,csv", "--format 'csv': choose from openunlearning, trl, jsonl"),
        ("reveal --format", "--format needs a value"),
        ("run --format trl", "no option '--format': --help lists them"),
        ("evaluate --suite humanevil", "no suite 'humanevil': choose from humaneval, mbpp, mbpp-all, gsm8k"),
        ("run --utility-budget 7", "utility_budget is 7.0: give a number from 0 to 1 (0.02 is 2 %)"),
        ("evaluate --forget-type x", "forget_type is 'x', but the task toxicity does not read it: leave it out, or give --task ner"),
        ("rum", "no command 'rum': did you mean 'run'?"),
        ("testbed bild", "no command 'bild': did you mean 'build'?"),
        ("testbed", "no command given: choose from list, build, tofu, measure, sources"),
        ("testbed build --output o", "missing: --data"),
        ("audit --task toxicity", "missing: --patch"),
        ("audit --patch p --repeats few", "repeats is 'few': give a whole number"),
        ("tasks valdate x", "no command 'valdate': did you mean 'validate'?"),
        ("tasks validate", "missing: FILE"),
        ("tasks validate x --fast", "no option '--fast': --help lists them"),
        ("testbed build --data d --output o --processes 0", "--processes and --tokens: give a whole number of at least 1"),
        ("run --config missing.yaml", "no file 'missing.yaml': --config takes a YAML file of settings"),
    ],
)
def test_mistakes_on_the_command_line(arguments: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failure(capsys, *arguments.split()).replace(f"{os.getcwd()}{os.sep}", "") == line


def test_an_empty_word_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    """As a variable that is not set leaves one."""
    assert failure(capsys, "run", "", "--task", "ner") == "'' is no option: options start with --, and several values have commas between"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("utilty_budget: 0.1", "no setting 'utilty_budget': did you mean 'utility_budget'?"),
        ("reveal:\n  evalutions: 9", "no setting 'reveal.evalutions': did you mean 'reveal.evaluations'?"),
        ("reveal:\n  evaluations: many", "reveal.evaluations is 'many': give a whole number"),
        ("release:\n  steps: 1.5", "release.steps is '1.5': give a whole number"),
        ("task: ner\nreveal: 3", "reveal is 3: give its settings below it, a line each, or leave it out"),
        ("reveal:\n  evalu-ations: 9", "no setting 'reveal.evalu-ations': did you mean 'reveal.evaluations'?"),
        ("seeds: 3", "no setting 'seeds': did you mean 'seed'?"),
        ("patch: out", "no setting 'patch': it is another command's, leave it out"),
        ("release:\n  keep:", "release.keep is empty: give a value, or leave it out"),
        ("release.keep.l2: 0.1", "release.keep is named in the file as a flag names it: write `release: {keep: {NAME: X}}` there"),
        ("task: ner\nmodel:", "model is empty: give a value, or leave it out"),
        ("", "--config holds no settings: give lines such as `task: toxicity`"),
        ("- a", "--config holds no settings: give lines such as `task: toxicity`"),
    ],
)
def test_mistakes_in_yaml(text: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert failure(capsys, "run", "--config", str(path)) == line


def test_a_section_of_comments_alone_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("task: ner\nrelease:\n  # steps: 3\nreveal:\n  final-samples: 3\n")
    assert parsed("--config", str(path)) == RunConfig(task="ner", reveal=RevealConfig(final_samples=3))


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("patch combine", "PATCH [PATCH ...] --output FOLDER [OPTIONS]"), ("patch combine", "--weights X,X "),
        ("patch info", "info PATCH [OPTIONS]"), ("study orthogonality", "--seeds N,N "), ("study ablations", "--variants NAME,NAME "),
    ],
)  # fmt: skip
def test_help_shows_a_list_as_it_is_written(command: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command.split(), "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert " ".join(shown.split()) in text and "[N,N ...]" not in text and "[X,X ...]" not in text and "[NAME,NAME ...]" not in text


def test_a_bundled_task_needs_no_validation(capsys: pytest.CaptureFixture[str]) -> None:
    assert failure(capsys, "tasks", "validate", "ner").startswith("ner comes with the package, and there is nothing to check: give a .yaml")


def test_broken_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("task: [\n  a: b")
    line = failure(capsys, "run", "--config", str(path))
    assert line.startswith("--config is not valid YAML: while parsing") and "line 1, column 7" in line and "unicode" not in line


def test_an_unknown_task_is_refused_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = failure(capsys, "run", "--task", "toxcity", "--output", str(tmp_path / "out"))
    assert line == "no task 'toxcity': did you mean 'toxicity'?"
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_patch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "adapter_config.json" in failure(capsys, "evaluate", "--patch", str(tmp_path))
    assert "adapter_config.json" in failure(capsys, "evaluate", "--patch", "")
    assert "adapter_config.json" in failure(capsys, "audit", "--patch", str(tmp_path), "--output", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("evaluate --output o", "evaluate does not read --output: give --json FILE to keep the figures"),
        ("evaluate --release.keep.kl 3", "evaluate does not read --release.keep: leave it out"),
        ("audit --patch p --iterations=3", "audit does not read --iterations: leave it out"),
        ("study orthogonality --save-merged", "study orthogonality does not read --save-merged: leave it out"),
    ],
)
def test_a_flag_that_the_command_does_not_read(arguments: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failure(capsys, *arguments.split()) == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_a_library_made_another_error_of(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def swallows(options: object) -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise ImportError("cannot load module more than once per process") from None

    before = signal.getsignal(number)
    monkeypatch.setitem(cli.COMMANDS, "run", swallows)
    try:
        assert cli.main(["run"]) == 128 + number
    finally:
        signal.signal(number, before)
    assert capsys.readouterr().err.strip() == "stopped; the same command goes on from here"


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        ("--suite gsm8k --suite-samples 2", "samples and k are for code, and gsm8k is scored by one answer a problem"),
        ("--suite mbpp --suite-samples 5", "5 samples at temperature 0 are all the same: give a temperature such as 0.8"),
        ("--suite mbpp --suite-limit 0", "limit is 0: give a whole number of at least 1"),
        ("--suite mbpp --suite-file none.jsonl", "cannot read none.jsonl: No such file"),
    ],
)
def test_a_suite_that_will_not_do_is_refused_before_the_model_is_loaded(
    arguments: str, start: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def loads(*arguments: object) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(evaluator, "load_model", loads)
    name = arguments.split()[1]
    file = [] if "--suite-file" in arguments else ["--suite-file", str(SUITE_DATA / f"{name}.jsonl")]
    assert failure(capsys, "evaluate", *arguments.split(), *file).startswith(start)


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y: Permission denied"),
        (UserError("two\nlines"), "two lines"),
        (torch.OutOfMemoryError("CUDA out of memory"), "the GPU's memory is full"),
    ],
)
def test_errors_of_a_command_are_one_line(
    error: Exception, start: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(loop, "run", fails)
    assert failure(capsys, "run").startswith(start)


@pytest.mark.parametrize(
    ("command", "kept", "trains"),
    [
        ("run", True, True), ("audit --patch x", True, True), ("reveal", True, False),
        ("evaluate", False, False), ("testbed measure", False, False),
    ],
)
def test_a_full_machine_is_told_with_what_its_command_can_do(
    command: str, kept: bool, trains: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`evaluate` keeps nothing that could go on, and trains nothing in batches."""
    name = " ".join(word for word in command.split() if word not in ("--patch", "x"))
    for error in (torch.OutOfMemoryError("CUDA out of memory"), OSError(errno.ENOSPC, "No space left on device")):

        def fails(_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setitem(cli.COMMANDS, name, fails)
        line = failure(capsys, *command.split(), *(["--model", "m"] if name == "testbed measure" else []))
        assert ("goes on from here" in line) == kept and ("then give the same command again" in line) == (not kept)
        assert ("--release.batch" in line) == (trains and "GPU" in line)


def test_a_fault_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise OSError(errno.EINVAL, "a fault of the program")

    monkeypatch.setattr(loop, "run", fails)
    with pytest.raises(OSError, match="a fault"):
        cli.main(["run"])


def test_figures_of_an_evaluation_are_kept(tiny_llama: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = "--evaluate.prompts 2 --evaluate.neutral 60 --evaluate.sentences 2 --evaluate.functions 1 --evaluate.problems 2".split()
    path = tmp_path / "kept" / "figures.json"
    given = ["evaluate", "--task", "ner", "--model", tiny_llama, *small]
    assert failure(capsys, *given, "--json", str(tmp_path)).endswith("is a folder: give a file")
    assert cli.main([*given, "--json", str(path)]) == 0
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert (kept["model"], kept["patch"]) == (tiny_llama, None)
    settings = kept["settings"]
    assert (settings["task"], settings["evaluate"]["problems"], kept["suite"]) == ("ner", 2, None) and kept["version"]
    assert kept["metrics"]["retain"]["maths_exact_match"]["n"] == 2 and str(path) in capsys.readouterr().out.replace("\n", "")
    assert failure(capsys, *given, "--json", str(path)).endswith("exists: give another file, or delete it")
    assert json.loads(path.read_text(encoding="utf-8")) == kept


def test_what_compare_and_study_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[Any, ...]] = []

    def noted(*arguments: Any) -> Any:
        given.append(arguments)
        raise UserError("enough")

    monkeypatch.setattr(comparison, "compare", noted)
    monkeypatch.setattr(study, "study", noted)
    monkeypatch.setattr(ablations, "ablations", noted)
    for command in (
        "compare --task ner --methods npo,dpo --seeds 1,2 --data-from real,name --oracle never --data raw",
        "study orthogonality --variants kl,olora --seeds 3 4 --forgetting 0.5 --release.keep.l2 1e-2",
        "study ablations --variants 'rank 8,layers 1' --seeds 5 --most-iterations 3 --data raw",
        "study ablations",
        "study ablations --seed 4",
    ):
        assert cli.main(shlex.split(command)) == 2
    compared, studied, ablated, *seeded = given
    assert [one[1] for one in seeded] == [[0, 1, 2], [4]]
    assert compared[0] == RunConfig(task="ner")
    assert compared[1:6] == (["npo", "dpo"], [1, 2], ["real", "name"], "never", "raw")
    assert studied[0].release.keep == {**RunConfig().release.keep, "l2": 0.01}
    assert studied[1:3] == (["kl", "olora"], [3, 4]) and studied[4] == 0.5
    assert ablated[1:4] == ([5], 3, "raw") and ablated[5] == ["rank 8", "layers 1"]


def test_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stops(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "run", stops)
    monkeypatch.setattr(auditor, "audit", stops)
    (tmp_path / "adapter_config.json").write_text("{}")
    for arguments in (["run"], ["audit", "--patch", str(tmp_path)]):
        assert cli.main(arguments) == 130
        assert capsys.readouterr().err.strip() == "stopped; the same command goes on from here"
    for name in ("build", "tofu", "measure"):  # which keeps nothing
        monkeypatch.setitem(cli.COMMANDS, f"testbed {name}", stops)
        given = ["--model", "m"] if name == "measure" else ["--data", "d", "--output", "o"]
        assert cli.main(["testbed", name, *given]) == 130
        assert ("goes on from here" in capsys.readouterr().err) == (name != "measure")


def test_what_a_task_does_not_read_is_refused_by_an_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    line = failure(capsys, "audit", "--forget-type", "event", "--patch", str(tmp_path), "--output", str(tmp_path / "out"))
    assert line.startswith("forget_type is 'event', but the task toxicity does not read it")


@pytest.mark.parametrize("reason", ["", "'no licence'", "3"])
def test_a_task_that_exits_has_not_succeeded(reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    body = f"    def __init__(self, config):\n        raise SystemExit({reason})\n"
    path.write_text(f"from reveal_release.tasks.ner import NER\n\nclass Mine(NER):\n    name = 'mine'\n    description = 'names'\n{body}")
    assert failure(capsys, "evaluate", "--task", str(path)) == f"{path}:7: raises SystemExit ({reason.strip(chr(39))}): mend the Python"


def test_as_a_process_torch_stays_out_and_a_mistake_is_one_line() -> None:
    code = "import sys; from reveal_release.cli import main; c = main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(c)"
    done = subprocess.run([sys.executable, "-c", code, "run", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--utility-budget X" in done.stdout and done.stderr == ""
    done = subprocess.run([sys.executable, "-c", code, "testbed", "list"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("testbed-gpt2 ") and done.stderr == ""
    done = subprocess.run([sys.executable, "-c", code, "run", "--sed", "1"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: no option '--sed': did you mean '--seed'?\n"


# ---- an audit ----


def test_an_audit_of_a_patch_is_told(tiny_llama: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "task.yaml").write_text(MINE.replace("[A-Z]{4}", "(river|bridge|train)"))
    lm = load_model(tiny_llama, "float32", "cpu")
    patch = Patch({"model.layers.0.mlp.gate_proj": LowRank(torch.ones(2, 32), torch.ones(48, 2))})
    save(patch, tmp_path / "patch", base_model_name_or_path=tiny_llama, fingerprint=fingerprint(lm.model))
    small = {"evaluations": 4, "samples": 2, "start": 2, "batch": 2, "candidates": 4, "finalists": 2, "final-samples": 6}
    arguments = ["audit", "--task", str(tmp_path / "task.yaml"), "--model", tiny_llama, "--device", "cpu", "--repeats", "1"]
    arguments += ["--patch", str(tmp_path / "patch"), "--output", str(tmp_path / "out"), "--attacks", "few-shot, quantise"]
    arguments += [f"--reveal.{name}={value}" for name, value in small.items()]
    assert cli.main(arguments) == 0
    out = " ".join(capsys.readouterr().out.split())
    results = json.loads((tmp_path / "out/audit.json").read_text(encoding="utf-8"))
    assert list(results["attacks"]) == ["search", "few_shot", "quantise"] and "8-bit weights" in out
    assert "1 search of 8 instructions" in out and results["verdict"] in out
    assert len(results["strongest"]) > 1 and all(clean(one["instruction"], 12).rstrip("…") in out for one in results["strongest"])
    assert "Search 1 of 1: the released model" in (tmp_path / "out/log.txt").read_text(encoding="utf-8")
    assert failure(capsys, *arguments, "--attacks", "quantize") == "no attack 'quantize': did you mean 'quantise'?"
    assert cli.main([*arguments, "--seed", "1"]) == 2
    assert "was made with seed 0, and this has 1: give the same, or choose another --output" in capsys.readouterr().err


# ---- a public suite ----


def test_help_names_every_suite(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--help"]) == 0
    words = set(re.findall(r"[\w-]+", capsys.readouterr().out.partition("--suite NAME")[2].partition("--suite-file")[0]))
    assert words >= set(SUITES)


def test_a_model_is_measured_on_a_suite_with_a_patch_or_without(
    tiny_llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lm = load_model(tiny_llama, "float32", "cpu")
    patch = Patch({"model.layers.0.mlp.gate_proj": LowRank(torch.ones(2, 32), torch.ones(48, 2))})
    save(patch, tmp_path / "patch", base_model_name_or_path=tiny_llama, fingerprint=fingerprint(lm.model))
    logits: list[torch.Tensor] = []

    def answers(lm: LanguageModel, prompts: list[list[int]], *_: object, **__: object) -> list[str]:
        """The first problem's answer is right, whatever the model."""
        with torch.no_grad():
            logits.append(lm.model(torch.tensor(prompts[:1])).logits)
        return ["The sum is 18.\n#### 18"] * len(prompts)

    monkeypatch.setattr(evaluate, "generate", answers)
    common = ["evaluate", "--model", tiny_llama, "--device", "cpu", "--suite", "gsm8k", "--suite-max-new-tokens", "8"]
    common += ["--suite-file", str(SUITE_DATA / "gsm8k.jsonl"), "--suite-limit", "2"]
    for more in ([], ["--patch", str(tmp_path / "patch")]):
        assert cli.main([*common, *more]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert lines[-2:] == [["gsm8k"], ["exact", "match", "50.0", "%", "[9.5,", "90.5]", "2"]]  # Wilson's interval of 1 of 2
    assert len(logits) == 2 and not torch.allclose(logits[0], logits[1])
    assert cli.main([*common, "--json", str(tmp_path / "figures.json")]) == 0
    took = {"limit": 2, "samples": 1, "temperature": 0.0, "max_new_tokens": 8}
    of = {"name": "gsm8k", "file": str(SUITE_DATA / "gsm8k.jsonl"), **took}
    assert json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["suite"] == of, "defaults as well"


@pytest.mark.skipif(bool(missing_protections()), reason=f"this machine gives no {missing_protections()}")
def test_code_is_sampled_for_pass_at_k(tiny_llama: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "task_id": "Short/0", "prompt": "def same(x):\n    \"x\"\n", "entry_point": "same", "canonical_solution": "    return x\n",
        "test": "def check(f):\n    assert f(3) == 3\n",
    }  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    common = ["evaluate", "--model", tiny_llama, "--device", "cpu", "--suite", "humaneval", "--suite-file", str(path)]
    assert cli.main([*common, "--suite-max-new-tokens", "8", "--suite-samples", "10", "--suite-temperature", "0.8"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[-3] == ["humaneval"] and [line[:3] for line in lines[-2:]] == [["pass@1", "0.0", "%"], ["pass@10", "0.0", "%"]]
    assert cli.main(common) == 2
    assert "error: Short/0 needs " in capsys.readouterr().err


# ---- lists and sources ----


def test_tasks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tasks"]) == 0
    assert any(line.startswith("toxicity ") for line in capsys.readouterr().out.splitlines())


def test_a_sound_task_is_told_with_the_command_that_runs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "my task.yaml"
    path.write_text(MINE)
    assert cli.main(["tasks", "validate", str(path)]) == 0
    first, counted, command = capsys.readouterr().out.splitlines()
    assert first == f"{path}: a sound task, mine: shouting"
    assert counted == "  2 seeds, 1 benign instructions, 1 held-out instructions with 8 samples each; scored by regex [A-Z]{4}"
    arguments = shlex.split(command.removeprefix("  run it: reveal-release "))
    assert parsed(*arguments[1:]) == RunConfig(task=str(path), output="out/mine")


def test_a_task_with_another_ending_is_run_as_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text(MINE)
    assert cli.main(["tasks", "validate", "mine.txt"]) == 0
    assert "run --task ./mine.txt --model" in capsys.readouterr().out, "else it would be taken for a bundled task's name"


def test_a_home_folder_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    (tmp_path / "config.yaml").write_text("model: ~/models/one\nevaluate: {scorer: ~/scorer}")
    found = parsed("--config", str(tmp_path / "config.yaml"), "--output=~/out")
    assert (found.model, found.evaluate.scorer, found.output) == ("/home/ada/models/one", "/home/ada/scorer", "/home/ada/out")


def test_a_seed_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(comparison, "compare", lambda config, methods, seeds, *args: given.append((methods, seeds)) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main("compare --seeds 0,00,1 --methods npo,npo".split())
    assert given == [(["npo"], [0, 1])]


PYTHON = """from reveal_release.tasks import Task

class Mine(Task):
    name = "mine"
    description = "nothing"
    seeds = ("Ask me something.",)
    benign = ("Describe a garden.",)

    def score(self, records):
        return [len(record.text) for record in records]

    def evaluate(self, lm, progress=None):
        return self.nothing

    def evaluation_instructions(self):
        return ()
"""


def test_what_a_task_in_python_raises_is_a_line(tiny_llama: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PYTHON)
    assert cli.main(["tasks", "validate", str(path)]) == 1
    raised = "raises AttributeError ('{}' object has no attribute '{}'): mend the Python"
    assert capsys.readouterr().out == f"{path}:10: {raised.format('Record', 'text')}\n"
    assert cli.main(["evaluate", "--task", str(path), "--model", tiny_llama]) == 2
    assert capsys.readouterr().err.endswith(f"error: {path}:13: {raised.format('Mine', 'nothing')}\n")


def test_every_problem_of_a_task_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(MINE.replace("benign", "bening").replace("[A-Z]{4}", "[A-Z"))
    assert cli.main(["tasks", "validate", str(path)]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == "" and len(lines) == 2
    assert lines[0] == f"{path}:4: no key 'bening': did you mean 'benign'?"
    assert lines[1].startswith(f"{path}:5: scorer.regex '[A-Z' is no regular expression")
    for command in ("run", "reveal", "evaluate"):
        output = [] if command == "evaluate" else ["--output", str(tmp_path / "out")]
        line = failure(capsys, command, "--task", str(path), *output)
        assert line == f"{lines[0]} (and 1 more: `reveal-release tasks validate {path}` lists all)"
    assert not (tmp_path / "out").exists()


def test_a_missing_task_file_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("tasks validate", "run --task", "evaluate --task"):
        line = failure(capsys, *command.split(), "no/such.yaml")
        assert line.startswith("no task file 'no/such.yaml' (No such file or directory): give a .yaml or .py file")


def test_sources_are_listed_with_origin_and_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["testbed", "sources"]) == 0
    out = capsys.readouterr().out
    for source in (*SOURCES, TOFU):
        assert source.folder in out and source.origin in out and source.commit in out and source.licence in out
        assert len(source.commit) == 40 and all(len(digest) == 64 for *_, digest in source.files)


def test_sources_cover_what_the_recipe_reads() -> None:
    from reveal_release.testbed import heldout_files

    assert set(heldout_files.RAW) <= {f"{s.folder}/{name}" for s in SOURCES for name, *_ in s.files}


def test_a_missing_and_a_changed_file_are_named_with_their_origin(tmp_path: Path) -> None:
    source = SOURCES[0]
    name = source.files[0][0]
    with pytest.raises(UserError, match=f"no {source.folder}/{name}.*{source.origin} at commit {source.commit}"):
        verify(tmp_path)
    (tmp_path / source.folder).mkdir()
    (tmp_path / source.folder / name).write_text("something else")
    with pytest.raises(UserError, match=f"{name} is not the file.*{source.origin}"):
        verify(tmp_path)


def test_settings_that_are_no_text_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_bytes('forget_authors: "Jürgen"'.encode("latin-1"))
    assert "is no UTF-8 text" in failure(capsys, "run", "--config", str(tmp_path / "mine.yaml"))
    assert f"--config {tmp_path / 'mine.yaml'} is" in failure(capsys, "run", f"--config={tmp_path / 'mine.yaml'}")


def test_a_setting_that_is_given_twice_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """YAML would take the last, without all that stands below the first."""
    mine = tmp_path / "mine.yaml"
    for text, told in (
        ("release:\n  rank: 8\ntask: ner\nrelease:\n  steps: 5\n", "release twice, on the lines 1 and 4"),
        ("release:\n  rank: 8\n\n  rank: 9\n", "rank twice, on the lines 2 and 4"),
    ):
        mine.write_text(text)
        assert failure(capsys, "run", "--task", "ner", "--config", str(mine)) == f"--config {mine} has {told}: put them together"
    mine.write_text("release:\n  rank: 8\nreveal:\n  samples: 8\n")
    assert cli.main(["run", "--config", str(mine), "--print-config"]) == 0


def test_figures_that_cannot_be_kept_are_told_before_the_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.os, "access", lambda path, mode: False)
    command = ("evaluate", "--task", "toxicity", "--json", str(tmp_path / "new/figures.json"))
    assert failure(capsys, *command).endswith(f"nothing can be written in {tmp_path}; give another")


def test_the_reference_of_tofu_goes_with_what_it_never_saw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reveal_release.testbed.tofu.tune", lambda config: None)
    assert cli.main(["testbed", "tofu", "--split", "retain90", "--data", "my raw", "--output", "out/r 90"]) == 0
    out = capsys.readouterr().out
    assert "--forget-authors forget10 --evaluate.tofu 'my raw/tofu' --evaluate.retain-model 'out/r 90' --output 'out/r 90-run'" in out
    for authors, rows in ((7, 60), (20, 200), (100, 400)):
        assert cli.main(["testbed", "tofu", "--data", "raw", "--output", "out/full", "--authors", str(authors)]) == 0
        assert f"--evaluate.tofu raw/tofu --evaluate.rows {rows} --output out/full-run" in capsys.readouterr().out, "as many as were taught"


def test_tofu_refuses_before_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["testbed", "tofu", "--data", str(tmp_path), "--output", str(tmp_path / "model")]
    assert failure(capsys, *command).startswith("no tofu/full.json")
    assert failure(capsys, *command, "--epochs", "0").startswith("--epochs is 0: give")
    assert failure(capsys, *command, "--split", "retain80") == "split is 'retain80': give one of full, retain90, retain95, retain99"
    assert not (tmp_path / "model").exists()


def test_build_refuses_before_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = failure(capsys, "testbed", "build", "--data", str(tmp_path), "--output", str(tmp_path / "model"))
    assert line.startswith("no tox_paradetox/paradetox.tsv")
    assert not (tmp_path / "model").exists()
