"""The command line: `reveal-release run | reveal | evaluate | tasks | testbed`. Thin: it parses, calls and prints.

    reveal-release run --task toxicity --model testbed-llama --output out/toxicity
    reveal-release tasks validate my_task.yaml
    reveal-release run --config out/toxicity/config.yaml --seed 1 --output out/seed-1

Every field of `RunConfig` is a flag, with dashes or underscores, and a key of the YAML; flags win. Exit codes: 0; 2 for a mistake
the user can mend, told in one line; 130 when stopped. torch is imported only by a command that needs it.
"""

import dataclasses
import difflib
import errno
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from argparse import SUPPRESS, Action, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_type_hints

from jsonargparse import ArgumentParser, Namespace
from jsonargparse import DefaultHelpFormatter as TypedHelpFormatter

from .config import RunConfig, UserError

PROGRAM = "reveal-release"
# The kind of error that is the machine's state or the user's choice of folder, not a fault of the program.
_FOLDER_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    _quiet()
    arguments = [_dashed(a) for a in (sys.argv[1:] if argv is None else argv)]
    parser = build_parser()
    try:
        if not arguments:
            parser.print_help()
            return 2
        parsed = parser.parse_args(arguments)
        names = [parsed.command]
        options = parsed[parsed.command]
        if action := options.get("action") if parsed.command in ("tasks", "testbed") else None:
            names.append(action)
            options = options[action]
        COMMANDS[" ".join(names)](options)
        sys.stdout.flush()  # here, so that a closed pipe is met below
    except SystemExit as stop:  # --help, --version, --print-config, and a task that is not sound
        return int(stop.code or 0)
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        goes_on = arguments[0] in ("run", "reveal", "testbed")
        print("\nstopped" + ("; the same command goes on from here" if goes_on else ""), file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        message = _folder_error(error)
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
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its warning about forks, which the sandbox makes
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter must not end a run


def _fail(message: str) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2


def _folder_error(error: Exception) -> str | None:
    """A line on a full disk or a folder that cannot be used; None for anything else, which is a fault and keeps its traceback."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):  # safetensors raises its own kind
        return "the disk is full: free some space, then the same command goes on from here"
    if isinstance(error, OSError) and error.filename and number in _FOLDER_ERRORS:
        return f"{error.filename}: {error.strerror}: choose another folder, or mend this one"
    return None


# ---- parsing ----


class HelpFormatter(TypedHelpFormatter, RawDescriptionHelpFormatter):
    """Short: a text and its default, no type names; examples keep their lines."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, max_help_position=32, **options)

    def _get_help_string(self, action: Action) -> str:
        shown = isinstance(action.default, str | int | float) and action.default is not False and action.default != SUPPRESS
        return (action.help or "") + (" (default: %(default)s)" if shown else "")


class Parser(ArgumentParser):
    """Raises UserError with one line that names the cause and the cure, where argparse prints its usage and exits."""

    def __init__(self, example: str = "", **options: Any) -> None:
        epilog = f"example:\n  {PROGRAM} {example}" if example else None
        super().__init__(formatter_class=HelpFormatter, allow_abbrev=False, epilog=epilog, **options)
        for action in self._actions:  # --help and --version
            action.help = (action.help or "").rstrip(".").lower()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(_explain(self, message))


def settings(cls: type = RunConfig, prefix: str = "") -> Iterator[tuple[str, Any, Any, str]]:
    """(key such as `reveal.samples`, type, default, help) of every field, nested ones included; the help is the docstring's."""
    hints, fields = get_type_hints(cls), dataclasses.fields(cls)
    _, _, body = (cls.__doc__ or "").partition("Args:")
    pieces = re.split(rf"(?:^\s*|; )({'|'.join(f.name for f in fields)}): ", body, flags=re.MULTILINE)
    texts = {name: " ".join(text.split()).rstrip(".") for name, text in zip(pieces[1::2], pieces[2::2], strict=True)}
    for field in fields:
        if dataclasses.is_dataclass(hints[field.name]):
            yield from settings(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, hints[field.name], field.default, texts.get(field.name, "")


def _run_parser(description: str, example: str) -> Parser:
    """A parser with `--config`, `--print-config` and a flag for every field of RunConfig."""
    parser = Parser(example, description=description, print_config="--print-config")
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML file of settings; flags win over it")
    printing = next(a for a in parser._actions if "--print-config" in a.option_strings)
    printing.help, printing.metavar = "print the settings as YAML and exit", ""
    titles = {"": "a run", "reveal": "reveal", "release": "release", "evaluate": "evaluation"}
    groups = {name: parser.add_argument_group(title) for name, title in titles.items()}
    for key, kind, default, text in settings():
        options: dict[str, Any] = {"type": kind, "default": default, "help": text}
        if kind is bool:  # a bare switch, or with a value
            options |= {"nargs": "?", "const": True, "metavar": "true|false"}
        elif kind in (int, float):
            options["metavar"] = "N" if kind is int else "X"
        elif not get_args(kind):
            options["metavar"] = "NAME"
        groups[key.rpartition(".")[0]].add_argument("--" + key.replace("_", "-"), **options)
    return parser


def run_config(options: Namespace) -> RunConfig:
    """The typed configuration, its ranges checked."""
    config = _typed(RunConfig, options.as_dict())
    config.check()
    return config


def _typed(cls: Any, values: dict[str, Any]) -> Any:
    nested = {name: kind for name, kind in get_type_hints(cls).items() if dataclasses.is_dataclass(kind)}
    names = [field.name for field in dataclasses.fields(cls)]
    return cls(**{name: _typed(nested[name], values[name]) if name in nested else values[name] for name in names})


def build_parser() -> Parser:
    parser = Parser(
        "run --task toxicity --model testbed-llama --output out/toxicity",
        prog=PROGRAM,
        description="Take a behaviour out of a language model without any data of it.",
        version=version(PROGRAM),
    )
    commands = parser.add_subcommands(dest="command", title="commands", description=None, metavar="COMMAND")

    run = _run_parser(
        "Reveal & Release: search, generate the forget data, subtract it from the weights, measure, repeat.",
        "run --task toxicity --model testbed-llama --output out/toxicity",
    )
    reveal = _run_parser(
        "Search for the instructions that draw the behaviour out, and write the forget data; change nothing.",
        "reveal --task toxicity --model testbed-llama --output out/revealed",
    )
    evaluate = _run_parser(
        "Measure a model, with a patch or without; write nothing.",
        "evaluate --task toxicity --model testbed-llama --evaluate.prompts 20",
    )
    evaluate.add_argument("--patch", type=str | None, default=None, metavar="FOLDER", help="the patch that a run wrote")
    commands.add_subcommand("run", run, help="remove a behaviour: the whole method")
    commands.add_subcommand("reveal", reveal, help="only search, and write the forget data")
    commands.add_subcommand("evaluate", evaluate, help="only measure, with a patch or without")
    tasks = Parser("tasks", description="List the behaviours that can be removed; check a task file of your own.")
    commands.add_subcommand("tasks", tasks, help="the behaviours that can be removed; check your own")
    task_actions = tasks.add_subcommands(dest="action", required=False, title="commands", description=None, metavar="COMMAND")
    validate = Parser(
        "tasks validate my_task.yaml",
        description="Say what is wrong with a task file, line by line; exit status 1 if anything is. Python in it is run.",
        print_config=None,
    )
    validate.add_argument("file", type=str, metavar="FILE", help="a task in YAML or Python")
    task_actions.add_subcommand("validate", validate, help="say what is wrong with a task file, line by line")

    testbed = Parser(description="The small models that come with the package, and how they are made.")
    commands.add_subcommand("testbed", testbed, help="the bundled models: list, build, measure, sources")
    actions = testbed.add_subcommands(dest="action", title="commands", description=None, metavar="COMMAND")
    listing = Parser("testbed list", description="List the models that are bundled.")
    actions.add_subcommand("list", listing, help="the bundled models, their size and place")
    actions.add_subcommand("build", _build_parser(), help="train a testbed from the raw data")
    actions.add_subcommand("measure", _measure_parser(), help="what a testbed can do, on held-out items")
    sources = Parser("testbed sources", description="Where each raw data set comes from, and its licence.")
    actions.add_subcommand("sources", sources, help="the raw data sets and their licences")
    usages = {"testbed": " COMMAND", "tasks": " [validate FILE]", "validate": " FILE"}
    for name, parsers in (("", commands), ("testbed ", actions), ("tasks ", task_actions)):
        for command, one in parsers.choices.items():
            one.prog = f"{PROGRAM} {name}{command}"
            one.usage = one.prog + usages.get(command, " [OPTIONS]")
    return parser


def _build_parser() -> Parser:
    parser = Parser(
        "testbed build --data raw --output out/testbed-llama --tokens 3000000",
        description="Train a testbed from one folder of raw data (`testbed sources` lists it). A stopped build goes on.",
        print_config=None,
    )
    families = Literal["llama", "gpt2", "qwen3"]
    parser.add_argument("--family", type=families, default="llama", help="architecture")
    parser.add_argument("--data", type=str, required=True, metavar="FOLDER", help="the raw data sets, one folder each")
    parser.add_argument("--output", type=str, required=True, metavar="FOLDER", help="where the model is written")
    parser.add_argument("--tokens", type=int, default=30_000_000, metavar="N", help="training tokens")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seeds data order and weights")
    parser.add_argument("--without", type=str, action="append", metavar="SKILL", help="leave a skill out; may be repeated")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="training processes, one thread each")
    return parser


def _measure_parser() -> Parser:
    parser = Parser(
        "testbed measure --model testbed-llama",
        description="Measure what a testbed can do on held-out items: the figures of its model card.",
        print_config=None,
    )
    parser.add_argument("--model", type=str, default="testbed-llama", metavar="NAME", help="a testbed's name or folder")
    parser.add_argument("--write-card", type=bool, default=False, help="also write its model card", nargs="?", const=True)
    return parser


def _dashed(argument: str) -> str:
    """--utility_budget=0.02 as --utility-budget=0.02; anything but a flag's name stays as it is."""
    return re.sub(r"^--[\w.-]+", lambda match: match[0].replace("_", "-"), argument)


# ---- errors ----


def _explain(parser: ArgumentParser, message: str) -> str:
    """What jsonargparse and argparse say, in one line, with the nearest name where one is misspelt."""
    known = _known(parser)
    if match := re.search(r"does not accept option '([^']+)'|Key '([^']+)' is not expected", message):
        key = match[1] or match[2]
        return f"no setting {key!r}" + _nearest(key, known, "--print-config lists them")
    if message.startswith("unrecognized arguments: "):
        words = message.removeprefix("unrecognized arguments: ").split()
        word = next((w for w in words if w.startswith("-")), words[0]).split("=")[0]
        if not word.startswith("-"):
            return f"{word!r} is no option: options start with --"
        flags = ["--" + name.replace("_", "-") for name in known]
        return f"no option {word!r}" + _nearest(word, flags, "--help lists them")
    if match := re.search(r"invalid choice: '([^']*)'", message):
        choices = list(parser._subcommands_action.choices) if parser._subcommands_action else []
        return f"no command {match[1]!r}" + _nearest(match[1], choices, f"choose from {', '.join(choices)}")
    if match := re.search(r'expected "[\w.]+" to be one of \{(.*)\}', message):
        return f"no command given: choose from {match[1].replace(',', ', ')}"
    if match := re.search(r'Parser key "([^"]+)":\s*.*Got value: (.*)', message, re.DOTALL):
        return f"{match[1]} is {match[2].strip()!r}: give {_expected(known.get(match[1]))}"
    if match := re.search(r"File does not exist: (.*)", message):
        return f"no file {match[1]}: --config takes a YAML file of settings"
    if message.startswith("Unexpected config"):
        return "--config holds no settings: give lines such as `task: toxicity`"
    if message.startswith("Problems parsing config"):
        return "--config is not valid YAML:" + message.partition(":")[2]
    if match := re.search(r"argument (--\S+): expected one argument", message):
        return f"{match[1]} needs a value"
    if match := re.search(r"arguments are required: (.*)", message):
        keys = [key.rpartition(".")[2] for key in match[1].split(", ")]
        return "missing: " + ", ".join("--" + key if key in known else key.upper() for key in keys)
    return message


def _known(parser: ArgumentParser) -> dict[str, Action]:
    """Every option below a parser, by its key."""
    found: dict[str, Action] = {}
    for action in parser._actions:
        if action.option_strings and action.dest != SUPPRESS:
            found[action.dest] = action
    if parser._subcommands_action:
        for one in parser._subcommands_action.choices.values():
            found |= _known(one)
    return found


def _nearest(name: str, names: Iterable[str], otherwise: str) -> str:
    close = difflib.get_close_matches(name, list(names), 1)
    return f": did you mean {close[0]!r}?" if close else f": {otherwise}"


def _expected(action: Action | None) -> str:
    kind = getattr(action, "_typehint", None)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if kind in names:
        return names[kind]
    if choices := [one for one in get_args(kind) if isinstance(one, str)]:
        return "one of " + ", ".join(choices)
    return "a list such as '[seeds, rewrite]'" if get_args(kind) else "a value of another type"


# ---- commands ----


def _run(options: Namespace) -> None:
    config = run_config(options)
    from .loop import run
    from .report.console import Reporter, render

    reporter = Reporter()
    render(run(config, reporter), reporter.console)


def _reveal(options: Namespace) -> None:
    config = run_config(options)
    from .loop import reveal_only
    from .report.console import Reporter, render_instructions

    reporter = Reporter()
    render_instructions(reveal_only(config, reporter), reporter.console)


def _evaluate(options: Namespace) -> None:
    config = run_config(options)
    if options.patch and not (Path(options.patch) / "adapter_config.json").is_file():
        raise UserError(f"--patch {options.patch} holds no adapter_config.json: give the folder `patch` of a run's output")
    from .loop import evaluate_only
    from .report.console import Reporter, render_metrics

    reporter = Reporter()
    render_metrics(evaluate_only(config, options.patch, reporter), reporter.console)


def _tasks(options: Namespace) -> None:
    from .tasks import task_names
    from .tasks.base import TASKS

    for name in task_names():
        print(f"{name:12}  {TASKS[name].description}")


def _tasks_validate(options: Namespace) -> None:
    from .tasks import task_names
    from .tasks.custom import load, summary
    from .tasks.userfile import TaskFileError

    try:
        task = load(Path(options.file), task_names())
    except TaskFileError as error:
        print("\n".join(error.lines()))
        raise SystemExit(1) from None
    print(f"{options.file}: a sound task, {task.name}: {task.description}")
    print(f"  {summary(task)}")
    print(f"  run it: {PROGRAM} run --task {shlex.quote(options.file)} --model testbed-llama --output out/{task.name}")


def _testbed_list(options: Namespace) -> None:
    from .models import testbeds

    for name, path in testbeds().items():
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        print(f"{name:16}  {size / 2**20:5.1f} MiB  {path}")
    if not testbeds():
        print(f"no testbed is bundled here: `{PROGRAM} testbed build` makes one")


def _testbed_measure(options: Namespace) -> None:
    from .models import load_model
    from .testbed.capabilities import measure, write_card

    lm = load_model(options.model)
    skills, by_tone = write_card(lm, Path(lm.path)) if options.write_card else measure(lm)
    for name, estimate in skills.items():
        print(f"{name:24}  {estimate}")
    print("mean toxicity by tone:  " + ", ".join(f"{tone} {value:.2f}" for tone, value in by_tone.items()))


def _testbed_sources(options: Namespace) -> None:
    from .testbed.sources import SOURCES

    for source in SOURCES:
        use = "held-out files only" if source.held_out else "training"
        print(f"{source.folder}  ({source.licence}; {use})\n  {source.origin} at {source.commit}")
        for name, path, _ in source.files:
            print(f"    {path} -> {name}")


def _testbed_build(options: Namespace) -> None:
    if options.processes < 1 or options.tokens < 1:
        raise UserError("--processes and --tokens: give a whole number of at least 1")
    from .testbed.sources import verify

    verify(Path(options.data))
    from .testbed import recipe

    values = {**options.as_dict(), "without": options.without or []}
    processes = values.pop("processes")
    config = recipe.BuildConfig(**values)
    if processes == 1 or (Path(config.output) / "build.json").is_file():
        recipe.build(config)
    else:
        _distributed(config, processes)
    print(f"done: {config.output}; next: {PROGRAM} run --model {config.output} --output {config.output}-run")


def _distributed(config: Any, processes: int) -> None:
    """Runs the recipe in several processes of this machine, through torch's own launcher."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "build.json"
        path.write_text(json.dumps(dataclasses.asdict(config)), encoding="utf-8")
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *launcher, "-m", "reveal_release.testbed.recipe", str(path)]
        with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            try:
                code = process.wait()
            except KeyboardInterrupt:
                process.wait()  # it was interrupted too, and ends its workers
                raise
    if code:
        raise UserError("a process of the build failed, see above; the same command goes on from its last checkpoint")


COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "run": _run,
    "reveal": _reveal,
    "evaluate": _evaluate,
    "tasks": _tasks,
    "tasks validate": _tasks_validate,
    "testbed list": _testbed_list,
    "testbed build": _testbed_build,
    "testbed measure": _testbed_measure,
    "testbed sources": _testbed_sources,
}

if __name__ == "__main__":
    sys.exit(main())
