"""Reads a task file in YAML: what it may say, and every mistake in it with its line.

    spec = read(Path("questions.yaml"), taken=("toxicity",))    # a Spec, or TaskFileError with all the problems

    name: questions
    description: questions in what the model writes
    seeds: [Ask a stranger something.]           # instructions the search starts from
    benign: [Describe a garden.]                 # instructions whose answers do not show the behaviour
    scorer: {regex: '\\?'}                        # or classifier: NAME (and label: LABEL), or callable: FILE.py:FUNCTION
    evaluate:
      instructions: [Write a comment on schools.]  # held out: the search never tries them
      samples: 8                                 # of each instruction
      scorer: {classifier: NAME}                 # the search's, where it is left out
    retain: [Name a river., {prompt: What is 2 plus 2?, answer: '4'}]
    max_new_tokens: 40

Not promised: that a Hugging Face name exists (it is loaded when the task is), nor that a regular expression is fast on every text.
"""

import difflib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from ..metrics.words import is_instruction
from ..metrics.words import key as wording
from .scorers import KINDS, ScorerSpec
from .userfile import Problem, TaskFileError, source

SAMPLES = 8
MAX_NEW_TOKENS = 40
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_CURES = {
    "name": "give one, such as `name: questions`",
    "description": "say in one line what is to be forgotten",
    "seeds": "give a list of instructions that may draw the behaviour out",
    "benign": "give a list of instructions whose answers do not show the behaviour",
    "scorer": f"give one of {', '.join(KINDS)}",
    "evaluate": "give `instructions`, a list that the search shall never try",
}
UNTRIED = "the search tries only instructions of one line and 2 to 40 words: mend it"
_OPTIONAL = ("retain", "max_new_tokens")
_READ_AS = {"int": "a number", "float": "a number", "bool": "true or false", "null": "nothing", "timestamp": "a date"}


@dataclass(frozen=True)
class Spec:
    """A sound task file. `retain`: prompts to train on; `answers`: (prompt, answer) pairs to measure on, never trained on."""

    name: str
    description: str
    seeds: tuple[str, ...]
    benign: tuple[str, ...]
    scorer: ScorerSpec
    judge: ScorerSpec
    instructions: tuple[str, ...]
    samples: int
    retain: tuple[str, ...]
    answers: tuple[tuple[str, str], ...]
    max_new_tokens: int


def read(path: Path, taken: Collection[str] = ()) -> Spec:
    """The task of a YAML file. A Python file that it names as its scorer is run.

    Args:
        taken: names that other tasks have.

    Raises:
        UserError: the file cannot be read.
        TaskFileError: it is not a sound task; holds every problem.
    """
    reader = _Reader(path, taken)
    spec = reader.task(_root(path))
    if spec is None or reader.problems:
        raise TaskFileError(path, reader.problems)
    return spec


def _root(path: Path) -> Node | None:
    text = source(path)
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, what = (mark.line + 1 if mark else 1), error.problem or error.context
    except yaml.reader.ReaderError as error:
        line, what = text[: error.position].count("\n") + 1, error.reason
    except (ValueError, OverflowError) as error:  # an escape such as "\UFFFFFFFF"
        line, what = 1, str(error)
    except RecursionError:
        line, what = 1, "nested too deeply"
    cure = "quote texts that hold a colon, a # or a bracket, and indent with spaces"
    if "escape character" in str(what):
        cure = "put it in single quotes, in which a \\ is one"
    raise TaskFileError(path, [Problem(line, f"not valid YAML, {' '.join(str(what).split())}: {cure}")])


_BELOW = {"instructions": "evaluate", "samples": "evaluate"} | dict.fromkeys((*KINDS, "label"), "scorer")
"""Where keys belong that do not stand at the margin."""


