"""Public suites for models that can: HumanEval, MBPP and GSM8K, from the user's files or the hub.

    reveal-release evaluate --model Qwen/Qwen3-0.6B --suite humaneval --suite-file HumanEval.jsonl.gz
    suite = load_suite("humaneval", "HumanEval.jsonl.gz")
    SuiteEvaluation(suite).evaluate(load_model("Qwen/Qwen3-0.6B"))              # suites.evaluate

A file is JSON Lines in the suite's original format, plain or gzipped; without one the hub's copy is fetched.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import UserError, first_line
from ..sandbox import DEFAULT_LIMITS, Limits
from . import gsm8k, humaneval, mbpp
from .base import CodeItem, CodeSuite, MathsItem, MathsSuite, Row, read_rows

__all__ = ["SUITES", "CodeItem", "CodeSuite", "MathsItem", "MathsSuite", "load_suite", "make_suite"]


@dataclass(frozen=True)
class Source:
    """Where a suite is on the hub, how a row becomes an item, which rows belong to it, and what programs may use."""

    dataset: str
    config: str
    split: str
    item: Callable[[Row], CodeItem | MathsItem]
    keep: Callable[[Row], bool] = lambda row: True
    limits: Limits = DEFAULT_LIMITS


SUITES = {
    "humaneval": Source("openai/openai_humaneval", "openai_humaneval", "test", humaneval.item),
    "mbpp": Source("google-research-datasets/mbpp", "full", "test", mbpp.item, mbpp.in_test_split, mbpp.LIMITS),
    "mbpp-all": Source("google-research-datasets/mbpp", "full", "all", mbpp.item, limits=mbpp.LIMITS),
    "gsm8k": Source("openai/gsm8k", "main", "test", gsm8k.item),
}


def load_suite(name: str, path: str | Path | None = None) -> CodeSuite | MathsSuite:
    """The suite `humaneval`, `mbpp` (its 500 test problems), `mbpp-all` (all 974) or `gsm8k`.

    Args:
        path: the data set's file; None fetches it from the hub.

    Raises:
        UserError: no such suite, no such file, a row that is not of the suite's format, or the hub cannot be reached.
    """
    source = _source(name)
    return make_suite(name, read_rows(path) if path is not None else _hub_rows(source))


def make_suite(name: str, rows: Iterable[Row]) -> CodeSuite | MathsSuite:
    """A suite of rows. Raises UserError where one is not of its format, an id comes twice, or none is left."""
    source = _source(name)
    items: dict[str, CodeItem | MathsItem] = {}
    for row in rows:
        if not source.keep(row):
            continue
        item = source.item(row)
        if item.id in items:
            raise row.error(f"{item.id} comes a second time")
        items[item.id] = item
    if not items:
        hint = "it takes task_id 11 to 510 of MBPP: take mbpp-all for others" if name == "mbpp" else "give a file with rows"
        raise UserError(f"no problem of the suite {name!r} here: {hint}")
    kept = list(items.values())
    if code := tuple(item for item in kept if isinstance(item, CodeItem)):
        return CodeSuite(name, code, source.limits)
    return MathsSuite(name, tuple(item for item in kept if isinstance(item, MathsItem)))


def _source(name: str) -> Source:
    if name not in SUITES:
        raise UserError(f"no suite {name!r}: choose from {', '.join(SUITES)}")
    return SUITES[name]


def _hub_rows(source: Source) -> list[Row]:
    from datasets import load_dataset  # slow to import, and needless with a file

    try:
        data: Iterable[Any] = load_dataset(source.dataset, source.config, split=source.split)
    except load_errors() as error:
        raise UserError(f"cannot fetch {source.dataset} from the hub ({first_line(error)}): give its file with --suite-file") from None
    return [Row(values, source.dataset, number) for number, values in enumerate(data, 1)]


def load_errors() -> tuple[type[Exception], ...]:
    """What `datasets` raises where it cannot load: no hub, no such name or split, a script, files that are cut or of another form."""
    from datasets.exceptions import DatasetsError

    return OSError, ValueError, RuntimeError, StopIteration, DatasetsError
