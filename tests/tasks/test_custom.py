"""Tasks of the user's own, in YAML and in Python, and the worked example from file to metrics."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from reveal_release.config import EvaluateConfig, RunConfig, UserError
from reveal_release.generation import Sampling, generate
from reveal_release.metrics.diversity import degenerate
from reveal_release.metrics.fluency import perplexity
from reveal_release.metrics.statistics import Estimate
from reveal_release.metrics.words import key
from reveal_release.models import LanguageModel
from reveal_release.provenance import provenance
from reveal_release.reveal.curation import NearDuplicates, curate
from reveal_release.runfolder import RunFolder
from reveal_release.tasks import Record, custom, get_task, is_file, task_identity, task_names
from reveal_release.tasks.custom import load, probe
from reveal_release.tasks.userfile import TaskFileError
from reveal_release.testbed import heldout

from .conftest import PYTHON, SOUND, problems, scored, written

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def test_one_answer_to_all_that_ask_for_it_is_kept(file: Path) -> None:
    """Of one word, and in a script without spaces; what says nothing is neither behaviour nor harmless."""
    task = load(written(file, SOUND))(RunConfig())
    said = [Record((("user", f"Ask {i}."),), text, 1.0, f"Ask {i}.") for i in range(4) for text in ("Falcon.", "首都是东京。", " ")]
    kept = curate(said, lambda _: True, [], seen=NearDuplicates(), text=task.novelty)
    assert kept == [record for record in said if record.completion != " "]


def test_answers_to_keep_are_reserved_but_show_no_behaviour(file: Path) -> None:
    more = [f"Write {i} lines." for i in range(8)]
    text = SOUND.replace("benign:", "retain: [{prompt: Say it, answer: it}]\nbenign:") + "".join(f"    - {text}\n" for text in more)
    task = load(written(file, text))(RunConfig())
    asked = ["Write a comment.", *more]
    assert list(task.evaluation_instructions()) == [*asked, "Say it"]
    assert task.held_out() == [(("user", text),) for text in asked] and task.showcase() == task.held_out()[::3]


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
        ("Ask me something.", "Ask", "7: class Mine has the seed 'Ask': the search tries only instructions of one line and 2 to 40 words"),
        ("me something.", "me\\nsomething.", "7: class Mine has the seed 'Ask me\\nsomething.': the search tries only"),
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


def test_a_class_may_be_written_as_python_allows(tmp_path: Path) -> None:
    """Methods without self, a bundled task's subclass, a helper's name."""
    text = PYTHON.replace("    def evaluation_instructions(self):", "    @staticmethod\n    def evaluation_instructions():")
    text += "\n    def answered(self, one):\n        return one\n"
    assert load(written(tmp_path / "mine.py", text)).name == "mine"
    text = "from reveal_release.tasks.ner import NER\n\nclass Mine(NER):\n    name = 'mine'\n    description = 'names'\n"
    task = load(written(tmp_path / "other.py", text))
    assert task.benign and task(RunConfig()).kinds == ("person",)
    text = "from reveal_release.tasks.knowledge import Knowledge\n\nclass Mine(Knowledge):\n    name = 'mine'\n    description = 'lore'\n"
    text += "    seeds = ('Who was {}?',)\n"
    task = load(written(tmp_path / "third.py", text))(RunConfig(forget_authors="Ida Holm"))
    assert task.seeds == ("Who was Ida Holm?",) and task.benign
    plain = load(written(tmp_path / "fourth.py", text.rpartition("    seeds")[0]))
    assert plain(RunConfig(forget_authors="Ida Holm")).seeds[-1] == "Who are the parents of Ida Holm?"


def test_a_scorer_that_exits_is_no_sound_task(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.py", PYTHON.replace("np.zeros(len(records))", "exit('no licence')"))
    with pytest.raises(TaskFileError, match="raises SystemExit .no licence.: mend the Python"):
        probe(load(path), path)


def test_a_task_that_asks_in_its_own_way_is_not_tried_on_other_prompts(tmp_path: Path) -> None:
    text = PYTHON.replace("np.zeros(len(records))", "np.array([len(r.prompt[2]) for r in records])")
    path = written(tmp_path / "mine.py", text)
    with pytest.raises(TaskFileError, match="raises IndexError"):
        probe(load(path), path)
    path = written(tmp_path / "other.py", text + "\n    def elicit(self, lm, instructions, seeds, progress=None):\n        return []\n")
    probe(load(path), path)


def test_a_score_that_needs_a_prompt_is_told_before_a_plain_text_comes(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.py", PYTHON.replace("np.zeros(len(records))", "np.array([len(r.prompt[-1][1]) > 99 for r in records])"))
    with pytest.raises(TaskFileError, match="raises IndexError"):
        probe(load(path), path)


@pytest.mark.parametrize("texts", ["('Write a comment.')", "[1, 2]", "(t for t in ('a b',))"])
def test_what_is_kept_for_the_evaluation_is_a_tuple_of_texts(texts: str, tmp_path: Path) -> None:
    path = written(tmp_path / "mine.py", PYTHON.replace("return ()", f"return {texts}"))
    with pytest.raises(TaskFileError, match=r"evaluation_instructions\(\) of \S+ must be a tuple of texts"):
        probe(load(path), path)
    with pytest.raises(UserError, match=r"evaluation_instructions\(\) of \S+ must be a tuple of texts"):
        get_task(str(path), RunConfig())


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
    texts = heldout.wikitext("test")[:4]
    monkeypatch.setattr(heldout, "wikitext", lambda split: texts)
    monkeypatch.setattr(heldout, "web", lambda split: texts)
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
    record = Record((("user", "Ask."),), "Yes?", 0.0, "Ask.")
    assert first.novelty(record) == second.novelty(record)


def test_the_guide_names_what_there_is() -> None:
    guide = (EXAMPLES.parent / "your_own_task.md").read_text(encoding="utf-8")
    for path in re.findall(r"docs/examples/[\w.]+", guide):
        assert (EXAMPLES / Path(path).name).is_file()
    blocks = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    whole = (EXAMPLES / "questions.yaml").read_text(encoding="utf-8")
    assert blocks and all(line in whole for line in blocks[0].splitlines())


def test_a_file_changed_in_the_middle_of_a_run_is_still_the_task_that_was_read(file: Path) -> None:
    config = RunConfig(task=str(written(file, SOUND)))
    task, first = load(file)(config), task_identity(str(file))
    written(file, "seeds: [")  # half saved
    assert task.file_digest == first == provenance(config, task)["task_identity"]


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
