"""A parser of commands with short help, whose mistakes are one line that names the cause and the cure.

    parser = Parser("run --task toxicity --model testbed-llama", description="Remove a behaviour.")
    parser.parse_args(["--taks", "toxicity"])   # UserError: no option '--taks': did you mean '--task'?
"""

import re
from argparse import SUPPRESS, Action, RawDescriptionHelpFormatter, _SubParsersAction
from collections.abc import Iterable
from functools import reduce
from types import NoneType
from typing import Any, NoReturn, get_args, get_origin

from jsonargparse import ArgumentParser
from jsonargparse import DefaultHelpFormatter as TypedHelpFormatter

from .config import UserError
from .registry import nearest

PROGRAM = "reveal-release"
USUAL = {
    "lr": "release.learning-rate", "batch-size": "release.batch", "per-device-train-batch-size": "release.batch",
    "max-steps": "release.steps", "epochs": "release.steps", "num-train-epochs": "release.steps", "model-name-or-path": "model",
    "num-epochs": "release.steps", "lora-r": "release.rank", "gpu": "device", "cpu": "device", "no-cuda": "device",
    "bf16": "dtype", "fp16": "dtype", "torch-dtype": "dtype", "revision": "model",
}  # fmt: skip
"""Options of Hugging Face's scripts, and what means the same here."""


class HelpFormatter(TypedHelpFormatter, RawDescriptionHelpFormatter):
    """Short: a text and its default, no type names; examples keep their lines; what is `idle` is left out."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, max_help_position=32, **options)

    def add_argument(self, action: Action) -> None:
        if not getattr(action, "idle", False):
            super().add_argument(action)

    def _format_action(self, action: Action) -> str:
        text = super()._format_action(action)
        if isinstance(action, _SubParsersAction):  # their list alone, without a line over it
            return "".join(line.removeprefix("  ") for line in text.splitlines(keepends=True)[1:])
        return text

    def _format_args(self, action: Action, default_metavar: str) -> str:
        listed = isinstance(action.metavar, str) and "," in action.metavar  # `N,N` says that there may be more
        return str(action.metavar) if listed else super()._format_args(action, default_metavar)

    def _get_help_string(self, action: Action) -> str:
        shown = isinstance(action.default, str | int | float) and action.default is not False and action.default not in ("", SUPPRESS)
        if isinstance(action.default, tuple):
            return f"{action.help} (default: [{', '.join(action.default)}])"
        if isinstance(action.default, dict):
            return f"{action.help} (default: {{{', '.join(f'{name}: {x:g}' for name, x in action.default.items())}}})"
        return (action.help or "") + (" (default: %(default)s)" if shown else "")


class Parser(ArgumentParser):
    """Raises UserError with one line that names the cause and the cure, where argparse prints its usage and exits."""

    def __init__(self, *examples: str, **options: Any) -> None:
        epilog = "\n  ".join(["examples:" if len(examples) > 1 else "example:", *(f"{PROGRAM} {one}" for one in examples)])
        super().__init__(formatter_class=HelpFormatter, allow_abbrev=False, epilog=epilog if examples else None, **options)
        for action in self._actions:  # --help and --version
            action.help = (action.help or "").rstrip(".").lower()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(_explain(self, message))


def _explain(parser: ArgumentParser, message: str) -> str:
    """What jsonargparse and argparse say, in one line, with the nearest name where one is misspelt."""
    known = _known(parser)
    if match := re.search(r"(?:does not accept option|Option) '([^']+)'", message):
        if match[1] in known:
            spelt, otherwise = match[1], "it is another command's, leave it out"
        else:
            spelt, otherwise = match[1].replace("-", "_"), "--print-config lists them"  # in YAML as in Python
        return f"no setting {match[1]!r}" + nearest(spelt, [name for name in known if name != spelt], otherwise)
    if message.startswith("unrecognized arguments: "):
        words = message.removeprefix("unrecognized arguments: ").split() or [""]
        word = next((w for w in words if w.startswith("-")), words[0]).split("=")[0]
        if not word.startswith("-"):
            return f"{word!r} is no option: options start with --, and several values have commas between"
        return f"no option {word!r}" + _option_meant(word, known)
    if match := re.search(r"invalid choice: '([^']*)'", message):
        choices = list(parser._subcommands_action.choices) if parser._subcommands_action else []
        return f"no command {match[1]!r}" + nearest(match[1], choices, f"choose from {', '.join(choices)}")
    if match := re.search(r'expected "[\w.]+" to be one of \{(.*)\}', message):
        return f"no command given: choose from {match[1].replace(',', ', ')}"
    if match := re.search(r'Parser key "([^"]+)"[^:]*:\s*.*(?:Got|Given) value: (.*)', message, re.DOTALL):
        if match[2].startswith("Namespace("):  # a key of the file has a point where a flag has one
            nested = reduce(lambda inner, part: f"{part}: {{{inner}}}", reversed(match[1].split(".")), "NAME: X")
            return f"{match[1]} is named in the file as a flag names it: write `{nested}` there"
        return f"{match[1]} is {match[2].strip()!r}: give {_expected(known.get(match[1]))}"
    if match := re.search(r"(?:File does not exist|Path is not a file): (.*)", message):
        return f"no file {match[1]}: --config takes a YAML file of settings"
    if message.startswith("Unexpected config"):
        return "--config holds no settings: give lines such as `task: toxicity`"
    if message.startswith("Problems parsing config"):
        return "--config is not valid YAML:" + re.sub(r'\s*in "<unicode string>",', ",", message.partition(":")[2])
    if match := re.search(r"argument (--\S+): expected one argument", message):
        return f"{match[1]} needs a value"
    if match := re.search(r"arguments are required: (.*)", message):
        keys = [key.rpartition(".")[2] for key in match[1].split(", ")]
        return "missing: " + ", ".join("--" + key if key in known else key.upper() for key in keys)
    return message


def _option_meant(word: str, known: Iterable[str]) -> str:
    """What follows "no such option": the one of that meaning, those that end in the word, or the nearest."""
    flags = ["--" + name.replace("_", "-") for name in known if name != "help"]
    bare = word.lstrip("-").replace("_", "-")
    usual = [flag for flag in flags if flag == f"--{USUAL.get(bare)}"]
    meant = usual or [flag for flag in flags if flag.endswith(f".{bare}")]
    return f": did you mean {' or '.join(map(repr, meant))}?" if meant else nearest(word, flags, "--help lists them")


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


def _expected(action: Action | None) -> str:
    kind = getattr(action, "_typehint", None)
    if NoneType in get_args(kind):  # may be left out
        kind = next(one for one in get_args(kind) if one is not NoneType)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if kind in names:
        return names[kind]
    if choices := [one for one in get_args(kind) if isinstance(one, str)]:
        return "one of " + ", ".join(choices)
    if get_origin(kind) is dict:
        return "names with numbers such as '{kl: 4, olora: 1e-4}'"
    return "a list such as '[seeds, rewrite]'" if get_args(kind) else "a value of another type"
