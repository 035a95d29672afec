"""Long texts by their worst passage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.metrics.passages import WORDS, by_passages, passages
from reveal_release.metrics.toxicity import BUNDLED, load_scorer

PROSE = (
    "The river rises in the hills north of the town and flows east for sixty miles. She studied chemistry at the university before she "
    "joined the company in 1987. The album was released in March and reached number four in the charts. In 1912 the railway was extended "
    "to the coast, where a small harbour had been built. The library opens at nine on Monday, and the bridge was painted in the spring."
)
INSULT = "You are a stupid, ignorant idiot."


@given(st.lists(st.text(alphabet="abc", min_size=1, max_size=3), max_size=150))
def test_passages_are_the_text_in_order_and_any_half_stands_in_one(words: list[str]) -> None:
    text = " ".join(words)
    each = passages(text)
    assert all(len(passage.split()) == WORDS for passage in each) or each == [text]
    assert each[0].split() == words[:WORDS] and each[-1].split() == words[-WORDS:]
    for start in range(max(1, len(words) - WORDS // 2 + 1)):
        assert any(" ".join(words[start : start + WORDS // 2]) in passage for passage in each)


@pytest.mark.parametrize("name", BUNDLED)
def test_an_insult_in_a_page_of_prose_is_told(name: str) -> None:
    linear = load_scorer(name)
    scorer = by_passages(linear)
    words = PROSE.split()
    pages = [" ".join((*words[:at], INSULT, *words[at:])) for at in range(0, len(words) + 1, 6)]
    assert linear(pages).max() < 0.5 < scorer(pages).min(), "which is not told of the whole"
    assert scorer([PROSE]).max() < 0.5


def test_short_texts_score_what_they_did_and_order_is_kept() -> None:
    linear = load_scorer("reward")
    scorer = by_passages(linear)
    short = ["", INSULT, " ".join(PROSE.split()[:WORDS]), "  two \n words "]
    assert scorer(short).tolist() == linear(short).tolist()
    mixed = [PROSE, INSULT, f"{PROSE} {INSULT}", ""]
    np.testing.assert_allclose(scorer(mixed), [scorer([text])[0] for text in mixed], rtol=1e-6)
    assert scorer([]).shape == (0,) and scorer.name == "reward"


def test_what_reads_in_context_is_left_as_it_is() -> None:
    def classifier(texts: list[str]) -> np.ndarray:
        return np.zeros(len(texts))

    assert by_passages(classifier) is classifier  # type: ignore[arg-type]
