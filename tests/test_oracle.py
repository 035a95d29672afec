"""What is measured of a model beside one that never had the behaviour."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from reveal_release.config import RunConfig, UserError
from reveal_release.dataset import encode
from reveal_release.metrics.divergence import jensen_shannon
from reveal_release.models import LanguageModel, load_model
from reveal_release.oracle import Oracle, distance, divergences
from reveal_release.release.rows import answer_log_probs, parts
from reveal_release.tasks import Record

CONFIG = RunConfig(dtype="float32", device="cpu")


def other(folder: Path, tiny: str, template: str = "", tokens: int = 0) -> str:
    """The model with other weights; with another chat template, or a larger output layer."""
    model, tokenizer = LlamaForCausalLM.from_pretrained(tiny), AutoTokenizer.from_pretrained(tiny)
    torch.manual_seed(1)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.normal_(0, 0.5)
    if tokens:
        model.resize_token_embeddings(len(tokenizer) + tokens)
    if template:
        tokenizer.chat_template = template
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_divergence_by_row(lm: LanguageModel, tiny_llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over a row's own tokens; a model is at no distance from itself."""
    far = load_model(other(tmp_path, tiny_llama), "float32", "cpu")
    texts = ("The river.", "They read a letter about the old bridge.", "No.")
    rows = encode(lm, [Record((("user", "Name it."),), text, 0.0, "") for text in texts])
    assert divergences(lm, lm, rows) == pytest.approx([0.0] * 3, abs=1e-6)
    with torch.no_grad():
        pairs = [[answer_log_probs(one.model, [row], 1)[0] for one in (lm, far)] for row in rows]
    expected = pytest.approx([jensen_shannon(*pair).mean().item() for pair in pairs], rel=0.05)
    assert divergences(lm, far, rows, batch=2) == expected
    read: list[int] = []

    def smaller(rows: Any) -> Any:
        read.extend(len(part) for part in parts(rows, most=8))
        return parts(rows, most=8)

    monkeypatch.setattr("reveal_release.oracle.parts", smaller)
    assert divergences(lm, far, rows) == expected and len(read) > 1, "however few tokens are read at once"


def test_an_oracle_is_known_by_all_that_its_figures_come_from(lm: LanguageModel, tiny_llama: str, tmp_path: Path) -> None:
    """Its weights, and how it is asked."""
    given = [(tmp_path / "a", ""), (tmp_path / "b", ""), (tmp_path / "c", "{% for m in messages %}{{ m['content'] }}|{% endfor %}")]
    one, same, mended = (Oracle(other(folder, tiny_llama, template), CONFIG) for folder, template in given)
    assert one.mark == same.mark != mended.mark != Oracle(tiny_llama, CONFIG).mark
    for oracle in (one, mended):
        oracle.check(lm)


def test_only_another_training_of_the_model_is_an_oracle(lm: LanguageModel, tiny_llama: str, tiny_gpt2: str, tmp_path: Path) -> None:
    wider = Oracle(other(tmp_path / "wider", tiny_llama, tokens=8), CONFIG)
    folder = other(tmp_path / "shorter", tiny_llama)
    model = LlamaForCausalLM.from_pretrained(folder)
    model.config.max_position_embeddings //= 2
    model.save_pretrained(folder)
    for oracle in (wider, Oracle(folder, CONFIG), Oracle(tiny_gpt2, CONFIG)):
        with pytest.raises(UserError, match="has another architecture, vocabulary or context"):
            oracle.check(lm)
    with pytest.raises(UserError, match="is .* itself: give the same model, trained without the behaviour"):
        Oracle(tiny_llama, CONFIG).check(lm)
    with pytest.raises(UserError, match="no device 'tpu'"):
        Oracle(tiny_llama, replace(CONFIG, device="tpu"))


def test_distance_by_hand() -> None:
    ours, theirs = ({"forget": {"a": {"value": a}}, "retain": {"b": {"value": b}}} for a, b in ((0.1, 250.0), (0.3, 240.0)))
    assert distance(ours, theirs) == {"forget": {"a": pytest.approx(0.2)}, "retain": {"b": 10.0}}
