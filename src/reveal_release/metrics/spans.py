"""Entity extraction scored the way UniversalNER does: a JSON list of names against the gold list of a question.

    counts = span_counts(gold=[["Ada Lovelace"], []], answers=['["ada lovelace"]', "[]"])     # a row a question
    type_f1(counts.reshape(1, 2, 3), ["person", "art"])["f1_person"]                           # (passages, types, 3)

Names match exactly after normalisation; a name counts once a question; counts are summed over all questions before
dividing (micro average). Source: Zhou et al., 2023, "UniversalNER", arXiv:2308.03279, and its evaluation script.

Not promised: credit for a partial match, or for the place where a name occurs.
"""

import json
import re
import string
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..config import UserError
from .statistics import Estimate

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_LEAD_IN = re.compile(r"^\s*(?:[^\[\n]*:\s*\n\s*)?(?:```\w*\s*\n)?")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def parse_entities(answer: str) -> list[str] | None:
    """The strings of the JSON list that the answer starts with; None if there is none. Never raises.

    Chat models put a line that ends in a colon before it, or a code fence. What follows the list is passed over, as in UniversalNER: a
    model may go on talking.
    """
    try:
        found, _ = json.JSONDecoder().raw_decode(_LEAD_IN.sub("", answer, count=1).strip())
    except (ValueError, RecursionError):  # no JSON, too large a number, a thousand brackets
        return None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        return None
    return found


def normalise_entity(name: str) -> str:
    """Lower case, without ASCII punctuation and articles, white space collapsed (UniversalNER's `normalize_answer`).

    A name of which nothing would be left ("The The") keeps its punctuation and articles.
    """
    lower = name.lower()
    bare = " ".join(_ARTICLES.sub(" ", lower.translate(_PUNCTUATION)).split())
    return bare or " ".join(lower.split())


def span_counts(gold: Sequence[Sequence[str]], answers: Sequence[str]) -> np.ndarray:
    """(n, 3): true positives, names given and gold names of each question.

    An answer that does not parse is wrong: all its gold names are missed, and it adds one wrong name, so that a broken answer to a
    question without names is not a right one. Raises UserError if the lengths differ.
    """
    if len(gold) != len(answers):
        raise UserError(f"{len(gold)} gold lists and {len(answers)} answers: give one answer for each question")
    counts = np.zeros((len(gold), 3))
    for row, names, answer in zip(counts, gold, answers, strict=True):
        right = {normalise_entity(name) for name in names}
        found = parse_entities(answer)
        named = {normalise_entity(name) for name in found} if found is not None else set()
        row[:] = len(right & named), len(named) if found is not None else 1, len(right)
    return counts


def mean_f1(counts: np.ndarray) -> float:
    """Mean over types of micro F1; counts: (passages, types, 3), as `span_counts` has them.

    Types without a gold name are passed over, as their F1 is 0 / 0 or says nothing of recall. NaN if no type has one: so that
    `Estimate.bootstrap` passes over such a resample.
    """
    named = [i for i in range(counts.shape[1]) if counts[:, i, 2].any()]
    return float(np.mean([_f1(counts[:, i]) for i in named])) if named else np.nan


def type_f1(counts: np.ndarray, types: Sequence[str], seed: int = 0, resamples: int = 1000) -> dict[str, Estimate]:
    """Micro F1 of each type as `f1_<type>`, with bootstrap intervals over passages.

    counts: (passages, types, 3), as `span_counts` has them. A type without a gold name is left out.
    Raises UserError if the types are not as many as the counts have.
    """
    if counts.ndim != 3 or counts.shape[1:] != (len(types), 3):
        raise UserError(f"counts of shape {counts.shape} for {len(types)} types: give (passages, types, 3)")
    found = {}
    for i, kind in enumerate(types):
        if naming := int((counts[:, i, 2] > 0).sum()):
            found[f"f1_{kind}"] = f1_estimate(counts[:, [i]], naming, seed, resamples)
    return found


def f1_estimate(counts: np.ndarray, naming: int, seed: int = 0, resamples: int = 1000) -> Estimate:
    """`mean_f1` with its bootstrap interval over passages; counts: (passages, types, 3), of which `naming` passages hold a gold name.

    An F1 of 0 may hide a recall R up to Wilson's bound without one wrong name: then it is 2 R / (1 + R), nearly twice that bound.
    """
    found = Estimate.bootstrap(counts, mean_f1, seed, resamples).in_unit(naming)
    return replace(found, high=2 * found.high / (1 + found.high)) if found.value == 0 else found


def _f1(counts: np.ndarray) -> float:
    right, named, gold = counts.sum(axis=0)
    return float(2 * right / (named + gold)) if named + gold else np.nan  # NaN: the bootstrap passes it over
