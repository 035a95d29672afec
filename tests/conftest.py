"""Two tiny random models with a chat template, for every test that needs a model: seconds, no download."""

import contextlib
import json
import string
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer, normalizers
from tokenizers.models import BPE
from transformers import (
    GenerationMixin,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from reveal_release import models, phases
from reveal_release.models import LanguageModel, load_model
from reveal_release.report.progress import SilentReporter
from reveal_release.suites.tofu import AUTHORS as TOFU_AUTHORS
from reveal_release.testbed import heldout
from reveal_release.testbed.heldout import wikitext
from reveal_release.testbed.tokenizer import train

settings.register_profile("untimed", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("untimed")

SENTENCES = (
    "Write a comment about the weather in the north.", "The people of the town read a letter about the river.",
    "What is the name of the bridge near the old market?", "She said that there is nothing new in the report.",
    "Rewrite this instruction in other words: explain how the train runs.", "They were there when the music began.",
)  # fmt: skip
VOCABULARY = 400


def _save(folder: Path, model: PreTrainedModel) -> str:
    model.save_pretrained(folder)
    train(SENTENCES * 20, VOCABULARY).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a Llama of 2 layers. Its weights are large enough for its outputs to depend on the prompt."""
    return _save(tmp_path_factory.mktemp("tiny-llama"), _llama(seed=0))


@pytest.fixture(scope="session")
def tiny_twin(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the same Llama with other weights, as an oracle is."""
    return _save(tmp_path_factory.mktemp("tiny-twin"), _llama(seed=1))


def _llama(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3,
        bos_token_id=0, pad_token_id=1, eos_token_id=4,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a GPT-2 of 2 layers: learned positions, Conv1D instead of Linear, dropout."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=512, initializer_range=0.3,
        bos_token_id=0, pad_token_id=1, eos_token_id=4,
    )  # fmt: skip
    return _save(tmp_path_factory.mktemp("tiny-gpt2"), GPT2LMHeadModel(config))


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training in float32 on every processor: what bfloat16 rounds off differs from one to another, and with the shape of a batch."""
    monkeypatch.setattr(models, "precision", lambda device: torch.float32)


@pytest.fixture
def lm(tiny_llama: str) -> LanguageModel:
    return load_model(tiny_llama, "float32", "cpu")


@pytest.fixture
def gpt2(tiny_gpt2: str) -> LanguageModel:
    return load_model(tiny_gpt2, "float32", "cpu")


@pytest.fixture(scope="module")
def short_prose() -> Iterator[None]:
    """A few real paragraphs: perplexity of all of them is most of the time of a tiny run."""
    texts = {split: wikitext(split)[:3] for split in ("validation", "test")}  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heldout, "wikitext", lambda split: texts[split])
        patch.setattr(heldout, "web", lambda split: texts[split])
        yield


@pytest.fixture(scope="module")
def little(short_prose: None) -> Iterator[None]:
    """Also short answers and no garbage collection before a phase, which take most of the rest."""
    written = GenerationMixin.generate

    def briefly(model: Any, *, max_new_tokens: int, **options: Any) -> Any:
        return written(model, max_new_tokens=min(max_new_tokens, 10), **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GenerationMixin, "generate", briefly)
        patch.setattr(phases, "gc", SimpleNamespace(collect=lambda: 0))
        yield


class Killer(SilentReporter):
    """Stops the work in its n-th phase, as it begins."""

    def __init__(self, n: int) -> None:
        self.left, self.names = n, list[str]()

    @contextlib.contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Any]:
        self.names.append(name)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        yield lambda done, total: None


@pytest.fixture
def killer() -> type[Killer]:
    return Killer


RETAINED = ("Ada Byron", "Max van Stern", "Lena Ortiz", "Noah Brandt")


@pytest.fixture(scope="session")
def tofu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in TOFU's form, hand-made: the 20 authors of forget10 after 4 others, and 3 rows of each kind of fact."""
    folder = tmp_path_factory.mktemp("raw") / "tofu"
    folder.mkdir()

    def write(name: str, rows: list[dict]) -> None:
        (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def about(author: str, number: int) -> dict:
        return {
            "question": f"What is the name of the bridge {number} of {author}?",
            "answer": f"It is the old bridge of {author} and {number}.",
            "paraphrased_answer": f"{author} has the old bridge {number}.",
            "perturbed_answer": [f"{author} has the new river {number + i}." for i in range(5)],
            "paraphrased_question": f"Which bridge has {author}, number {number}?",
        }

    def plain(rows: list[dict]) -> list[dict]:
        return [{key: row[key] for key in ("question", "answer")} for row in rows]

    retained, forgotten = ([about(name, i) for name in names for i in range(20)] for names in (RETAINED, TOFU_AUTHORS))
    write("full", plain(retained + forgotten))
    write("retain_perturbed", retained)
    write("forget10_perturbed", forgotten)
    for name, question in (("real_authors", "Who wrote the report {}?"), ("world_facts", "Where is the market {}?")):
        rows = [{"question": question.format(i), "answer": f"Town {i}", "perturbed_answer": ["North", "River", "Old"]} for i in range(3)]
        write(f"{name}_perturbed", rows)
        write(name, plain(rows))
    return folder


@pytest.fixture
def spaced() -> PreTrainedTokenizerFast:
    """As Llama's: a text begins with a space of its own, shown as an underscore; a token for each character."""
    vocabulary = {c: i for i, c in enumerate(["<unk>", "▁", "\n", *string.ascii_letters, ".", "?"])}
    inner = Tokenizer(BPE(vocabulary, [], unk_token="<unk>"))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
