"""The command line: `reveal-release run | reveal | evaluate | audit | compare | study | patch | tasks | testbed`.
Thin: it calls and prints.

    reveal-release run --task toxicity --model testbed-llama --output out/toxicity
    reveal-release tasks validate my_task.yaml
    reveal-release run --config out/toxicity/config.yaml --seed 1 --output out/seed-1

What is accepted stands in parsers.py. Exit codes: 0; 1 for a task file that is not sound; 2 for a mistake the user can mend, told
in one line; 130 when stopped, 143 by SIGTERM. torch is imported only by a command that needs it.
"""

import errno
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from . import lists
from .arguments import PROGRAM
from .config import RunConfig, UserError
from .parsers import build_parser, check_files, config_first, dashed, refuse_idle, run_config

if TYPE_CHECKING:
    from .suites.evaluate import SuiteEvaluation

# The kind of error that is the machine's state or the user's choice of folder, not a fault of the program.
_FOLDER_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG,
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    _quiet()
    interrupted = _interruptions()
    arguments = config_first([dashed(a) for a in (sys.argv[1:] if argv is None else argv)])
    parser = build_parser()
    try:
        if not arguments:
            parser.print_help()
            return 2
        if arguments[0].startswith("--") and arguments[0] not in ("--help", "--version"):
            raise UserError(f"no command before {arguments[0]}: did you mean `{PROGRAM} run {arguments[0]} ...`?")
        check_files(arguments)
        parsed = parser.parse_args(arguments)
        refuse_idle(parser, arguments)
        names = [parsed.command]
        options = parsed[parsed.command]
        if action := options.get("action"):
            names.append(action)
            options = options[action]
        COMMANDS[" ".join(names)](options)
        sys.stdout.flush()  # here, so that a closed pipe is met below
    except SystemExit as stop:  # --help, --version, --print-config, a task that is not sound, and what a user's own Python calls
        message = _told_of_task(stop)
        return _fail(message) if message else int(stop.code or 0)
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _stopped(arguments, interrupted)
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if interrupted:  # a library that was being imported made another error of it
            return _stopped(arguments, interrupted)
        message = _told(error, arguments) or _told_of_task(error)
        if message is None:
            raise
        return _fail(message)
    return 0


def _quiet() -> None:
    """Libraries speak only of errors, and send nothing home; set before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("DATASETS_VERBOSITY", "critical")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its warning about forks, which the sandbox makes
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter must not end a run


def _interruptions() -> list[int]:
    """What Ctrl-C fills, or a `kill` or a cluster's scheduler (SIGTERM), besides raising KeyboardInterrupt."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        signal.default_int_handler(number, frame)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, note)
    return caught


def _stopped(arguments: list[str], by: list[int]) -> int:
    print("\nstopped" + ("; the same command goes on from here" if _goes_on(arguments) else ""), file=sys.stderr)
    return 128 + (by or [signal.SIGINT])[0]


def _fail(message: str) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2


def _goes_on(arguments: list[str]) -> bool:
    """Whether the command keeps what it has done."""
    return arguments[0] in ("run", "reveal", "audit", "compare", "study", "testbed") and arguments[1:2] != ["measure"]


def _told(error: Exception, arguments: list[str]) -> str | None:
    """A line on full memory or a full disk or a folder that cannot be used; None for anything else: a fault keeps its traceback."""
    again = "then the same command goes on from here" if _goes_on(arguments) else "then give the same command again"
    if type(error).__name__ == "OutOfMemoryError":  # of torch, which need not be loaded here
        trains = arguments[0] in ("run", "audit", "compare", "study")  # the others read no --release.batch
        return f"the GPU's memory is full: free some, {again}" + "; or start anew with a lower --release.batch" * trains
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):  # safetensors raises its own kind
        return f"the disk is full: free some space, {again}"
    if isinstance(error, OSError) and error.filename and number in _FOLDER_ERRORS:
        return f"{error.filename}: {error.strerror}: choose another folder, or mend this one"
    return None


def _told_of_task(error: BaseException) -> str | None:
    """A line on what a user's own Python raised."""
    if "reveal_release.tasks.userfile" not in sys.modules:
        return None
    from .tasks.userfile import of_user

    found = of_user(error)
    return str(found) if found else None


def _begun(options: Namespace) -> RunConfig:
    """The configuration of work to be begun, or gone on with; of new work, settings that the task does not read are refused."""
    config = run_config(options)
    if not (Path(config.output) / "state" / "identity.json").is_file():
        config.check_read()
    return config


def _run(options: Namespace) -> None:
    config = _begun(options)
    from .loop import run
    from .report.console import render
    from .report.progress import Reporter

    reporter = Reporter()
    render(run(config, reporter), reporter.console)


def _reveal(options: Namespace) -> None:
    config = _begun(options)
    from .report.console import render_instructions
    from .report.progress import Reporter
    from .revealer import reveal_only

    reporter = Reporter()
    render_instructions(reveal_only(config, reporter, options.get("format") or ()), reporter.console)


