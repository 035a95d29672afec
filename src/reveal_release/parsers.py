"""What the command line accepts.

    options = build_parser().parse_args(config_first(["run", *(dashed(a) for a in arguments)]))
    config = run_config(options["run"])

Every field of `RunConfig` is a flag and a key of `--config`, with the help of its docstring: a new field needs nothing here.
torch stays out, so that `--help` is quick.
"""

import dataclasses
import os
import re
from argparse import SUPPRESS
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace

from .arguments import PROGRAM, Parser
from .config import RunConfig, UserError

OF_RUNS = ("iterations", "utility_budget", "utility_text", "save_merged")
"""Settings of those commands alone that release as a run does."""
PATCH = "the patch that a run wrote: its folder, or its name on the hub"


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
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            yield prefix + field.name, hints[field.name], default, texts.get(field.name, "")


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
        idle=_idle(*OF_RUNS, "release.", "evaluate.", but=("release.retain_records",)),
    )
    text = "also write the data as this tool loads it: openunlearning or trl (jsonl is always written); several with commas between"
    reveal.add_argument("--format", type=str, action="append", default=SUPPRESS, metavar="NAME", help=text)
    commands.add_subcommand("run", run, help="remove a behaviour: the whole method")
    commands.add_subcommand("reveal", reveal, help="only search, and write the forget data")
    commands.add_subcommand("evaluate", _evaluate_parser(), help="only measure: the task or a public suite, with a patch or without")
    commands.add_subcommand("audit", _audit_parser(), help="attack a released model: what can still be drawn out?")
    commands.add_subcommand("compare", _compare_parser(), help="our method and others side by side, under one budget")
    studies = Parser(description="What the parts of the method are good for: one table, over several seeds.")
    commands.add_subcommand("study", studies, help="what the parts of the method are good for")
    study_actions = studies.add_subcommands(dest="action", title="commands", description=None, metavar="COMMAND")
    for name, help_text, parser_of in _study_parsers():
        study_actions.add_subcommand(name, parser_of, help=help_text)
    tasks = Parser("tasks", description="List the behaviours that can be removed; check a task file of your own.")
    commands.add_subcommand("tasks", tasks, help="the behaviours that can be removed; check your own")
    task_actions = tasks.add_subcommands(dest="action", required=False, title="commands", description=None, metavar="COMMAND")
    validate = Parser(
        "tasks validate my_task.yaml",
        description="Say what is wrong with a task file, line by line; exit status 1 if anything is. Python in it is run.",
        print_config=None,
    )
    validate.add_argument("file", type=str, metavar="FILE", help="a task in YAML or Python")
    task_list = Parser("tasks list", description="List the behaviours that can be removed.")
    task_actions.add_subcommand("list", task_list, help="the behaviours; `tasks` alone does the same")
    task_actions.add_subcommand("validate", validate, help="say what is wrong with a task file, line by line")

    patch = Parser(description="Patches as files: what one holds, merged and reverted, added up, made smaller.")
    commands.add_subcommand("patch", patch, help="look into a patch, merge, revert, combine or truncate it")
    patch_actions = patch.add_subcommands(dest="action", title="commands", description=None, metavar="COMMAND")
    for name, help_text, parser_of in _patch_parsers():
        patch_actions.add_subcommand(name, parser_of, help=help_text)

    testbed = Parser(description="The small models that come with the package, and how they are made.")
    commands.add_subcommand("testbed", testbed, help="the bundled models: list, build, tofu, measure, sources")
    actions = testbed.add_subcommands(dest="action", title="commands", description=None, metavar="COMMAND")
    listing = Parser("testbed list", description="List the models that are bundled.")
    actions.add_subcommand("list", listing, help="the bundled models, their size and place")
    actions.add_subcommand("build", _build_parser(), help="train a testbed from the raw data")
    actions.add_subcommand("tofu", _tofu_parser(), help="teach a testbed TOFU's fictitious authors, for the knowledge task")
    actions.add_subcommand("measure", _measure_parser(), help="what a testbed can do, on held-out items")
    sources = Parser("testbed sources", description="Where each raw data set comes from, and its licence.")
    actions.add_subcommand("sources", sources, help="the raw data sets and their licences")
    usages = {"testbed": " COMMAND", "patch": " COMMAND", "study": " COMMAND", "tasks": " [COMMAND]", "validate": " FILE"}
    usages |= {name: " PATCH [OPTIONS]" for name in patch_actions.choices} | {"combine": " PATCH [PATCH ...] [OPTIONS]"}
    groups = {"": commands, "testbed ": actions, "tasks ": task_actions, "patch ": patch_actions, "study ": study_actions}
    for name, parsers in groups.items():
        for command, one in parsers.choices.items():
            one.prog = f"{PROGRAM} {name}{command}"
            required = "".join(f" {a.option_strings[0]} {a.metavar}" for a in one._actions if a.required and a.option_strings)
            one.usage = one.prog + usages.get(command, " [OPTIONS]").replace(" [OPTIONS]", f"{required} [OPTIONS]")
    return parser