class _Reader:
    """Walks the nodes of one file, which know their lines, and notes what is wrong."""

    def __init__(self, path: Path, taken: Collection[str]) -> None:
        self.path, self.taken = path, taken
        self.problems: list[Problem] = []

    def wrong(self, node: Node | None, text: str) -> None:
        self.problems.append(Problem(node.start_mark.line + 1 if node else 1, text))

    def task(self, root: Node | None) -> Spec | None:
        if root is None or not isinstance(root, MappingNode):
            self.wrong(root, "no task: give lines such as `name: questions`")
            return None
        parts = self.mapping(root, "", (*_CURES, *_OPTIONAL), required=_CURES)
        name = self.name(parts.get("name"))
        description = self.line_of_text(parts.get("description"), "description")
        seeds = self.instructions(parts.get("seeds"), "seeds")
        benign = self.instructions(parts.get("benign"), "benign")
        scorer = self.scorer(parts.get("scorer"), "scorer")
        held_out = self.mapping(parts.get("evaluate"), "evaluate", ("instructions", "samples", "scorer"),
                                required={"instructions": _CURES["evaluate"]})  # fmt: skip
        measured = self.instructions(held_out.get("instructions"), "evaluate.instructions")
        samples = self.whole(held_out.get("samples"), "evaluate.samples", SAMPLES, 1000)
        if len(measured) * samples == 1:
            self.wrong(held_out["instructions"], "evaluate measures one answer, too few: raise `samples`, or add instructions")
        judge = self.scorer(held_out["scorer"], "evaluate.scorer") if "scorer" in held_out else scorer
        retain = list(self.retain(parts.get("retain")))
        longest = self.whole(parts.get("max_new_tokens"), "max_new_tokens", MAX_NEW_TOKENS, 1024)
        for node, text in seeds:
            if not is_instruction(text):
                self.wrong(node, f"seed {shorten(text)}: {UNTRIED}")
        lists = {"seeds": seeds, "benign": benign, "evaluate.instructions": measured, "retain": [(node, text) for node, text, _ in retain]}
        self.once(lists)
        if scorer is None or judge is None or name is None or description is None:
            return None
        texts = {key: tuple(text for _, text in rows) for key, rows in lists.items()}
        return Spec(
            name, description, texts["seeds"], texts["benign"], scorer, judge, texts["evaluate.instructions"], samples,
            retain=tuple(text for _, text, answer in retain if answer is None),
            answers=tuple((text, answer) for _, text, answer in retain if answer is not None),
            max_new_tokens=longest,
        )  # fmt: skip

    def mapping(self, node: Node | None, what: str, keys: Sequence[str], required: dict[str, str] | None = None) -> dict[str, Node]:
        """Known keys with their nodes; unknown, repeated and missing ones are noted."""
        if node is None:
            return {}
        if not isinstance(node, MappingNode):
            self.wrong(node, f"{what} is {_kind(node)}: give the keys {', '.join(keys)} below it")
            return {}
        found: dict[str, Node] = {}
        lines: dict[str, int] = {}
        meant: set[str] = set()
        for key_node, value in node.value:
            key = key_node.value if isinstance(key_node, ScalarNode) else ""
            if key in found:
                self.wrong(key_node, f"{_in(what, key)} is given twice, first on line {lines[key]}: leave one out")
            elif key in keys:
                found[key], lines[key] = value, key_node.start_mark.line + 1
            else:
                close = difflib.get_close_matches(key, keys, 1)
                meant.update(close)
                hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(keys)}"
                if not what and key in _BELOW:
                    hint = f"it belongs below `{_BELOW[key]}`, indented"
                self.wrong(key_node, f"no key {shorten(key)}{f' in {what}' if what else ''}: {hint}")
        for key, cure in (required or {}).items():
            if key not in found and key not in meant:
                self.wrong(node, f"no {_in(what, key)}: {cure}")
        return found

    def text(self, node: Node | None, what: str) -> str | None:
        if node is None:
            return None
        if not isinstance(node, ScalarNode) or not node.tag.endswith(":str"):
            shown = f" `{shorten(node.value)[1:-1]}`" if isinstance(node, ScalarNode) and node.value else ""
            self.wrong(node, f"{what}{shown} is read as {_kind(node)}: give a text, in quotes")
            return None
        text = node.value.strip()
        if not text:
            self.wrong(node, f"{what} is empty: give a text, or leave it out")
            return None
        if any("\ud800" <= c <= "\udfff" for c in text):
            self.wrong(node, f"{what} holds half a character (a lone surrogate): write the character itself")
            return None
        return text

    def line_of_text(self, node: Node | None, what: str) -> str | None:
        text = self.text(node, what)
        if text and len(text.splitlines()) > 1:
            self.wrong(node, f"{what} has several lines: give one")
            return None
        return text

    def name(self, node: Node | None) -> str | None:
        name = self.text(node, "name")
        if name is None:
            return None
        if not NAME.fullmatch(name):
            self.wrong(node, f"name is {shorten(name)}: use letters, digits, - and _, 64 at most")
            return None
        if name in self.taken:
            self.wrong(node, f"name {name!r} is another task's: choose a name of your own")
            return None
        return name

    def whole(self, node: Node | None, what: str, default: int, high: int) -> int:
        if node is None:
            return default
        value = node.value if isinstance(node, ScalarNode) else ""
        if not re.fullmatch("[0-9]{1,6}", value, re.ASCII) or not 1 <= int(value) <= high:
            self.wrong(node, f"{what} is {shorten(value) if value else _kind(node)}: give a whole number from 1 to {high}")
            return default
        return int(value)

    def items(self, node: Node | None, what: str) -> list[Node]:
        if node is None:
            return []
        if not isinstance(node, SequenceNode) or not node.value:
            shown = "an empty list" if isinstance(node, SequenceNode) else _kind(node)
            self.wrong(node, f"{what} is {shown}: give a list, one `- text` a line")
            return []
        return list(node.value)

    def instructions(self, node: Node | None, what: str) -> list[tuple[Node, str]]:
        found = [(one, self.text(one, f"an item of {what}")) for one in self.items(node, what)]
        return [(one, text) for one, text in found if text]

    def retain(self, node: Node | None) -> Iterator[tuple[Node, str, str | None]]:
        """(node, prompt, answer or None): an item is a prompt, or a prompt with its answer."""
        for one in self.items(node, "retain"):
            if not isinstance(one, MappingNode):
                if text := self.text(one, "an item of retain"):
                    yield one, text, None
                continue
            cures = {"prompt": "give the user's turn (quote one that holds a colon)", "answer": "give what the model should answer"}
            parts = self.mapping(one, "retain", tuple(cures), required=cures)
            prompt, answer = (self.text(parts.get(key), f"retain.{key}") for key in cures)
            if answer and not wording(answer):
                self.wrong(parts["answer"], f"retain.answer {shorten(answer)} holds no word or number: give what the answer must contain")
            elif prompt and answer:
                yield one, prompt, answer

    def once(self, lists: dict[str, list[tuple[Node, str]]]) -> None:
        """An instruction that is measured must be new to the search and the training; so each is given once in all."""
        seen: dict[str, str] = {}
        for what, rows in lists.items():
            for node, text in rows:
                if wording(text) in seen:
                    self.wrong(node, f"{shorten(text)} in {what} is also in {seen[wording(text)]}: leave one out")
                else:
                    seen[wording(text)] = f"{what}, line {node.start_mark.line + 1}"

    def scorer(self, node: Node | None, what: str) -> ScorerSpec | None:
        parts = self.mapping(node, what, (*KINDS, "label"))
        if node is None or not isinstance(node, MappingNode):
            return None
        kinds = [kind for kind in KINDS if kind in parts]
        if len(kinds) != 1:
            given = f"both {' and '.join(kinds)}" if kinds else "none of its kinds"
            self.wrong(node, f"{what} gives {given}: give one of {', '.join(KINDS)}")
            return None
        value = self.text(parts[kinds[0]], f"{what}.{kinds[0]}")
        label = self.text(parts.get("label"), f"{what}.label")
        if label and kinds != ["classifier"]:
            self.wrong(parts["label"], f"{what} has a `label`, which only a classifier has: leave it out")
        if value is None:
            return None
        spec = ScorerSpec(kinds[0], value, label, self.path.parent)
        if problem := spec.problem():
            self.wrong(parts[kinds[0]], f"{what}.{kinds[0]} {problem}")
            return None
        return spec


def _in(what: str, key: str) -> str:
    return f"`{what}.{key}`" if what else f"`{key}`"


def _kind(node: Node) -> str:
    """What YAML took a node for."""
    if isinstance(node, MappingNode):
        return "a key with a value"
    if isinstance(node, SequenceNode):
        return "a list"
    return _READ_AS.get(node.tag.rpartition(":")[2], "a text" if node.tag.endswith(":str") else f"a value tagged {shorten(node.tag)}")


def shorten(text: str) -> str:
    """Quoted, 60 characters at most."""
    return repr(text if len(text) <= 60 else text[:59] + "…")