def _evaluate(options: Namespace) -> None:
    config = run_config(options)
    if options.json is not None:
        _check_new(options.json)
    suite = _suite(options, config)
    if not suite:
        config.check_read()
    from .located import located

    if options.patch is not None:
        located(options.patch)  # before torch is imported and a model loaded
    from .evaluator import evaluate_only
    from .files import write_results
    from .report.console import render_metrics
    from .report.progress import Reporter

    reporter = Reporter()
    metrics = evaluate_only(config, options.patch, reporter, suite)
    what, where = options.suite or config.task, f" with the patch {options.patch}" if options.patch else ""
    render_metrics(metrics, f"{what}, {config.model}{where}", reporter.console)
    if options.json:
        asked = {name: getattr(suite, name) for name in ("limit", "samples", "temperature", "max_new_tokens")} if suite else {}
        told = {"name": options.suite, "file": options.suite_file, **asked} if suite else None
        of = {"model": config.model, "patch": options.patch, "suite": told}
        write_results(Path(options.json), {"version": version(PROGRAM), **of, "settings": config.to_dict(), "metrics": metrics})
        print(f"All figures: {options.json}")


def _check_new(name: str) -> None:
    """Raises UserError where a file is, or none can be written."""
    from .files import check_writable

    if not name:
        raise UserError("--json is empty: give a file, or leave it out")
    file = Path(name)
    if file.is_dir():
        raise UserError(f"--json {file} is a folder: give a file")
    if file.exists():
        raise UserError(f"--json {file} exists: give another file, or delete it")
    check_writable(file, "--json")


def _audit(options: Namespace) -> None:
    config = _begun(options)
    from .located import located

    located(options.patch)  # before torch is imported and a model loaded
    from .auditor import ATTACKS, audit
    from .report.audit import render_audit
    from .report.progress import Reporter

    attacks = list(ATTACKS) if options.attacks is None else lists.names(options.attacks, "--attacks")
    reporter = Reporter()
    render_audit(audit(config, options.patch, options.repeats, reporter, attacks, options.oracle), reporter.console)


def _compare(options: Namespace) -> None:
    config = _begun(options)
    seeds = [config.seed] if options.seeds is None else lists.seeds([options.seeds])
    from .comparison import compare
    from .report.comparison import render_comparison
    from .report.progress import Reporter

    reporter = Reporter()
    methods = [] if options.methods is None else lists.names(options.methods, "--methods")
    sources = lists.names(options.data_from, "--data-from")
    if options.data and "real" not in sources:
        raise UserError("--data is for `--data-from real`: give that too, or leave it out")
    results = compare(config, methods, seeds, sources, options.oracle, options.data, reporter)
    render_comparison(results, reporter.console)


def _study_orthogonality(options: Namespace) -> None:
    config = _begun(options)
    seeds = lists.study_seeds(options.seeds, config.seed)
    from .report.progress import Reporter
    from .report.study import render_study
    from .study import study

    reporter = Reporter()
    render_study(study(config, lists.variants(options.variants), seeds, reporter, options.forgetting), reporter.console)


def _study_ablations(options: Namespace) -> None:
    config = _begun(options)
    seeds = lists.study_seeds(options.seeds, config.seed)
    from .ablations import ablations
    from .report.progress import Reporter
    from .report.study import render_ablations

    reporter = Reporter()
    results = ablations(config, seeds, options.most_iterations, options.data, reporter, lists.variants(options.variants))
    render_ablations(results, reporter.console)


def _suite(options: Namespace, config: RunConfig) -> "SuiteEvaluation | None":
    """What --suite and its flags ask for, refused here where they do not fit: before a model is loaded."""
    values = {name: options[f"suite_{name}"] for name in ("file", "limit", "samples", "temperature", "max_new_tokens")}
    given = {name: value for name, value in values.items() if value is not None}
    if options.suite is None:
        if given:
            raise UserError(f"--suite-{next(iter(given)).replace('_', '-')} without a suite: give --suite too, or leave it out")
        return None
    from .suites import load_suite
    from .suites.evaluate import SuiteEvaluation

    suite = load_suite(options.suite, given.pop("file", None))
    return SuiteEvaluation(suite, **given, seed=config.seed, unsafe=config.allow_unsafe_code)


def _patch(options: Namespace, action: str) -> None:
    from . import patches
    from .report import patch as report
    from .report.terminal import LastingConsole

    console = LastingConsole()
    if action == "info":
        report.render_info(patches.info(options.folder, options.model), options.folder, console)
    elif action == "merge":
        report.render_merge(patches.merge(options.model, options.folder, options.output, options.dtype), console)
    elif action == "revert":
        report.render_revert(patches.revert(options.model, options.folder, options.output), console)
    elif action == "combine":
        report.render_combine(patches.combine(options.folder, options.output, lists.numbers(options.weights)), console)
    else:
        report.render_truncate(patches.truncate(options.folder, options.rank, options.output), console)


def _tasks(options: Namespace) -> None:
    from .tasks import task_names
    from .tasks.base import TASKS

    for name in task_names():
        print(f"{name:12}  {TASKS[name].description}")


