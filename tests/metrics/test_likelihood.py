"""Token log-probabilities against each row by itself, unpadded."""

import pytest
import torch

from reveal_release.metrics.likelihood import conversation_log_probs, token_log_probs
from reveal_release.models import LanguageModel, answered_ids


@pytest.mark.parametrize("name", ["lm", "gpt2"])
def test_rows_of_any_length_are_as_each_by_itself(name: str, request: pytest.FixtureRequest) -> None:
    model: LanguageModel = request.getfixturevalue(name)
    seen: list[tuple[int, int]] = []
    rows = [([0, 7, 9, 30, 12], 1), ([0, 8], 1), ([0, 11, 40, 41, 5, 6, 7], 4), ([0, 5], 2), ([0], 1)]
    found = token_log_probs(model.model, rows, 2, lambda done, total: seen.append((done, total)))
    for (ids, start), row in zip(rows, found, strict=True):
        with torch.no_grad():
            alone = torch.log_softmax(model.model(torch.tensor([ids])).logits[0], -1)
        assert row.tolist() == pytest.approx([alone[i - 1, ids[i]].item() for i in range(start, len(ids))], abs=1e-4)
    assert seen == [(2, 3), (3, 3)], "rows without a token to score cost nothing"


@pytest.mark.parametrize("name", ["lm", "gpt2"])
@pytest.mark.parametrize("words", [(600, 20), (20, 700)])
def test_what_exceeds_the_context_loses_its_beginning(name: str, words: tuple[int, int], request: pytest.FixtureRequest) -> None:
    """Of the prompt, and where that is not enough of the answer; a model with learnt positions has none beyond its context."""
    model: LanguageModel = request.getfixturevalue(name)
    assert model.context
    asked, answer = ("river " * count for count in words)
    prompt, ids = answered_ids(model, (("user", asked),), answer)
    whole = (prompt + ids + model.end)[-model.context :]
    scored = min(len(ids) + len(model.end), model.context - 1)
    assert len(prompt) + len(ids) > model.context
    expected = token_log_probs(model.model, [(whole, model.context - scored)], 1)[0]
    found = conversation_log_probs(model, [((("user", asked),), answer), ((("user", "river"),), "bridge")])
    assert found[0] == pytest.approx(expected, abs=1e-4) and len(expected) == scored and 0 < len(found[1]) < 20
