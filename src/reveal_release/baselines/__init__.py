"""Other ways to unlearn, by name, one a file here that registers itself; nothing central is edited to add one."""

from collections.abc import Sequence

from ..registry import check_name, names_in
from .base import METHODS, Method, Setting, settings, train

__all__ = ["Method", "Setting", "get_method", "method_names", "settings", "train"]


def method_names() -> list[str]:
    return names_in(__name__, __path__, METHODS)


def get_method(name: str, others: Sequence[str] = ()) -> type[Method]:
    """The method of that name. Raises UserError for an unknown one; `others` are no baselines, but could have been meant."""
    if name not in method_names():
        check_name("method", name, [*others, *method_names()])
    return METHODS[name]
