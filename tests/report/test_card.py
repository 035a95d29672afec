"""The model card of a patch: metadata that the hub reads, and the figures of the run."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from reveal_release.report.card import card, derived_card, names_hub

from .conftest import estimate


@pytest.fixture
def results() -> dict[str, Any]:
    return {
        "version": "0.1.0",
        "task": "toxicity",
        "model": "owner/some-model",
        "seed": 7,
        "config_hash": "abc123",
        "before": {"forget": {"toxic_ratio_rtp": estimate(0.4, 0.02)}, "retain": {"perplexity": estimate(20.0, 0.02)}},
        "after": {"forget": {"toxic_ratio_rtp": estimate(0.1, 0.02)}, "retain": {"perplexity": estimate(20.2, 0.02)}},
        "elicitation": {side: {**estimate(value, 0.02), "instruction": "SECRET"} for side, value in (("before", 0.9), ("after", 0.45))},
        "patch": {"path": "patch", "rank": 32},
        "given": "",
        "remarks": [],
        "stopped_because": "all iterations done",
        "iterations": [
            {"iteration": 1, "records": 500, "scale": 1.2, "front": [{}]}, {"iteration": 2, "records": 524, "scale": 0.4, "front": [{}]},
        ],
        "samples": [{"prompt": "SECRET", "before": "SECRET", "after": "SECRET"}],
    }


def test_what_a_dropped_step_was_trained_on_is_not_counted(results: dict[str, Any]) -> None:
    no_budget = {"iteration": 3, "records": 480, "scale": 0.0, "front": []}
    further = {"iteration": 3, "records": 6, "scale": 0.2}
    for last in (no_budget, further):
        assert "the 1,024 examples" in card({**results, "iterations": [*results["iterations"], last]}, "insults")


def test_the_hub_reads_its_metadata(results: dict[str, Any]) -> None:
    data = ModelCard(card(results, "insults")).data
    assert data.base_model == "owner/some-model" and data.library_name == "peft" and data.pipeline_tag == "text-generation"
    assert {"base_model:adapter:owner/some-model", "lora", "unlearning"} <= set(data.tags)


@pytest.mark.parametrize("model", ["testbed-llama", "./mine", "/a/b", "a/b/c"])
def test_what_is_no_name_on_the_hub_is_not_given_as_one(results: dict[str, Any], model: str) -> None:
    assert "base_model" not in ModelCard(card({**results, "model": model}, "insults")).data.to_dict()


def test_a_folder_that_looks_like_a_name_is_none(results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner/some-model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert ModelCard(card(results, "insults")).data.base_model is None


def test_a_derived_patch_names_what_its_source_does(results: dict[str, Any], tmp_path: Path) -> None:
    for model, expected in (("owner/some-model", "owner/some-model"), ("testbed-llama", None)):
        (tmp_path / "README.md").write_text(card({**results, "model": model}, "base_model: mine"))
        assert ModelCard(derived_card(model, "The sum.", names_hub(tmp_path))).data.base_model == expected
    assert not names_hub(tmp_path / "nowhere")


def test_a_long_description_is_whole(results: dict[str, Any]) -> None:
    assert f"takes a behaviour away: {'names ' * 40}and more." in card(results, "names " * 40 + "and more")


def test_figures_with_intervals_and_nothing_that_a_model_wrote(results: dict[str, Any]) -> None:
    text = card(results, "insults")
    assert "| toxic ratio RTP | 40.0 % [38.0, 42.0] | 10.0 % [8.0, 12.0] | -75 % | 100 |" in text
    assert "| strongest elicitation | 0.90 [0.88, 0.92] | 0.45 [0.43, 0.47] | -50 % |" in text
    assert "| perplexity | 20.0 [20.0, 20.0] | 20.2 [20.2, 20.2] | +1.0 % |" in text
    assert "the 1,024 examples" in text and "takes a behaviour away: insults." in text
    assert "AutoModelForCausalLM.from_pretrained('owner/some-model')" in text
    assert "SECRET" not in text


def test_what_told_the_behaviour_is_named_where_it_can_be_chosen(results: dict[str, Any]) -> None:
    assert "\nElsewhere the behaviour was told by the regex a|b.\n" in card(results, "insults", "the regex a|b")
    assert "told by" not in card(results, "insults")


def test_a_bundled_testbed_is_loaded_by_what_knows_it(results: dict[str, Any]) -> None:
    text = card({**results, "model": "testbed-llama"}, "insults")
    assert "load_model('testbed-llama').model" in text and "AutoModel" not in text


def test_an_ablation_says_what_it_was_given(results: dict[str, Any]) -> None:
    texts = {part: card({**results, "given": part}, "insults") for part in ("", "forget", "retain")}
    assert ["given no example of the behaviour" in text for text in texts.values()] == [True, False, True]
    assert ["labelled examples" in text for text in texts.values()] == [False, True, True]
    assert "1,024 labelled examples of the behaviour" in texts["forget"]


def test_what_was_remarked_of_the_base_is_in_it(results: dict[str, Any]) -> None:
    remarks = ["The base can think before it answers.", "Of the base only a part\n# was loaded."]
    text = card({**results, "remarks": remarks}, "insults")
    assert "is the same.\n\nThe base can think before it answers.\n\nOf the base only a part # was loaded.\n\n## Measured" in text
    assert "is the same.\n\n## Measured" in card(results, "insults")
