"""Other ways to unlearn, by name, one a file here that registers itself; nothing central is edited to add one."""

import difflib
import importlib
import pkgutil

from ..config import UserError
from .base import METHODS, Method, Setting, settings, train

__all__ = ["Method", "Setting", "get_method", "method_names", "settings", "train"]


def method_names() -> list[str]:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return sorted(METHODS)


def get_method(name: str) -> type[Method]:
    """The method of that name. Raises UserError for an unknown one."""
    names = method_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        raise UserError(f"no method {name!r}: " + (f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(names)}"))
    return METHODS[name]
