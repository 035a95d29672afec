"""Task files of a user's own."""

from pathlib import Path

import pytest

from reveal_release.tasks import Record, Task, task_names
from reveal_release.tasks.custom import load
from reveal_release.tasks.userfile import TaskFileError

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