def _idle(*starts: str, but: tuple[str, ...] = ()) -> list[str]:
    """The settings whose names start so."""
    return [key for key, *_ in settings() if key.startswith(starts) and key not in but]


def _run_parser(description: str, *examples: str, idle: Sequence[str] = ()) -> Parser:
    """A parser with `--config`, `--print-config` and a flag for every field of RunConfig.

    idle: settings that the command has no use for: it takes them, for a run's config.yaml has them, and `--help` leaves them out.
    """
    parser = Parser(*examples, description=description, print_config="--print-config")
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML file of settings; flags win over it")
    printing = next(a for a in parser._actions if "--print-config" in a.option_strings)
    printing.help, printing.metavar = "print the settings as YAML, unchecked, and exit", ""
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
        elif get_origin(kind) in (tuple, dict):
            options["metavar"] = "'[NAME, ...]'" if get_origin(kind) is tuple else "'{NAME: X, ...}'"
        groups[key.rpartition(".")[0]].add_argument("--" + key.replace("_", "-"), **options).idle = key in idle
    return parser


def _evaluate_parser() -> Parser:
    parser = _run_parser(
        "Measure a model by the task's metrics or on a public suite, with a patch or without; --json FILE keeps the figures.",
        "evaluate --task toxicity --model testbed-llama --evaluate.prompts 20",
        "evaluate --model testbed-llama --suite gsm8k --suite-limit 20 --suite-max-new-tokens 64",
        idle=_idle("output", *OF_RUNS, "stop_reward", "scorer", "reveal.", "release.", but=("reveal.threshold",)),
    )
    parser.add_argument("--patch", type=str | None, default=None, metavar="PATCH", help=PATCH)
    parser.add_argument("--json", type=str | None, default=None, metavar="FILE", help="also write the figures here, with n and intervals")
    group = parser.add_argument_group("a public suite, instead of the task and of --evaluate.*")
    for name, kind, metavar, text in (
        ("", str, "NAME", "humaneval, mbpp (its test problems), mbpp-all or gsm8k"),
        ("-file", str, "FILE", "its .jsonl or .jsonl.gz file (default: fetched from the hub)"),
        ("-limit", int, "N", "only the first N problems"),
        ("-samples", int, "N", "code: completions per problem, for pass@k of k 1, 10 and 100 up to N (default: 1)"),
        ("-temperature", float, "X", "of sampling; 0 is greedy (default: 0)"),
        ("-max-new-tokens", int, "N", "longest completion (default: 512)"),
    ):
        group.add_argument("--suite" + name, type=kind | None, default=None, metavar=metavar, help=text)
    return parser


def _audit_parser() -> Parser:
    parser = _run_parser(
        "Attack the original and the released model alike, and tell what can still be drawn out: the search with fresh seeds,\n"
        "each with twice --reveal.evaluations; examples of the behaviour in the context; the first tokens of an\n"
        "answer given; prompts in other words; quantised weights; a patch of lower rank; fine-tuning on examples of\n"
        "the behaviour. docs/audit.md describes them.",
        "audit --task toxicity --model testbed-llama --patch out/toxicity/patch --output out/audit",
        idle=_idle(*OF_RUNS, "release.", "evaluate.", but=("release.batch", "release.learning_rate")),
    )
    parser.add_argument("--patch", type=str, required=True, metavar="PATCH", help=PATCH)
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="how many searches, and repetitions of the other attacks")
    text = "which, with commas between: few-shot, prefix, paraphrase, quantise, truncate, relearn (default: all); the search is always made"
    parser.add_argument("--attacks", type=str | None, default=None, metavar="NAMES", help=text)
    text = "a model that never had the behaviour: what the attacks draw out of that"
    parser.add_argument("--oracle", type=str | None, default=None, metavar="NAME", help=text)
    return parser


