"""Scorers of a task of the user's own: a classifier, a regular expression, or a Python function.

    spec = ScorerSpec("regex", r"\\?", None, folder=Path())
    spec.problem()                        # None, or what is wrong with it
    spec.load()(["Is it?", "It is."])     # array([1., 0.])

A scorer maps a list of texts to (n,) scores in [0, 1].
"""

import json
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import UserError
from ..metrics.passages import by_passages
from ..metrics.toxicity import BUNDLED, HuggingFaceScorer, load_scorer, toxic_label
from .base import as_scores
from .userfile import TaskFileError, execute, raised

KINDS = ("classifier", "regex", "callable")
Scorer = Callable[[Sequence[str]], np.ndarray]
PROBES = ("", "Is this a text?", "It is a longer text,\nof two lines.")


@dataclass(frozen=True)
class ScorerSpec:
    """What a task file says of a scorer.

    kind: `classifier` (value: `evaluation`, `reward`, a folder, or a Hugging Face name; label: whose probability is the score, by
    default the toxic one), `regex` (value: a pattern; the score is 1 where it matches anywhere), `callable` (value: FILE.py:FUNCTION).
    folder: of the task file; relative paths start there.
    """

    kind: str
    value: str
    label: str | None
    folder: Path

    def __str__(self) -> str:
        return f"{self.kind} {self.value}" + (f", label {self.label}" if self.label else "")

    @property
    def file(self) -> Path:
        """The Python file of a callable, the folder of a classifier if it has one."""
        return self.folder / (self.value.rpartition(":")[0] if self.kind == "callable" else self.value)

    def problem(self) -> str | None:
        """What is wrong, and how to mend it; None where nothing is. A callable is run on three short texts."""
        if self.kind == "classifier":
            return self._classifier_problem()
        try:
            with warnings.catch_warnings(action="ignore"):  # what Python may read otherwise one day
                scores = self.load()(PROBES)
        except (re.error, ValueError, OverflowError, RecursionError) as error:
            return f"{self.value!r} is no regular expression ({error}): mend it, or put a \\ before the sign that is meant itself"
        except UserError as error:
            return str(error)
        if self.kind == "regex" and "\x08" in self.value:
            return "holds a backspace, which \\b is in double quotes: put the pattern in single quotes"
        if self.kind == "regex" and scores.all() and not re.search(r"\(\?<?!", self.value):  # which would say what is not there
            return f"{self.value!r} matches any text, the empty one too, so that every answer would show the behaviour: make it narrower"
        return None

    def _classifier_problem(self) -> str | None:
        name = self.value
        if name in BUNDLED or os.path.isfile(self.file / "scorer.json"):
            return "has a `label`, but a bundled scorer has none: leave it out" if self.label else None
        if os.path.isdir(self.file):
            try:
                config = json.loads((self.file / "config.json").read_text(encoding="utf-8"))
                labels = list((config.get("id2label") or {}).values())
            except (OSError, ValueError, AttributeError):
                return f"{name!r} is a folder but no classifier: give one that save_pretrained wrote"
            if self.label and labels and self.label not in labels:
                return f"{name!r} has no label {self.label!r}: choose from {', '.join(map(str, labels))}"
            if labels and not self.label:
                try:
                    toxic_label(dict(enumerate(map(str, labels))), name)
                except UserError as error:
                    return str(error)
        elif not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name, re.ASCII):
            return f"{name!r} is neither a folder nor a name: give {', '.join(BUNDLED)}, a folder, or a Hugging Face name (owner/name)"
        return None

    def load(self, device: str = "auto") -> Scorer:
        """`device`: of a neural classifier, as in `RunConfig`. Raises UserError where a classifier or a function cannot be had."""
        if self.kind == "regex":
            pattern = re.compile(self.value)
            return lambda texts: np.array([pattern.search(text) is not None for text in texts], dtype=float)
        if self.kind == "callable":
            return self._function()
        name = self.value if self.value in BUNDLED or not os.path.isdir(self.file) else str(self.file)
        return HuggingFaceScorer(name, self.label, device) if self.label else by_passages(load_scorer(name, device))

    def _function(self) -> Scorer:
        file, name = self.value.rpartition(":")[::2]
        if not file.endswith(".py") or not name.isidentifier():
            raise UserError(f"is {self.value!r}: give FILE.py:FUNCTION, the path from the task file's folder")
        if not os.path.isfile(self.file):
            raise UserError(f"is {self.value!r}, and there is no file {self.file}: give its path from the task file's folder")
        function = getattr(execute(self.file), name, None)
        if not callable(function):
            raise UserError(f"names {name!r}, which is no function of {self.file}: define it there")

        def score(texts: Sequence[str]) -> np.ndarray:
            if not texts:
                return np.zeros(0)
            try:
                found = function(list(texts))
            except (Exception, SystemExit) as error:  # the user's code
                raise TaskFileError(self.file, [raised(error, self.file)]) from error
            return as_scores(found, len(texts), self.value)

        return score
