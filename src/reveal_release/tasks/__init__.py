"""Tasks by name. A task is one file here that registers itself; nothing central is edited to add one."""

import difflib
import importlib
import pkgutil

from ..config import RunConfig, UserError
from .base import TASKS, Record, Task

__all__ = ["Record", "Task", "get_task", "task_names"]


def task_names() -> list[str]:
    for module in pkgutil.iter_modules(__path__):
        if module.name != "base":
            importlib.import_module(f"{__name__}.{module.name}")
    return sorted(TASKS)


def get_task(name: str, config: RunConfig) -> Task:
    """The task of that name, set up for a run. Raises UserError for an unknown one."""
    names = task_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(names)}"
        raise UserError(f"no task {name!r}: {hint}")
    return TASKS[name](config)