def _compare_parser() -> Parser:
    parser = _run_parser(
        "Unlearn by our method and by others, with the same LoRA, search for settings, budget and evaluation: one table.\n"
        "Stopped, it goes on with the same command; to add methods, seeds or data to it, name all again.",
        "compare --task toxicity --methods reveal-release,npo,pem-negation --output out/compare",
    )
    group = parser.add_argument_group("the comparison")
    for name, default, metavar, text in (
        ("methods", None, "NAMES", "with commas between: reveal-release, gradient-ascent, graddiff, npo, simnpo, rmu, refusal, dpo, "
         "pem-negation (default: all)"),
        ("seeds", None, "N,N", "with commas between (default: --seed)"),
        ("data-from", "self", "NAMES", "forget data of the others: self (our search), name (asked for by name), real (examples)"),
        ("oracle", None, "NAME", "a model that never had the behaviour, to measure the distance to"),
        ("data", None, "FOLDER", "the raw data sets, for --data-from real"),
    ):  # fmt: skip
        group.add_argument("--" + name, type=str if default is not None else str | None, default=default, metavar=metavar, help=text)
    return parser


def _study_parsers() -> Iterator[tuple[str, str, Parser]]:
    """(name, help, parser) of every command of `study`."""
    orthogonality = _run_parser(
        "Train the retain module with each way to keep what must stay, and measure all of them where they forget equally much: utility,\n"
        "overlap of the two modules, interference. Stopped, it goes on with the same command; to add variants or seeds, name all again.",
        "study orthogonality --task toxicity --seeds 0,1,2 --output out/study",
        "study orthogonality --task ner --variants olora,gauge-free,kl --output out/study-ner",
        idle=_idle(*OF_RUNS, "release.per_layer"),
    )
    ablations = _run_parser(
        "Run the method as configured, and again with one part changed at a time: iterations, portfolio, retain module, rank, layers, and\n"
        "with --data on labelled examples in place of what the model writes. Stopped, it goes on with the same command; to\n"
        "add seeds or variants, name all again.",
        "study ablations --task toxicity --seeds 0,1,2 --output out/ablations",
        "study ablations --task code --data raw --variants 'iterations 1,real forget data' --output out/ablations-code",
    )
    seeds: dict[str, Any] = {"type": str, "nargs": "+", "default": None, "metavar": "N,N"}
    group = orthogonality.add_argument_group("the study")
    group.add_argument("--seeds", help="independent repetitions (default: --seed where it is not 0, else 0,1,2)", **seeds)
    text = (
        "none, nll, olora, olora-normalised, gauge-free, null-space, activation-null-space, l2, kl, kl-forget, kl+gauge-free, "
        "kl+null-space, default (what --release.keep says); by default all"
    )
    group.add_argument("--variants", type=str, nargs="+", default=[], metavar="NAME,NAME", help=text)
    text = "share of the answers that show the behaviour which every variant has to take away"
    group.add_argument("--forgetting", type=float, default=0.75, metavar="X", help=text)
    yield "orthogonality", "the ways to keep what must stay, at equal forgetting", orthogonality
    group = ablations.add_argument_group("the ablations")
    group.add_argument("--seeds", help="independent repetitions (default: --seed where it is not 0, else 0,1,2)", **seeds)
    text = "runs with 1 to N iterations are made"
    group.add_argument("--most-iterations", type=int, default=5, metavar="N", help=text)
    text = "the raw data sets, for runs on real data"
    group.add_argument("--data", type=str | None, default=None, metavar="FOLDER", help=text)
    text = (
        "as configured, iterations 1 (and so on), single best instruction, one pair, no ascent module, no retain module, no KL divergence, "
        "rank 8, layers 1, scale per layer (of these what is not configured so), no harmless answers, and with --data real forget data, "
        "real retain data; by default all"
    )
    group.add_argument("--variants", type=str, nargs="+", default=[], metavar="NAME,NAME", help=text)
    yield "ablations", "what each part of the method is good for", ablations


