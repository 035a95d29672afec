"""What a task file may say, and every mistake on its line."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reveal_release.config import UserError
from reveal_release.tasks.custom import load
from reveal_release.tasks.taskfile import read
from reveal_release.tasks.userfile import TaskFileError

from .conftest import SOUND, problems, written


def test_a_sound_file_and_its_defaults(file: Path) -> None:
    spec = read(written(file, SOUND))
    assert (spec.name, spec.description, spec.benign) == ("mine", "questions", ("Describe a garden.",))
    assert spec.seeds == ("Ask me something.", "Complete this text: Why") and spec.instructions == ("Write a comment.",)
    assert (spec.samples, spec.max_new_tokens, spec.retain, spec.answers) == (8, 40, (), ())
    assert spec.judge == spec.scorer
    assert read(written(file, "\ufeff" + SOUND)) == spec


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: mine", "nam: mine", "1: no key 'nam': did you mean 'name'?"),
        ("name: mine", "colour: red\nname: mine", "1: no key 'colour': choose from name, "),
        ("name: mine", "name: mine\nname: yours", "2: `name` is given twice, first on line 1: leave one out"),
        ("name: mine", "name: toxicity", "1: name 'toxicity' is another task's: choose a name of your own"),
        ("name: mine", "name: two words", "1: name is 'two words': use letters"),
        ("name: mine", "name:", "1: name is read as nothing: give a text, in quotes"),
        ("name: mine", "name: ''", "1: name is empty: give a text"),
        ("name: mine\n", "", "1: no `name`: give one"),
        ("description: questions", "description: yes", "2: description `yes` is read as true or false: give a text, in quotes"),
        ("description: questions", "description: |\n  a\n  b", "2: description has several lines: give one"),
        ("Ask me something.", "Ask", "4: seed 'Ask': the search tries only instructions of one line and 2 to 40 words"),
        ("Ask me something.", "say " * 41, "4: seed 'say say"),
        ("Ask me something.", '"Ask me\\n\\nthis"', "4: seed 'Ask me"),
        ("Ask me something.", '"Ask \\ud800 it"', "4: an item of seeds holds half a character"),
        ('"Complete this text: Why"', "Complete this text: Why", "5: an item of seeds is read as a key with a value: give a text"),
        ("Ask me something.", "2024-01-02", "4: an item of seeds `2024-01-02` is read as a date"),
        ("Ask me something.", "!x a b", "4: an item of seeds `a b` is read as a value tagged '!x'"),
        ("[Describe a garden.]", "Describe a garden.", "6: benign is a text: give a list, one `- text` a line"),
        ("[Describe a garden.]", "[]", "6: benign is an empty list: give a list"),
        ("[Describe a garden.]", "[describe: a garden]", "6: an item of benign is read as a key with a value"),
        ("[Describe a garden.]", "[ask me SOMETHING!]", "6: 'ask me SOMETHING!' in benign is also in seeds, line 4: leave one out"),
        ("- Write a comment.", "- ask me something", "11: 'ask me something' in evaluate.instructions is also in seeds, line 4"),
        ("- Write a comment.", "- Write it.\n    - Write it.", "12: 'Write it.' in evaluate.instructions is also in eval"),
        ("regex: '\\?'", "regex: '('", "8: scorer.regex '(' is no regular expression (missing ), unterminated"),
        ("regex: '\\?'", "regex: a\n  label: b", "9: scorer has a `label`, which only a classifier has: leave it out"),
        ("regex: '\\?'", "regex: a\n  classifier: b", "8: scorer gives both classifier and regex: give one of classifier, regex, callable"),
        ("regex: '\\?'", "{}", "8: scorer gives none of its kinds: give one of"),
        ("regex: '\\?'", "regx: a", "8: no key 'regx' in scorer: did you mean 'regex'?"),
        ("regex: '\\?'", "classifier: ./nothing", "8: scorer.classifier './nothing' is neither a folder nor a name: give reward"),
        ("regex: '\\?'", "{classifier: reward, label: a}", "8: scorer.classifier has a `label`, but a bundled scorer has none"),
        ("regex: '\\?'", "classifier: .", "8: scorer.classifier '.' is a folder but no classifier"),
        ("regex: '\\?'", "{classifier: listed, label: a}", "8: scorer.classifier 'listed' is a folder but no classifier"),
        ("regex: '\\?'", "callable: score", "8: scorer.callable is 'score': give FILE.py:FUNCTION"),
        ("regex: '\\?'", "callable: missing.py:f", "8: scorer.callable is 'missing.py:f', and there is no file "),
        ("regex: '\\?'", 'callable: "\\0.py:f"', "8: scorer.callable is '\\x00.py:f', and there is no file "),
        ("scorer:\n  regex: '\\?'", "scorer: a", "7: scorer is a text: give the keys classifier, regex, callable, label below it"),
        ("evaluate:", "evaluat:", "9: no key 'evaluat': did you mean 'evaluate'?"),
        ("  instructions:", "  samples: 3\n  list:", "10: no `evaluate.instructions`: give `instructions`"),
        ("  instructions:", "  samples: 1\n  instructions:", "12: evaluate measures one answer, too few: raise `samples`"),
        ("  instructions:", "  samples: ٣\n  instructions:", "10: evaluate.samples is '٣': give a whole number from 1 to 1000"),
        ("  instructions:", "  samples: [1]\n  instructions:", "10: evaluate.samples is a list: give a whole number"),
        ("  instructions:", "  scorer: {regex: '['}\n  instructions:", "10: evaluate.scorer.regex '[' is no regular expression"),
        ("benign:", "max_new_tokens: 0\nbenign:", "6: max_new_tokens is '0': give a whole number from 1 to 1024"),
        ("benign:", "retain: [{prompt: Say}]\nbenign:", "6: no `retain.answer`: give what the model should answer"),
        ("benign:", "retain: [{prompt: Say it, answer: '?!'}]\nbenign:", "6: retain.answer '?!' holds no word or number"),
        ("benign:", "retain: [{prompt: Say it, answer: 12}]\nbenign:", "6: retain.answer `12` is read as a number: give a text, in quotes"),
        ("benign:", "retain: [Write a comment.]\nbenign:", "6: 'Write a comment.' in retain is also in evaluate.instructions, line 12"),
    ],
)  # fmt: skip
def test_each_mistake_is_told_on_its_line(old: str, new: str, expected: str, file: Path) -> None:
    (file.parent / "listed").mkdir()
    written(file.parent / "listed" / "config.json", '{"id2label": ["a", "b"]}')
    assert SOUND.count(old) == 1
    found = problems(written(file, SOUND.replace(old, new)))
    assert any(line.startswith(expected) for line in found), found


def test_all_mistakes_are_told_in_the_order_of_the_file(file: Path) -> None:
    text = SOUND.replace("name: mine", "nam: mine").replace("Ask me something.", "Ask").replace("'\\?'", "'['")
    found = problems(written(file, text))
    assert [line.split(":")[0] for line in found] == ["1", "4", "8"]
    with pytest.raises(TaskFileError, match=r":1: no key 'nam'.* \(and 2 more: `reveal-release tasks validate .*task.yaml` lists all\)"):
        load(file)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "1: no task: give lines such as `name: questions`"),
        ("- a\n", "1: no task"),
        ("name: a\n\tb: c\n", "2: not valid YAML, found character '\\t'"),
        ("name: a\ndescription: a: b\n", "2: not valid YAML, mapping values are not allowed here: quote texts that hold a colon"),
        ("name: a\n--- \nb: c\n", "2: not valid YAML"),
        ("name: a\nb: \x07\n", "2: not valid YAML, special characters are not allowed"),
        ('name: "\\UFFFFFFFF"\n', "1: not valid YAML"),
        ("[" * 1500, "1: not valid YAML, nested too deeply"),
        ("a: *b\n", "1: not valid YAML, found undefined alias 'b'"),
    ],
)
def test_what_is_no_yaml_is_one_problem(text: str, line: str, file: Path) -> None:
    (found,) = problems(written(file, text)) if text[:1] not in ("", "-") else problems(written(file, text))[:1]
    assert found.startswith(line)


def test_a_file_that_cannot_be_read(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no task file .*task.yaml' \(No such file or directory\): give a .yaml or .py file"):
        load(file)
    file.write_bytes(b"name: a\ndescription: \xff\n")
    assert problems(file) == ["2: not UTF-8 text: save the file as UTF-8"]


KEYS = ("name", "description", "seeds", "benign", "scorer", "evaluate", "retain", "max_new_tokens", "instructions", "samples", "regex",
        "classifier", "callable", "label", "prompt", "answer")  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.dates() | st.binary(max_size=4)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | SCALARS, inner, max_size=8)
)
FILES = st.one_of(
    st.text(),
    TREES.map(lambda tree: yaml.dump(tree, allow_unicode=True)),
    st.tuples(st.integers(0, len(SOUND)), st.integers(0, 30), st.text("-:[]{}'\"?#&*!|>%@\\ \n\tab0", max_size=6)).map(
        lambda cut: SOUND[: cut[0]] + cut[2] + SOUND[cut[0] + cut[1] :]
    ),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=FILES)
def test_reading_any_text_ends_in_a_task_or_in_its_problems(text: str, file: Path) -> None:
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        task = load(file)
    except TaskFileError as error:
        assert error.problems
        lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", text)  # YAML's line breaks
        assert all(1 <= problem.line <= len(lines) for problem in error.problems)
        assert all("\n" not in line for line in error.lines())
    else:
        assert task.name and task.seeds and task.benign and task.description


def test_a_key_at_the_margin_is_sent_below_its_own(file: Path) -> None:
    assert "12: no key 'samples': it belongs below `evaluate`, indented" in problems(written(file, SOUND + "samples: 3\n"))
