"""Keeps what is worth training on: scored over the threshold, not degenerate, not a near-duplicate, no instruction dominating."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from ..metrics.diversity import degenerate
from ..metrics.words import tokens
from ..tasks import Record

SHINGLE = 3
SIMILAR = 0.7


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Word trigrams of the lower-cased text, of characters where words are not parted; a shorter text is one shingle."""
    words = tokens(text.lower())
    return frozenset(tuple(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1)))


class NearDuplicates:
    """Keeps texts whose Jaccard similarity of word trigrams with every kept one is at most `threshold`; exact, by inverted index."""

    def __init__(self, threshold: float = SIMILAR) -> None:
        self.threshold = threshold
        self._sizes: list[int] = []
        self._index: dict[tuple[str, ...], list[int]] = {}

    @classmethod
    def of(cls, texts: Iterable[str]) -> "NearDuplicates":
        kept = cls()
        for text in texts:
            kept.add(text)
        return kept

    def __contains__(self, text: str) -> bool:
        """Whether the text is a near-duplicate of a kept one."""
        return self._near(shingles(text))

    def _near(self, own: frozenset[tuple[str, ...]]) -> bool:
        shared = Counter(i for shingle in own for i in self._index.get(shingle, ()))
        return any(n / (len(own) + self._sizes[i] - n) > self.threshold for i, n in shared.items())

    def add(self, text: str) -> bool:
        """Keeps the text and returns True, unless it is a near-duplicate of a kept one."""
        own = shingles(text)
        if self._near(own):
            return False
        for shingle in own:
            self._index.setdefault(shingle, []).append(len(self._sizes))
        self._sizes.append(len(own))
        return True


def unbroken(records: Sequence[Record], text: Callable[[Record], str]) -> list[Record]:
    """The records whose completion is not empty and whose `text` is not degenerate."""
    broken = degenerate([text(record) for record in records])
    return [record for record, bad in zip(records, broken, strict=True) if record.completion.strip() and not bad]


def curate(
    records: Sequence[Record],
    keep: Callable[[Record], bool],
    kept: list[Record],
    seen: NearDuplicates,
    text: Callable[[Record], str] = lambda record: record.completion,
    cap: float = math.inf,
) -> list[Record]:
    """Appends to `kept` the records that pass, in order.

    Args:
        keep: whether a record will do. seen: texts kept so far. text: what of a record must be new and not degenerate; by default its
            completion. cap: most records of one instruction.
    """
    count = Counter(r.instruction for r in kept)
    for record in unbroken(records, text):
        if keep(record) and count[record.instruction] < cap and seen.add(text(record)):
            kept.append(record)
            count[record.instruction] += 1
    return kept