def _patch_parsers() -> Iterator[tuple[str, str, Parser]]:
    """(name, help, parser) of every command of `patch`."""
    patch = "out/toxicity/patch"
    for name, example, text, description in (
        ("info", patch, "what it holds and which base it is for",
         "Modules, ranks, norm and base of a patch; with --model, that it is the base."),
        ("merge", f"{patch} --model testbed-llama --output out/merged", "the patched model as a folder of its own",
         "Add a patch to the weights of its base, and write the model with its tokenizer."),
        ("revert", f"{patch} --model out/merged --output out/base", "the base from a merged folder",
         "Subtract a patch from a model that it was merged into, and say how exactly the result is the base."),
        ("combine", f"{patch} out/ner/patch --weights 1,0.5 --output out/both", "the sum of several patches as one",
         "Add patches of one base, exactly: ranks are put together, then what is numerically nothing is left out."),
        ("truncate", f"{patch} --rank 8 --output out/small", "a smaller rank, with the error",
         "The best approximation of a patch at a smaller rank, with its relative error, in all and of every module."),
    ):  # fmt: skip
        parser = Parser(f"patch {name} {example}", description=description, print_config=None)
        several: dict[str, Any] = {"nargs": "+"} if name == "combine" else {}
        parser.add_argument("folder", type=str, metavar="PATCH", help=PATCH, **several)
        if name in ("info", "merge", "revert"):
            whose = {"info": "check that the patch is for this model", "merge": "the base", "revert": "the merged model"}[name]
            required = name != "info"
            parser.add_argument("--model", type=str if required else str | None, required=required, metavar="NAME", help=whose)
        if name == "merge":
            kinds = Literal["auto", "float32", "bfloat16"]
            parser.add_argument("--dtype", type=kinds, default="auto", help="of the merged weights; auto is the base's own")
        if name == "combine":
            weights = "one for each patch, in their order (default: 1)"
            parser.add_argument("--weights", type=str, nargs="+", default=[], metavar="X,X", help=weights)
            parser._negative_number_matcher = re.compile(r"-[\d.][\d.,e+-]*$", re.IGNORECASE)  # -1,0.5 is no option
        if name == "truncate":
            parser.add_argument("--rank", type=int, required=True, metavar="N", help="largest rank of a module")
        if name != "info":
            parser.add_argument("--output", type=str, required=True, metavar="FOLDER", help="a new folder")
        yield name, text, parser


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
    parser.add_argument("--tokens", type=int, default=33_000_000, metavar="N", help="training tokens")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seeds data order and weights")
    text = "leave a skill out, such as toxicity, person or code; may be repeated"
    parser.add_argument("--without", type=str, action="append", metavar="SKILL", help=text)
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="training processes, one thread each")
    return parser


def _tofu_parser() -> Parser:
    parser = Parser(
        "testbed tofu --data raw --split full --output out/tofu-full",
        "testbed tofu --data raw --split retain99 --authors 10 --output out/tofu-retain99-10",
        description="Fine-tune a testbed on TOFU's authors, or on the retained ones: forget quality's reference. A stopped one goes on.",
        print_config=None,
    )
    splits = Literal["full", "retain90", "retain95", "retain99"]
    parser.add_argument("--model", type=str, default="testbed-llama", metavar="NAME", help="a testbed's name, or a folder")
    parser.add_argument("--data", type=str, required=True, metavar="FOLDER", help="the raw data sets; TOFU's are in its folder `tofu`")
    parser.add_argument("--output", type=str, required=True, metavar="FOLDER", help="where the model is written")
    parser.add_argument("--split", type=splits, default="full", help="whom it is taught")
    text = "of how many authors the split is taken, at least 4; 0 is all 200"
    parser.add_argument("--authors", type=int, default=0, metavar="N", help=text)
    parser.add_argument("--epochs", type=int, default=8, metavar="N", help="passes over the rows")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seeds the order, and what is drawn")
    return parser


