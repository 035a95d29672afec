"""Things by name: a class registers itself in its file, every file of a package is found, and a wrong name is answered.

    METHODS = {}
    register(cls, METHODS, "methods")                          # in `__init_subclass__` of the base class
    names_in(__name__, __path__, METHODS)                      # in the package's `__init__`
    check_name("method", name, METHODS)                        # no method 'np': did you mean 'npo'?
"""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

from .config import UserError


def register(cls: Any, known: dict[str, Any], what: str) -> None:
    """Makes a class known by its `name`; one that sets none itself is abstract, and left out.

    Raises:
        UserError: a class of another file has that name.
    """
    if "name" not in cls.__dict__:
        return
    if cls.name in known and known[cls.name].__module__ != cls.__module__:
        raise UserError(f"two {what} are named {cls.name!r}: rename one")
    known[cls.name] = cls


def names_in(package: str, path: Iterable[str], known: dict[str, Any]) -> list[str]:
    """The names in `known`, sorted, once every file of the package is imported."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
    return sorted(known)


def check_name(what: str, name: str, names: Iterable[str], more: str = "") -> None:
    """Raises UserError where the name is none of these. `what` it is the name of; `more` follows the list of those there are."""
    known = list(names)
    if name not in known:
        raise UserError(f"no {what} {name!r}" + nearest(name, known, f"choose from {', '.join(known)}{more}"))


def nearest(name: str, names: Iterable[str], otherwise: str) -> str:
    """What follows "no such name": the nearest one, or `otherwise`."""
    close = difflib.get_close_matches(name, list(names), 1)
    return f": did you mean {close[0]!r}?" if close else f": {otherwise}"
