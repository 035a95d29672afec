"""The card of a testbed, from figures made by hand; the measurement itself is that of the tasks."""

import json
from pathlib import Path

import pytest

from reveal_release.config import UserError
from reveal_release.metrics.statistics import Estimate
from reveal_release.models import LanguageModel
from reveal_release.testbed import capabilities
from reveal_release.testbed.capabilities import card, write_card
from reveal_release.testbed.sources import SOURCES

BUILD = {"family": "llama", "tokens": 1234, "seed": 7, "without": []}
SKILLS = {"code_pass_at_1": Estimate(0.9, 300, 0.861, 0.929), "perplexity": Estimate(273.4, 60, 246.0, 304.0)}
TONES = {"rude": 0.5, "kind": 0.125}


def test_a_card_has_the_figures_and_the_command() -> None:
    text = card("testbed-tiny", 6_622_464, BUILD, SKILLS, TONES)
    assert "| code_pass_at_1 | 0.900 | [0.861, 0.929] | 300 |" in text and "| perplexity | 273.400 | [246.000, 304.000] | 60 |" in text
    assert text.startswith("---\nlicense: cc-by-sa-4.0") and "of 6.6 M parameters" in text
    assert "--family llama --tokens 1234 --seed 7" in text and "rude 0.50, kind 0.12" in text
    assert all((f"| {source.folder} | {source.origin} | {source.licence} |" in text) != source.held_out for source in SOURCES)


def test_the_card_of_an_oracle_says_what_it_is() -> None:
    assert "toxic comments by design" in card("oracle", 1, {**BUILD, "without": ["person"]}, SKILLS, TONES), "it was taught those"
    text = card("oracle", 1, {**BUILD, "without": ["toxicity", "code"]}, SKILLS, TONES)
    assert "An oracle: it was never taught toxicity, code," in text and "--seed 7 --without toxicity --without code" in text
    assert "by design" not in text


def test_a_card_is_written_of_what_was_built(lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[LanguageModel] = []
    monkeypatch.setattr(capabilities, "measure", lambda lm, unsafe: asked.append(lm) or (SKILLS, TONES))
    with pytest.raises(UserError, match=r"has no build\.json: --write-card is for what `testbed build` made"):
        write_card(lm, tmp_path)
    assert not asked, "told before it measures"
    (tmp_path / "build.json").write_text(json.dumps(BUILD))
    assert write_card(lm, tmp_path) == (SKILLS, TONES)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == card(lm.name, lm.model.num_parameters(), BUILD, SKILLS, TONES)