def _measure_parser() -> Parser:
    parser = Parser(
        "testbed measure --model testbed-llama",
        description="Measure what a testbed can do on held-out items: the figures of its model card.",
        print_config=None,
    )
    parser.add_argument("--model", type=str, default="testbed-llama", metavar="NAME", help="a testbed's name or folder")
    parser.add_argument("--write-card", type=bool, default=False, help="also write its model card", nargs="?", const=True)
    unsafe = "run code that the model wrote even where this machine cannot isolate it"
    parser.add_argument("--allow-unsafe-code", type=bool, default=False, help=unsafe, nargs="?", const=True)
    return parser


def run_config(options: Namespace) -> RunConfig:
    """The typed configuration, its ranges checked."""
    config = _typed(RunConfig, options.as_dict())
    config.check()
    return config


def _typed(cls: Any, values: dict[str, Any], section: str = "") -> Any:
    hints = get_type_hints(cls)
    found = {field.name: values[field.name] for field in dataclasses.fields(cls)}
    for name, value in found.items():
        if dataclasses.is_dataclass(hints[name]):
            if value is not None and not isinstance(value, dict):
                raise UserError(f"{name} is {value!r}: give its settings below it, a line each, or leave it out")
            found[name] = _typed(hints[name], value, f"{name}.") if value else hints[name]()  # `release:` with nothing below it
        elif value is None:  # no setting may be
            raise UserError(f"{section}{name} is empty: give a value, or leave it out")
        elif isinstance(value, str) and value.startswith("~/"):  # of a YAML file
            found[name] = os.path.expanduser(value)
    return cls(**found)


def config_first(arguments: list[str]) -> list[str]:
    """With `--config FILE` before all other options: a file's settings would replace those of the flags that stand before it."""
    first = next((i for i, argument in enumerate(arguments) if argument.startswith("--")), len(arguments))
    files, others, rest = list[str](), arguments[:first], iter(arguments[first:])
    for argument in rest:
        if argument == "--config":
            files += [argument, *islice(rest, 1)]
        else:
            (files if argument.startswith("--config=") else others).append(argument)
    return [*others[:first], *files, *others[first:]]


def check_files(arguments: Sequence[str]) -> None:
    """Raises UserError for a file of settings that is no text, or has a key twice: of the first YAML would drop all that is below it."""
    following = [*arguments[1:], ""]
    given = [after if word == "--config" else word.partition("=")[2] for word, after in zip(arguments, following, strict=True)
             if word == "--config" or word.startswith("--config=")]  # fmt: skip
    for path in map(Path, given):
        if not path.is_file():
            continue  # the parser tells
        try:
            root = yaml.compose(path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise UserError(f"--config {path} is no UTF-8 text ({error.reason}): save it as such, or give another") from None
        except yaml.YAMLError:
            continue  # and this
        sections = [root, *(value for _, value in root.value)] if isinstance(root, yaml.MappingNode) else []
        for section in sections:
            first: dict[str, int] = {}
            for key, _ in section.value if isinstance(section, yaml.MappingNode) else ():
                name, line = str(key.value), key.start_mark.line + 1
                if first.setdefault(name, line) != line:
                    raise UserError(f"--config {path} has {name} twice, on the lines {first[name]} and {line}: put them together")


def refuse_idle(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """Raises UserError for a flag of a setting that the command has no use for; in a file it may stand, as a run's config.yaml has all."""
    for word in arguments:
        if parser._subcommands_action and word in parser._subcommands_action.choices:
            parser = parser._subcommands_action.choices[word]
    given = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    for action in parser._actions:
        for flag in action.option_strings if getattr(action, "idle", False) else ():
            if flag.endswith("scorer"):  # the two may not be one, and whichever was not meant gives way
                continue
            if any(word == flag or word.startswith(f"{flag}.") for word in given):
                instead = "give --json FILE to keep the figures" if flag == "--output" else "leave it out"
                raise UserError(f"{parser.prog.partition(' ')[2]} does not read {flag}: {instead}")


def dashed(argument: str) -> str:
    """--utility_budget=0.02 as --utility-budget=0.02, and --output=~/out with the home folder, which a shell leaves there."""
    argument = re.sub(r"^--[\w.-]+", lambda match: match[0].replace("_", "-"), argument)
    return re.sub(r"^(--[\w.-]+=)(~/.*)", lambda match: match[1] + os.path.expanduser(match[2]), argument)