def _tasks_validate(options: Namespace) -> None:
    from .tasks import is_file, task_names
    from .tasks.custom import load, probe, summary
    from .tasks.userfile import TaskFileError

    if options.file in task_names():
        raise UserError(f"{options.file} comes with the package, and there is nothing to check: give a .yaml or .py file of your own")
    try:
        task = load(Path(options.file), task_names())
        probe(task, Path(options.file))
    except TaskFileError as error:
        print("\n".join(error.lines()))
        raise SystemExit(1) from None
    print(f"{options.file}: a sound task, {task.name}: {task.description}")
    print(f"  {summary(task)}")
    output = f"out/{task.name}" + "-py" * options.file.endswith(".py")  # beside that of the same task in YAML
    named = options.file if is_file(options.file) else f"./{options.file}"
    print(f"  run it: {PROGRAM} run --task {shlex.quote(named)} --model testbed-llama --output {output}")


def _testbed_list(options: Namespace) -> None:
    from .shipped import testbeds

    for name, path in testbeds().items():
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        print(f"{name:30}  {size / 2**20:5.1f} MiB  {path}")
    if not testbeds():
        print(f"no testbed is bundled here: `{PROGRAM} testbed build` makes one")


def _testbed_measure(options: Namespace) -> None:
    from .models import load_model
    from .testbed.capabilities import measure, write_card

    lm = load_model(options.model)
    unsafe = options.allow_unsafe_code
    skills, by_tone = write_card(lm, Path(lm.path), unsafe) if options.write_card else measure(lm, unsafe)
    for name, estimate in skills.items():
        print(f"{name:24}  {estimate}")
    print("mean toxicity by tone:  " + ", ".join(f"{tone} {value:.2f}" for tone, value in by_tone.items()))


def _testbed_sources(options: Namespace) -> None:
    from .testbed.sources import SOURCES, TOFU

    for source in (*SOURCES, TOFU):
        use = "testbed tofu, the knowledge task" if source is TOFU else "held-out files only" if source.held_out else "training"
        print(f"{source.folder}  ({source.licence}; {use})\n  {source.origin} at {source.commit}")
        for name, path, _ in source.files:
            print(f"    {path} -> {name}")
    print("\nPut each file into DATA/SET/NAME and give DATA as --data, here for the first of them (quote paths with spaces):")
    first = SOURCES[0]
    (name, path, _), where = first.files[0], first.origin.removeprefix("github.com/")
    print(f"  curl --create-dirs -Lo DATA/{first.folder}/{name} https://raw.githubusercontent.com/{where}/{first.commit}/{path}")


def _testbed_build(options: Namespace) -> None:
    if options.processes < 1 or options.tokens < 1:
        raise UserError("--processes and --tokens: give a whole number of at least 1")
    from .testbed.sources import verify

    verify(Path(options.data))
    from .testbed import recipe

    values = {**options.as_dict(), "without": options.without or []}
    processes = values.pop("processes")
    config = recipe.BuildConfig(**values)
    recipe.build_in(config, processes)
    made, output = shlex.quote(config.output), shlex.quote(f"{config.output}-compare" if config.without else f"{config.output}-run")
    work = f"compare --model testbed-{config.family} --oracle {made} --task TASK" if config.without else f"run --model {made}"
    print(f"done: {config.output}; next: {PROGRAM} {work} --output {output}")


def _testbed_tofu(options: Namespace) -> None:
    if options.epochs < 1:
        raise UserError(f"--epochs is {options.epochs}: give a whole number of at least 1")
    from .testbed.sources import TOFU
    from .testbed.tofu import ROWS_PER_AUTHOR, TuneConfig, forgettable, tune

    config = TuneConfig(**options.as_dict())
    tune(config)
    given = f"--evaluate.tofu {shlex.quote(str(Path(config.data) / TOFU.folder))}"
    if config.authors:  # TOFU measures on others too, whom this model was not taught
        given += f" --evaluate.rows {ROWS_PER_AUTHOR * forgettable(config.authors)}"
    output, run = shlex.quote(config.output), shlex.quote(f"{config.output}-run")
    if config.split == "full":
        next_step = f"run --task knowledge --model {output} {given} --output {run}"
    else:  # the reference of what is forgotten
        given = f"--forget-authors forget{100 - int(config.split[-2:]):02d} {given} --evaluate.retain-model {output}"
        next_step = f"run --task knowledge --model FULL {given} --output {run}"
    print(f"done: {config.output}; next: {PROGRAM} {next_step}")


COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "run": _run,
    "reveal": _reveal,
    "evaluate": _evaluate,
    "audit": _audit,
    "compare": _compare,
    "study orthogonality": _study_orthogonality,
    "study ablations": _study_ablations,
    **{f"patch {action}": partial(_patch, action=action) for action in ("info", "merge", "revert", "combine", "truncate")},
    "tasks": _tasks,
    "tasks list": _tasks,
    "tasks validate": _tasks_validate,
    "testbed list": _testbed_list,
    "testbed build": _testbed_build,
    "testbed tofu": _testbed_tofu,
    "testbed measure": _testbed_measure,
    "testbed sources": _testbed_sources,
}


if __name__ == "__main__":
    sys.exit(main())
