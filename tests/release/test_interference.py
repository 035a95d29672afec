"""Interference against models with the dense changes in their weights."""

import pytest

from reveal_release.config import ReleaseConfig
from reveal_release.dataset import encode
from reveal_release.models import LanguageModel, load_model
from reveal_release.release.interference import interference
from reveal_release.release.orthogonality import overlap
from reveal_release.release.patch import Patch
from reveal_release.release.release import train_modules
from reveal_release.release.rows import Row
from reveal_release.release.runtime import merge_
from reveal_release.release.utility import mean_nll
from reveal_release.tasks import Record

CONFIG = ReleaseConfig(rank=4, layers=1.0, batch=4, steps=15, retain_steps=15, learning_rate=5e-3, forget_scale=2.0)


def rows(lm: LanguageModel, *texts: str) -> list[Row]:
    return encode(lm, [Record((("user", f"Write number {i}."),), text, 0.0, "") for i, text in enumerate(texts)])


def test_interference_is_the_change_of_loss_where_a_module_is_put_on(lm: LanguageModel, tiny_llama: str) -> None:
    forget = rows(lm, "They read a letter.", "No music here, she said.", "The people of the town.")
    retain = rows(lm, "The market is new.", "They read a letter.", "No music here, she said.")  # some of it is forgotten too
    f, r = train_modules(lm, forget, forget, retain, CONFIG, 1)  # a retain module that teaches the behaviour again

    def merged(*parts: tuple[Patch, float]) -> LanguageModel:
        other = load_model(tiny_llama, "float32", "cpu")
        for patch, scale in parts:
            merge_(other.model, patch.scale(scale))
        return other

    for scale in (0.5, 1.0):
        found = interference(lm, f, r, forget, retain, CONFIG, scale)
        without, both = merged((f, -2.0 * scale)), merged((f, -2.0 * scale), (r, scale))
        assert found["retain_change"] == pytest.approx(mean_nll(without, retain) - mean_nll(lm, retain), abs=0.05)
        assert found["forget_change"] == pytest.approx(mean_nll(both, forget) - mean_nll(without, forget), abs=0.05)
        assert found["retain_change"] > 0.1 and found["forget_change"] < -0.1
        assert {name: found[name] for name in overlap(f, r)} == overlap(f, r)


def test_modules_that_do_nothing_do_not_interfere(lm: LanguageModel) -> None:
    texts = rows(lm, "It runs north.")
    assert set(interference(lm, Patch(), Patch(), texts, texts, CONFIG).values()) == {0.0}
