"""Scorers of a user's own: patterns, classifiers, functions."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from reveal_release.config import RunConfig, UserError
from reveal_release.metrics.toxicity import load_scorer
from reveal_release.tasks.custom import load
from reveal_release.tasks.scorers import ScorerSpec

from .conftest import SOUND, problems, scored, written


def test_a_regular_expression_scores_where_it_matches_anywhere(file: Path) -> None:
    task = load(written(file, SOUND.replace("'\\?'", "'(?i)\\bwhy\\b'")))(RunConfig())
    assert scored(task, ["Tell me\nWHY it is", "whyever", "", "why"]) == [1.0, 0.0, 0.0, 1.0]
    assert task.score([]).shape == (0,)


@pytest.mark.parametrize(("pattern", "told"), [
    ("'.*'", "scorer.regex '.*' matches any text, the empty one too"),
    ("'foo|'", "scorer.regex 'foo|' matches any text"),
    ('"\\bwhy\\b"', "scorer.regex holds a backspace, which \\b is in double quotes: put the pattern in single quotes"),
    ('"\\?"', "not valid YAML, found unknown escape character '?': put it in single quotes, in which a \\ is one"),
])  # fmt: skip
def test_a_pattern_that_cannot_be_meant(pattern: str, told: str, file: Path) -> None:
    (line,) = problems(written(file, SOUND.replace("'\\?'", pattern)))
    assert line.startswith(f"8: {told}")


def test_a_pattern_that_says_what_is_not_there_may_match_the_empty_text(file: Path) -> None:
    task = load(written(file, SOUND.replace("'\\?'", r"'(?s)^(?!.*\bsorry\b)'")))(RunConfig())
    assert scored(task, ["", "I am sorry.", "Sure."]) == [1.0, 0.0, 1.0]


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
    none = problems(written(file, SOUND.replace("regex: '\\?'", "{classifier: classifier}")))
    assert len(none) == 1 and none[0].startswith("8: scorer.classifier no label of 'classifier' looks toxic: joy, anger, fear;")
    assert none[0].endswith("or in a task file name one as `label`")
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
