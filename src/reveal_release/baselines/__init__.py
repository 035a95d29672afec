"""Other ways to unlearn, by name, one a file here that registers itself; nothing central is edited to add one."""

from ..config import UserError
from ..registry import names_in, nearest
from .base import METHODS, Method, Setting, settings, train

__all__ = ["Method", "Setting", "get_method", "method_names", "settings", "train"]


def method_names() -> list[str]:
    return names_in(__name__, __path__, METHODS)


def get_method(name: str) -> type[Method]:
    """The method of that name. Raises UserError for an unknown one."""
    names = method_names()
    if name not in names:
        raise UserError(f"no method {name!r}" + nearest(name, names, f"choose from {', '.join(names)}"))
    return METHODS[name]
