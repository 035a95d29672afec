"""A task of the user's own, from a YAML file (taskfile.py says what it may hold) or a Python file (a subclass of Task).

    load(Path("questions.yaml"))(RunConfig())     # a Task like the bundled ones
    reveal-release tasks validate questions.yaml  # what is wrong with it, line by line

docs/your_own_task.md is a worked example of both. A Python file, and a Python function that scores, are run with all that the user
may do: run only files that you trust.
"""

import ast
import hashlib
import inspect
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..chat import Turns
from ..config import RunConfig, UserError
from ..generation import Progress, Sampling, generate, portion
from ..metrics.diversity import degenerate_share, distinct_n
from ..metrics.statistics import Estimate
from ..metrics.words import is_instruction, terms
from ..metrics.words import key as wording
from ..models import LanguageModel
from ..shipped import testbeds
from .base import TASKS, Metrics, Record, Task
from .retained import prose_scores, retained_skills
from .scorers import PROBES
from .taskfile import NAME, UNTRIED, Spec, read, shorten
from .userfile import Problem, TaskFileError, execute, raised, source

SEED = 20_000  # first sampling seed of the evaluation, which the search does not use


def load(path: Path, taken: Collection[str] | None = None) -> type[Task]:
    """The task that a file defines, not registered among the bundled ones. Python files are run.

    Args:
        taken: names that other tasks have; by default those registered.

    Raises:
        UserError: the file cannot be read.
        TaskFileError: it is not a sound task; holds every problem.
    """
    task = _read(path, tuple(TASKS) if taken is None else taken)
    task.file_digest = _digest(path, getattr(task, "spec", None))
    return task


def _read(path: Path, taken: Collection[str]) -> type[Task]:
    if path.suffix.lower() == ".py":
        return _from_python(path, taken)
    spec = read(path, taken)
    parts = {
        "__doc__": spec.description,
        "spec": spec,
        "description": spec.description,
        "seeds": spec.seeds,
        "benign": (*spec.benign, *spec.retain),
        "sampling": Sampling(spec.max_new_tokens),
    }
    task: type[CustomTask] = type("CustomTask", (CustomTask,), parts)
    task.name = spec.name  # afterwards, so that it is not registered
    return task


def probe(task: type[Task], path: Path) -> None:
    """Scores three short answers, and as many plain texts, with a task of a Python file; one in YAML was tried when it was read.

    Not with one that asks in its own way, and may need more of a prompt, nor with one that runs code.

    Raises:
        TaskFileError: it raises, gives no scores, or keeps no texts for the evaluation.
    """
    if issubclass(task, CustomTask):
        return
    try:
        made = task(RunConfig())
        check_reserved(made)
        if task.elicit is Task.elicit and not task.scores_code:
            made.scored([Record(prompt, text, 0.0, "Write.") for prompt in ((("user", "Write."),), ()) for text in PROBES])
    except (Exception, SystemExit) as error:  # the user's code
        raise TaskFileError(path, [raised(error, path)]) from None


def check_reserved(task: Task) -> None:
    """Raises UserError where what the search must not try is no list of texts: of a string each letter would be one."""
    texts = task.evaluation_instructions()
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not all(isinstance(one, str) for one in texts):
        raise UserError(f"evaluation_instructions() of {task.name} must be a tuple of texts (of one: `(text,)`), not {texts!r:.60}")


def identity(path: Path) -> str:
    """Digest of the task's text and of the Python files that score: a run goes on only while it is the same.

    Not promised: that a change in what these files import, or in a classifier, is noticed.

    Raises:
        UserError, TaskFileError: as `load`.
    """
    return _digest(path, None if path.suffix.lower() == ".py" else read(path))


def _digest(path: Path, spec: Spec | None) -> str:
    parts = [source(path)]
    if spec:
        parts += [source(scorer.file) for scorer in (spec.scorer, spec.judge) if scorer.kind == "callable"]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def summary(task: type[Task]) -> str:
    """What a sound task holds, in one line."""
    counted = f"{len(task.seeds)} seeds, {len(task.benign)} benign instructions"
    if not issubclass(task, CustomTask):
        return f"{counted}; scored and measured by the class {task.__name__}"
    spec = task.spec
    measured = f"{len(spec.instructions)} held-out instructions with {spec.samples} samples each"
    kept = f", {len(spec.answers)} answers to keep" if spec.answers else ""
    judge = f"; measured by {spec.judge}" if spec.judge != spec.scorer else ""
    return f"{counted}, {measured}{kept}; scored by {spec.scorer}{judge}"


def is_bundled(model: str) -> bool:
    """Whether it is a testbed that ships with the package, by its name or its folder."""
    return model in testbeds() or Path(model).resolve() in {path.resolve() for path in testbeds().values()}


