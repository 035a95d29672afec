"""What a step costs, on the tiny model: as defined, and all where the model is broken."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from reveal_release.config import ReleaseConfig, UserError
from reveal_release.metrics.fluency import perplexity, perplexity_ratio
from reveal_release.models import LanguageModel
from reveal_release.release import utility as utility_module
from reveal_release.release.pem import train_pem
from reveal_release.release.rows import Row, answer_log_probs
from reveal_release.release.runtime import applied
from reveal_release.release.utility import Utility, mean_nll

CONFIG = ReleaseConfig(rank=4, layers=1.0, batch=4, learning_rate=5e-3)


def test_mean_nll_is_over_tokens_not_rows(lm: LanguageModel, retain: list[Row]) -> None:
    total = count = 0.0
    with torch.no_grad():
        for row in retain:
            log_probs, targets = answer_log_probs(lm.model, [row], 1)
            total -= log_probs[range(len(targets)), targets].sum().item()
            count += len(targets)
    assert mean_nll(lm, retain) == pytest.approx(total / count, abs=0.03)
    assert mean_nll(lm, retain, batch=2) == pytest.approx(total / count, abs=0.03)


def test_utility_is_prose_or_half_of_the_records(
    lm: LanguageModel, retain: list[Row], short_prose: list[str]
) -> None:
    utility = Utility.of(lm, retain, short_prose)
    assert utility.loss() == pytest.approx(0.0, abs=1e-9)
    before = perplexity(lm.model, lm.tokenizer, short_prose)
    pem = train_pem(lm, retain, CONFIG, steps=20, seed=0)
    for patch in (pem, pem.negate()):  # better on the records, then worse
        with applied(lm.model, patch):
            prose = perplexity_ratio(before, perplexity(lm.model, lm.tokenizer, short_prose)).value
            records = math.exp(mean_nll(lm, retain) - utility.nll)
            assert utility.loss() == pytest.approx(max(prose - 1, (records - 1) / 2), abs=1e-6)
    assert records > 1.5


def test_a_broken_model_costs_all(lm: LanguageModel, retain: list[Row], short_prose: list[str]) -> None:
    utility = Utility.of(lm, retain, short_prose)
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[:] = torch.nan
    assert utility.loss() == math.inf


def test_prose_that_is_no_number_costs_all(
    lm: LanguageModel, retain: list[Row], short_prose: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the model overflows on a long text, and on no record."""
    utility = Utility.of(lm, retain, short_prose)
    broken = replace(utility.prose, nll=np.where(np.arange(len(utility.prose.nll)) == 1, np.nan, utility.prose.nll))
    monkeypatch.setattr(utility_module, "perplexity", lambda *_: broken)
    assert utility.loss() == math.inf


def test_utility_needs_records(lm: LanguageModel, short_prose: list[str]) -> None:
    with pytest.raises(UserError, match="too few retain records"):
        Utility.of(lm, [], short_prose)
