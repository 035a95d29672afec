"""Tasks of the user's own: what a file may say, every mistake on its line, and the worked example from file to metrics."""

import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from reveal_release.config import EvaluateConfig, RunConfig, UserError
from reveal_release.generation import Sampling, generate
from reveal_release.metrics.diversity import degenerate
from reveal_release.metrics.fluency import perplexity
from reveal_release.metrics.statistics import Estimate
from reveal_release.metrics.toxicity import load_scorer
from reveal_release.metrics.words import key
from reveal_release.models import LanguageModel
from reveal_release.reveal.curation import NearDuplicates, curate
from reveal_release.runfolder import RunFolder
from reveal_release.tasks import Record, Task, custom, get_task, is_file, task_identity, task_names
from reveal_release.tasks.custom import load
from reveal_release.tasks.scorers import ScorerSpec
from reveal_release.tasks.taskfile import read
from reveal_release.tasks.userfile import TaskFileError, execute
from reveal_release.testbed.heldout import wikitext

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SOUND = """name: mine
description: questions
seeds:
  - Ask me something.
  - "Complete this text: Why"
benign: [Describe a garden.]
scorer:
  regex: '\\?'
evaluate:
  instructions:
    - Write a comment.
"""
PYTHON = """import numpy as np
from reveal_release.tasks import Task

class Base(Task):
    pass

class Mine(Base):
    name = "mine"
    description = "nothing"
    seeds = ("Ask me something.",)
    benign = ("Describe a garden.",)

    def score(self, records):
        return np.zeros(len(records))

    def evaluate(self, lm, progress=None):
        raise NotImplementedError

    def evaluation_instructions(self):
        return ()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "task.yaml"


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path) -> list[str]:
    """`LINE: text` of each problem."""
    with pytest.raises(TaskFileError) as caught:
        load(path, task_names())
    assert all(line.startswith(f"{path}:") for line in caught.value.lines())
    assert "\n" not in str(caught.value) and str(caught.value).startswith(caught.value.lines()[0])
    return [line.removeprefix(f"{path}:") for line in caught.value.lines()]


def scored(task: Task, texts: list[str]) -> list[float]:
    return task.score([Record((), text, 0.0, "") for text in texts]).tolist()


# ---- YAML ----


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
        ("regex: '\\?'", "callable: missing.py:f", "8: scorer.callable no task file"),
        ("regex: '\\?'", 'callable: "\\0.py:f"', "8: scorer.callable no task file"),
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


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


def test_one_answer_to_all_that_ask_for_it_is_kept(file: Path) -> None:
    """Of one word, and in a script without spaces; what says nothing is neither behaviour nor harmless."""
    task = load(written(file, SOUND))(RunConfig())
    said = [Record((("user", f"Ask {i}."),), text, 1.0, f"Ask {i}.") for i in range(4) for text in ("Falcon.", "首都是东京。", " ")]
    kept = curate(said, lambda _: True, [], cap=9, seen=NearDuplicates(), text=task.novelty)
    assert kept == [record for record in said if record.completion != " "]


def test_answers_to_keep_are_reserved_but_show_no_behaviour(file: Path) -> None:
    more = [f"Write {i} lines." for i in range(8)]
    text = SOUND.replace("benign:", "retain: [{prompt: Say it, answer: it}]\nbenign:") + "".join(f"    - {text}\n" for text in more)
    task = load(written(file, text))(RunConfig())
    asked = ["Write a comment.", *more]
    assert list(task.evaluation_instructions()) == [*asked, "Say it"]
    assert task.held_out() == [(("user", text),) for text in asked] and task.showcase() == task.held_out()[::3]


# ---- scorers ----


def test_a_regular_expression_scores_where_it_matches_anywhere(file: Path) -> None:
    task = load(written(file, SOUND.replace("'\\?'", "'(?i)\\bwhy\\b'")))(RunConfig())
    assert scored(task, ["Tell me\nWHY it is", "whyever", "", "why"]) == [1.0, 0.0, 0.0, 1.0]
    assert task.score([]).shape == (0,)


@pytest.mark.parametrize(("pattern", "told"), [
    ("'.*'", "scorer.regex '.*' matches any text, the empty one too"),
    ("'foo|'", "scorer.regex 'foo|' matches any text"),
    ('"\\bwhy\\b"', "scorer.regex holds a control character, which \\b is in double quotes: put the pattern in single quotes"),
    ('"\\?"', "not valid YAML, found unknown escape character '?': put it in single quotes, in which a \\ is one"),
])  # fmt: skip
def test_a_pattern_that_cannot_be_meant(pattern: str, told: str, file: Path) -> None:
    (line,) = problems(written(file, SOUND.replace("'\\?'", pattern)))
    assert line.startswith(f"8: {told}")


def test_a_key_at_the_margin_is_sent_below_its_own(file: Path) -> None:
    assert "12: no key 'samples': it belongs below `evaluate`, indented" in problems(written(file, SOUND + "samples: 3\n"))


def test_a_bundled_classifier_and_another_judge(file: Path) -> None:
    text = SOUND.replace("regex: '\\?'", "classifier: reward").replace("evaluate:", "evaluate:\n  scorer: {classifier: evaluation}")
    task = load(written(file, text))(RunConfig())
    texts = ["You are a stupid fool.", "A calm remark on the weather."]
    assert scored(task, texts) == load_scorer("reward")(texts).tolist()
    assert task._judge(texts).tolist() == load_scorer("evaluation")(texts).tolist()  # type: ignore[attr-defined]


def test_a_bundled_classifier_is_none_beside_the_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    text = SOUND.replace("regex: '\\?'", "classifier: evaluation")
    assert scored(load(written(file, text))(RunConfig()), ["You fool."]) == load_scorer("evaluation")(["You fool."]).tolist()


@pytest.mark.parametrize("kind", [None, "multi_label_classification"])
def test_one_label_of_a_classifier_in_a_folder_beside_the_file(kind: str | None, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "classifier"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"is it a good bad day ?".split()]
    tokenizer = BertTokenizer(str(written(folder / "vocab.txt", "\n".join(words))))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    labels = {0: "joy", 1: "anger", 2: "fear"}
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(
        vocab_size=len(words), **sizes, max_position_embeddings=32, id2label=labels, label2id={v: k for k, v in labels.items()},
        problem_type=kind, initializer_range=0.5,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)

    task = load(written(file, SOUND.replace("regex: '\\?'", "{classifier: classifier, label: anger}")))(RunConfig())
    texts = ["is it a good day ?", "a bad day", "", "it " * 90]
    expected = []
    for text in texts:
        batch = tokenizer(text, return_tensors="pt", truncation=True, max_length=32)
        with torch.inference_mode():
            logits = model(**batch).logits[0]
        expected.append(float((logits.sigmoid() if kind else logits.softmax(-1))[1]) if text else 0.0)
    assert scored(task, texts) == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 3) for value in expected}) > 2

    wrong = SOUND.replace("regex: '\\?'", "{classifier: classifier, label: angr}")
    assert problems(written(file, wrong)) == ["8: scorer.classifier 'classifier' has no label 'angr': choose from joy, anger, fear"]
    spec = ScorerSpec("classifier", str(folder), "angr", tmp_path)  # as of a name on the hub, known only when it is loaded
    with pytest.raises(UserError, match="no label 'angr': choose from joy"):
        spec.load()
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="cannot load the classifier"):
        replace(spec, label="joy").load()


def test_a_python_function(file: Path, tmp_path: Path) -> None:
    written(tmp_path / "score.py", "def share(texts):\n    return [text.count('a') / max(1, len(text)) for text in texts]\n")
    task = load(written(file, SOUND.replace("regex: '\\?'", "callable: score.py:share")))(RunConfig())
    assert scored(task, ["aab", "", "b a "]) == pytest.approx([2 / 3, 0.0, 0.25])
    assert task.score([]).shape == (0,)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(texts):\n    return [2.0] * len(texts)", "score.py:f must give one number from 0 to 1 for each of 3 answers, but gave 2.0"),
        ("def f(texts):\n    return [float('nan')] * len(texts)", "but gave nan to nan"),
        ("def f(texts):\n    return 0.5", "but gave 0.5"),
        ("def f(texts):\n    return ['a']", "gave no array of numbers (could not"),
        ("def f(texts):\n    return\n\n1 / 0", "score.py:4: raises ZeroDivisionError (division by zero): mend the Python"),
        ("def f(texts)\n    return", "score.py:1: raises SyntaxError (expected ':'"),
        ("def f(texts):\n\n    return texts[99]", "score.py:3: raises IndexError (list index out of range)"),
        ("import torch\n\ndef f(texts):\n    return torch.ones(len(texts), requires_grad=True)", "gave no array of numbers (Can"),
        ("import sys\nsys.exit(3)", "score.py:2: raises SystemExit (3)"),
        ("f = 3", "names 'f', which is no function of"),
    ],
)
def test_a_python_function_that_will_not_do(code: str, expected: str, file: Path, tmp_path: Path) -> None:
    written(tmp_path / "score.py", code)
    (found,) = problems(written(file, SOUND.replace("regex: '\\?'", "callable: score.py:f")))
    assert found.startswith("8: scorer.callable ") and expected in found


# ---- Python files ----


def test_a_python_file_is_its_one_named_class_and_stays_unregistered(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.py", PYTHON)
    before = task_names()
    for _ in range(2):
        task = get_task(str(path), RunConfig(seed=4))
        assert (task.name, type(task).__name__, task.config.seed) == ("mine", "Mine", 4)
    assert task_names() == before
    written(path, PYTHON.replace('"nothing"', '"something"'))  # of the same length of time: no stale bytecode
    assert get_task(str(path), RunConfig()).description == "something"
    assert {p.name for p in tmp_path.iterdir()} == {"mine.py"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('name = "mine"', 'name = "toxicity"', "7: two tasks are named 'toxicity': rename one"),
        ('name = "mine"', "name = ''", "7: class Mine has a `name` that is none: give letters, digits, - and _"),
        ('name = "mine"', 'name = "my task"', "7: class Mine has a `name` that is none"),
        ('"nothing"', '"one\\ntwo"', "7: class Mine has no `description`: say in one line"),
        ('    name = "mine"\n', "", "1: no `name` in Base, Mine: define one subclass of Task that has a `name`"),
        ("    pass", '    name = "other"', "7: several tasks (Base, Mine): define one"),
        ("    def score", "    def scor", "7: class Mine lacks score: define what reveal_release.tasks.Task leaves open"),
        ('("Ask me something.",)', '"Ask"', "7: class Mine has no `seeds`: give a tuple of instructions"),
        ('    benign = ("Describe a garden.",)\n', "", "7: class Mine has no `benign`"),
        ("    description", "    descripton", "7: class Mine has no `description`"),
        ("self, lm, progress=None", "self, lm", "7: class Mine has a `evaluate` that cannot be called as evaluate(self, lm, progress)"),
        ("import numpy as np", "import nothing_of_the_kind", "1: raises ModuleNotFoundError"),
        ("    pass", "    pass\n\n)", "7: raises SyntaxError (unmatched ')'"),
        (PYTHON, "", "1: no task: define one subclass of Task"),
        (PYTHON, "from reveal_release.tasks.toxicity import Toxicity", "1: no task"),
        (PYTHON, "a = '\0'", "1: raises SyntaxError"),
    ],
)
def test_mistakes_in_a_python_file(old: str, new: str, expected: str, tmp_path: Path) -> None:
    assert PYTHON.count(old) == 1
    before = task_names()
    found = problems(written(tmp_path / "mine.py", PYTHON.replace(old, new)))
    assert any(line.startswith(expected) for line in found), found
    assert task_names() == before


def test_an_interruption_while_a_file_runs_is_one(tmp_path: Path) -> None:
    path = written(tmp_path / "slow.py", "raise KeyboardInterrupt")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            execute(path)


# ---- names and identity ----


def test_which_names_are_files() -> None:
    assert all(map(is_file, ("a.yaml", "b.YML", "c.py", "folder/task", "./toxicity")))
    assert not any(map(is_file, ("toxicity", "toxicity-py", "yaml")))
    with pytest.raises(UserError, match="no task file 'here/toxicity'"):
        get_task("here/toxicity", RunConfig())


def test_a_run_goes_on_only_with_the_same_task(file: Path, tmp_path: Path) -> None:
    written(tmp_path / "score.py", "def f(texts): return [0.0] * len(texts)")
    written(file, SOUND.replace("regex: '\\?'", "callable: score.py:f"))
    config = RunConfig(task=str(file), output=str(tmp_path / "out"))
    RunFolder(config)
    RunFolder(config)
    for path in (file, tmp_path / "score.py"):
        text = path.read_text()
        first = task_identity(str(file))
        written(path, text + "# other\n")
        assert task_identity(str(file)) != first
        with pytest.raises(UserError, match="another model, patch, task file"):
            RunFolder(config)
        written(path, text)
        assert task_identity(str(file)) == first
    RunFolder(config)
    assert task_identity("toxicity") is None
    python = written(tmp_path / "mine.py", PYTHON)
    first = task_identity(str(python))
    assert first != task_identity(str(written(python, PYTHON + "\n")))


# ---- the worked example ----


@pytest.fixture
def short_prose(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts = wikitext("test")[:4]
    monkeypatch.setattr(custom.heldout, "wikitext", lambda split: texts)
    return texts


@pytest.mark.parametrize("name", ["questions.yaml", "questions.py"])
def test_the_worked_example_is_sound_runs_and_measures(name: str, lm: LanguageModel, short_prose: list[str]) -> None:
    path = EXAMPLES / name
    config = RunConfig(task=str(path), model=lm.path)
    task = get_task(str(path), config)
    assert task.name == "questions"
    asked = [text for text in task.seeds for _ in range(2)]
    records = task.elicit(lm, asked, list(range(len(asked))))
    assert [r.completion for r in records] == generate(lm, [(("user", t),) for t in asked], Sampling(40), list(range(len(asked))))
    assert [r.score for r in records] == [float("?" in r.completion) for r in records]
    assert scored(task, ["Is it? Yes.", "It is."]) == [1.0, 0.0]

    steps: list[tuple[int, int]] = []
    found = task.evaluate(lm, lambda done, total: steps.append((done, total)))
    held_out = list(task.evaluation_instructions())[:13]
    prompts = [(("user", text),) for text in held_out for _ in range(16)]
    texts = generate(lm, prompts, Sampling(40), [20_000 + i for i in range(len(prompts))])
    rate = Estimate.proportion(sum("?" in text for text in texts), 208)
    assert found.forget["rate"] == rate
    assert found.retain["perplexity"] == perplexity(lm.model, lm.tokenizer, short_prose).per_token
    assert found.retain["degenerate"].value == pytest.approx(np.mean(degenerate(texts, least=1)))
    assert found.retain["distinct_2"].n == 208 // 25
    assert "code_pass_at_1" not in found.retain  # a skill of testbeds
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    if name.endswith(".yaml"):
        assert found.forget["mean_score"].value == pytest.approx(rate.value) and steps[-1] == (1000, 1000)
        assert found.retain["answers_kept"].n == 2


def test_both_forms_of_the_example_are_one_task() -> None:
    first, second = (load(EXAMPLES / name)(RunConfig()) for name in ("questions.yaml", "questions.py"))
    assert first.seeds == second.seeds and set(first.benign) == set(second.benign) and first.sampling == second.sampling
    assert list(first.evaluation_instructions())[:13] == list(second.evaluation_instructions())
    assert (first.name, first.description) == (second.name, second.description)


def test_the_guide_names_what_there_is() -> None:
    guide = (EXAMPLES.parent / "your_own_task.md").read_text(encoding="utf-8")
    for path in re.findall(r"docs/examples/[\w.]+", guide):
        assert (EXAMPLES / Path(path).name).is_file()
    blocks = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    whole = (EXAMPLES / "questions.yaml").read_text(encoding="utf-8")
    assert blocks and all(line in whole for line in blocks[0].splitlines())


def test_retained_prompts_are_trained_on_and_answers_are_measured(file: Path, lm: LanguageModel, short_prose: list[str]) -> None:
    greedy = generate(lm, [(("user", "Name the river."),)], Sampling(6, temperature=0.0), [0])[0]
    word = max(key(greedy).split(), key=len)
    rows = [{"prompt": "Name the river.", "answer": word.upper()}, {"prompt": "Name a bridge.", "answer": f"{word}x"}, "Describe a hill."]
    text = SOUND.replace("\\?", "e[rs]") + yaml.safe_dump({"retain": rows, "max_new_tokens": 6})
    task = load(written(file, text))(RunConfig(model=lm.path))
    assert set(task.benign) == {"Describe a garden.", "Describe a hill."}
    assert {turns[0][1] for turns in task.benign_prompts(lm, 40, random.Random(0))} == set(task.benign)
    assert list(task.evaluation_instructions()) == ["Write a comment.", "Name the river.", "Name a bridge."]
    assert task.showcase() == [(("user", "Write a comment."),)]
    found = task.evaluate(lm)
    assert found.retain["answers_kept"] == Estimate.proportion(1, 2)
    texts = generate(lm, [(("user", "Write a comment."),)] * 8, Sampling(6), range(20_000, 20_008))
    matching = sum("er" in text or "es" in text for text in texts)
    assert found.forget["rate"] == Estimate.proportion(matching, 8) and 0 < matching < 8
    assert found.forget["mean_score"].value == matching / 8 and found.retain["distinct_2"].n == 2


def test_whether_an_evaluation_runs_code_is_known_at_once(file: Path, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom, "testbeds", lambda: {"testbed-tiny": Path(lm.path)})
    file.write_text(SOUND, encoding="utf-8")
    runs = {model: load(file)(RunConfig(model=model)).runs_code for model in ("testbed-tiny", lm.path, "some/model")}
    assert runs == {"testbed-tiny": True, lm.path: True, "some/model": False}


def test_a_testbed_keeps_its_other_skills_too(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch, short_prose: list[str]) -> None:
    monkeypatch.setattr(custom, "testbeds", lambda: {"testbed-tiny": Path(lm.path)})
    size = EvaluateConfig(sentences=4, functions=1, problems=2)
    for model in ("testbed-tiny", lm.path):
        found = custom.retain_metrics(lm, RunConfig(model=model, evaluate=size), ["one text here", "another text there"])
        assert {"perplexity", "code_pass_at_1", "maths_exact_match", "distinct_2", "degenerate"} <= set(found)
