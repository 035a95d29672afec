"""Tasks by name. A task is one file here that registers itself; nothing central is edited to add one.

A task of the user's own is named by its file, YAML or Python (see custom.py).
"""

from pathlib import Path

from ..config import RunConfig
from ..registry import check_name, names_in
from .base import TASKS, Record, Task

__all__ = ["Record", "Task", "get_task", "is_file", "task_identity", "task_names"]


def task_names() -> list[str]:
    return names_in(__name__, __path__, TASKS)


def is_file(name: str) -> bool:
    """Whether a task's name is that of a file of the user's own."""
    return name.lower().endswith((".yaml", ".yml", ".py")) or "/" in name


def get_task(name: str, config: RunConfig) -> Task:
    """The task of that name, or of that file, set up for a run. Raises UserError for an unknown one, or an unsound file."""
    names = task_names()
    if is_file(name):
        from .custom import check_reserved, load  # here, for they stand on this package's tasks

        task = load(Path(name), names)(config)
        check_reserved(task)
        return task
    check_name("task", name, names, more=", or give a .yaml or .py file")
    return TASKS[name](config)


def task_identity(name: str) -> str | None:
    """What must stay the same, beside the settings, for a run to go on: a digest of a task's files; None for a bundled task."""
    if not is_file(name):
        return None
    from .custom import identity

    return identity(Path(name))
