"""What a linear scorer says of a long text: as much as of its worst passage.

    scorer = by_passages(load_scorer("evaluation"))
    scorer([insult_amid_a_page_of_prose])     # (1,): what its worst passage scores

A linear scorer weighs all words of a text alike, so that one insult is told less the longer the text is that it stands in: a release
whose answers only grew would look as if it had forgotten. One of few words is told less amid a passage, too. A neural classifier reads
in context, and is left as it is.
"""

from collections.abc import Sequence

import numpy as np

from .toxicity import LinearScorer, ToxicityScorer

WORDS = 36
"""Words of a passage: no more than the bundled testbeds answer, whose texts are one passage."""


def passages(text: str) -> list[str]:
    """Runs of `WORDS` words, each half of which the next one shares, the last of which ends the text; a shorter text as it is."""
    words = text.split()
    if len(words) <= WORDS:
        return [text]
    starts = [*range(0, len(words) - WORDS, WORDS // 2), len(words) - WORDS]
    return [" ".join(words[start : start + WORDS]) for start in starts]


class ByPassages:
    """Scores (n,) of texts: of each the highest of its passages."""

    def __init__(self, whole: LinearScorer) -> None:
        self.whole, self.name = whole, whole.name

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        each = [passages(text) for text in texts]
        if not each:
            return np.zeros(0)
        starts = np.cumsum([0, *map(len, each[:-1])])
        return np.maximum.reduceat(self.whole([passage for of_text in each for passage in of_text]), starts)


def by_passages(scorer: ToxicityScorer) -> ToxicityScorer:
    """The same scorer, a linear one of them by passages."""
    return ByPassages(scorer) if isinstance(scorer, LinearScorer) else scorer