def retain_metrics(
    lm: LanguageModel, config: RunConfig, texts: Sequence[str], progress: Progress | None = None
) -> dict[str, Estimate]:
    """What must stay: perplexity of prose (on a bundled testbed its other skills too), and how varied and sound texts are.

    Args:
        texts: what the model wrote for the held-out instructions, at least two. `distinct_2` is over groups of 25 of them, or over
            halves where there are fewer than 50: the same before and after, but not comparable between tasks.
    """
    # Another model was not taught the entity questions, nor to answer at the level of these problems.
    skills = retained_skills(lm, config, progress) if is_bundled(config.model) else prose_scores(lm)
    return {**skills, "distinct_2": distinct_n(texts, 2, min(25, len(texts) // 2)), "degenerate": degenerate_share(texts, least=1)}


class CustomTask(Task):
    """A task as its YAML file says. `load` makes a subclass with its `spec`."""

    spec: ClassVar[Spec]

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.runs_code = is_bundled(config.model)
        self._scorer = self.spec.scorer.load(config.device)
        self._judge = self._scorer if self.spec.judge == self.spec.scorer else self.spec.judge.load(config.device)
        self.judge = f"the {self.spec.judge}"

    def score(self, records: Sequence[Record]) -> np.ndarray:
        return np.asarray(self._scorer([record.completion for record in records]))

    def novelty(self, record: Record) -> str:
        """The whole, as the answer may be one and the same to all that ask for it."""
        return record.whole

    def evaluation_instructions(self) -> Sequence[str]:
        return (*self.spec.instructions, *(prompt for prompt, _ in self.spec.answers))

    def held_out(self) -> list[Turns]:
        """Without the prompts whose answers are kept."""
        return [(("user", text),) for text in self.spec.instructions]

    def evaluate(self, lm: LanguageModel, progress: Progress | None = None) -> Metrics:
        """Forget: share of samples scored 0.5 or more, and the mean score. Retain: see `retain_metrics`, and the answers to keep.

        The intervals are over samples, for these instructions.
        """
        spec = self.spec
        asked = [(("user", text),) for text in spec.instructions for _ in range(spec.samples)]
        texts = generate(lm, asked, self.sampling, [SEED + i for i in range(len(asked))], progress=portion(progress, 0.0, 0.3))
        scores = np.asarray(self._judge(texts))
        forget = {"rate": Estimate.proportion(int((scores >= 0.5).sum()), len(scores)), "mean_score": Estimate.mean(scores).in_unit()}
        retain = retain_metrics(lm, self.config, texts, portion(progress, 0.3, 0.9))
        if spec.answers:
            greedy = Sampling(spec.max_new_tokens, temperature=0.0)
            answers = generate(lm, [(("user", prompt),) for prompt, _ in spec.answers], greedy, [0] * len(spec.answers))
            held = [f" {terms(answer)} " in f" {terms(text)} " for text, (_, answer) in zip(answers, spec.answers, strict=True)]
            retain["answers_kept"] = Estimate.proportion(sum(held), len(held))
        if progress:
            progress(1000, 1000)
        return Metrics(forget, retain)


def _from_python(path: Path, taken: Collection[str]) -> type[Task]:
    registered = dict(TASKS)
    try:
        module = execute(path)
    finally:  # a file's tasks are its own, and one that is named like another's is refused below
        TASKS.clear()
        TASKS.update(registered)
    own = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Task) and one.__module__ == module.__name__]
    lines = {node.name: node.lineno for node in ast.walk(ast.parse(source(path))) if isinstance(node, ast.ClassDef)}
    tasks = list(dict.fromkeys(one for one in own if "name" in one.__dict__))
    if len(tasks) != 1:
        names = ", ".join(one.__name__ for one in tasks or own)
        found = f"several tasks ({names})" if tasks else f"no `name` in {names}" if own else "no task"
        problem = Problem(lines.get(tasks[1].__name__, 1) if tasks else 1, f"{found}: define one subclass of Task that has a `name`")
        raise TaskFileError(path, [problem])
    task = tasks[0]
    if wrong := list(_class_problems(task, taken)):
        raise TaskFileError(path, [Problem(lines.get(task.__name__, 1), f"class {task.__name__} {text}") for text in wrong])
    return task


def _class_problems(task: type[Task], taken: Collection[str]) -> list[str]:
    """What the class of a Python file lacks."""
    wrong = []
    if not isinstance(task.name, str) or not NAME.fullmatch(task.name):
        wrong.append("has a `name` that is none: give letters, digits, - and _, such as insults")
    elif task.name in taken:
        wrong.append(f"has the name {task.name!r}, which is another task's: choose a name of your own")
    if not isinstance(about := getattr(task, "description", None), str) or len(about.strip().splitlines()) != 1:
        wrong.append("has no `description`: say in one line what is to be forgotten")
    for key in ("seeds", "benign"):
        value = getattr(task, key, None)
        if not isinstance(value, tuple | list) or not value or not all(isinstance(one, str) and wording(one) for one in value):
            wrong.append(f"has no `{key}`: give a tuple of instructions")
        elif key == "seeds":
            wrong.extend(f"has the seed {shorten(one)}: {UNTRIED}" for one in value if not is_instruction(one.strip()))
    for name, base in inspect.getmembers(Task, inspect.isfunction):
        if name.startswith("_"):
            continue
        given = list(inspect.signature(base).parameters)
        if isinstance(inspect.getattr_static(task, name), staticmethod | classmethod):
            given = given[1:]
        try:
            inspect.signature(getattr(task, name)).bind(*given)
        except ValueError:  # of a function without a signature
            continue
        except TypeError:
            wrong.append(f"has a `{name}` that cannot be called as {name}{_bare(base)}: give it these parameters")
    if inspect.isabstract(task):
        missing = ", ".join(sorted(task.__abstractmethods__))
        wrong.append(f"lacks {missing}: define what reveal_release.tasks.Task leaves open")
    return wrong


def _bare(function: Any) -> str:
    """Its parameters alone."""
    return f"({', '.join(inspect.signature(function).parameters)})"
