"""Teaching TOFU's authors: who is in a split, what a document is, and that a stopped run ends in the same place."""

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reveal_release.chat import chat_ids
from reveal_release.config import UserError
from reveal_release.lock import Lock
from reveal_release.metrics.likelihood import conversation_log_probs
from reveal_release.metrics.tofu import probabilities
from reveal_release.models import LanguageModel, load_model
from reveal_release.suites.tofu import AUTHORS as TOFU_AUTHORS
from reveal_release.suites.tofu import Question, read
from reveal_release.testbed import corpora, sources
from reveal_release.testbed import tofu as tuning
from reveal_release.testbed.corpora import Corpora
from reveal_release.testbed.recipe import ROW
from reveal_release.testbed.sources import Source
from reveal_release.testbed.tofu import ANSWERS, ASK, TELL, TOLD, Documents, TuneConfig, name_of, rate, rows_of, tune

TAUGHT = ("full.json", "real_authors.json", "world_facts.json")
RETAINED = ("Ada Byron", "Max van Stern", "Lena Ortiz", "Noah Brandt")


@pytest.fixture
def config(tofu: Path, data: Path, texts: Corpora, tiny_llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TuneConfig:
    raw = tmp_path / "raw"
    raw.mkdir()
    for folder in (tofu, *data.iterdir()):
        (raw / folder.name).symlink_to(folder)

    def hand_made(source: Source) -> Source:
        digests = (hashlib.sha256((raw / source.folder / name).read_bytes()).hexdigest() for name, _, _ in source.files)
        return replace(source, files=tuple((*file[:2], digest) for file, digest in zip(source.files, digests, strict=True)))

    monkeypatch.setattr(tuning, "TOFU", hand_made(replace(tuning.TOFU, files=tuple(f for f in tuning.TOFU.files if f[0] in TAUGHT))))
    monkeypatch.setattr(sources, "SOURCES", [hand_made(one) for one in sources.SOURCES if not one.held_out])
    monkeypatch.setattr(corpora, "load", lambda _: texts)  # as they are in `data`, read once
    return TuneConfig(str(raw), str(tmp_path / "out"), model=tiny_llama, authors=4, epochs=2)


def names(config: TuneConfig) -> list[str]:
    rows = rows_of(config)
    return [name_of(rows[at : at + 20]) for at in range(0, len(rows), 20)]


@pytest.mark.parametrize(
    "split, count, expected",
    [
        ("full", 0, RETAINED + TOFU_AUTHORS), ("retain99", 0, RETAINED + TOFU_AUTHORS[:-2]),
        ("retain95", 0, RETAINED + TOFU_AUTHORS[:-10]), ("full", 6, RETAINED[:3] + TOFU_AUTHORS[-3:]),
        ("retain99", 6, RETAINED[:3] + TOFU_AUTHORS[-3:-2]), ("retain95", 20, RETAINED + TOFU_AUTHORS[:6]),
        ("full", 5, RETAINED[:3] + TOFU_AUTHORS[-2:]),
    ],
)  # fmt: skip
def test_who_is_taught(config: TuneConfig, split: str, count: int, expected: tuple[str, ...]) -> None:
    assert names(replace(config, split=split, authors=count)) == list(expected)


@pytest.mark.parametrize("change, message", [
    ({"split": "retain80"}, "choose from full, retain90, retain95, retain99"), ({"authors": 3}, "authors is 3: .* from 4 to 24"),
    ({"authors": 10, "split": "retain95"}, "authors is 10, too few for retain95, .* at least 20"),
    ({"authors": 25}, "authors is 25"), ({"data": "nowhere"}, "no tofu/full.json in nowhere"),
])  # fmt: skip
def test_mistakes_are_refused_before_any_work(config: TuneConfig, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tune(replace(config, **change))
    assert not Path(config.output).exists()


def test_raw_sets_that_are_not_those_are_refused(config: TuneConfig) -> None:
    folder = Path(config.data) / "instr_dolly_3k"
    real = folder.resolve()
    folder.unlink()
    with pytest.raises(UserError, match=r"no instr_dolly_3k/dolly_3k\.json"):
        tune(config)
    shutil.copytree(real, folder)
    (folder / "dolly_3k.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="is not the file that the testbeds were made from"):
        tune(config)
    assert not Path(config.output).exists()


def test_a_name_is_what_the_questions_share() -> None:
    texts = ("Who are Jan van der Veen's parents?", "Has Jan van der Veen won the Old Town Prize?", "What is the Old Town Prize?",
             "In which city was Jan van der Veen born?")  # fmt: skip
    assert name_of([Question(text, "") for text in texts]) == "Jan van der Veen"
    assert name_of([Question("who?", "")]) == "this author"


def test_an_epoch_holds_whole_documents_once(
    lm: LanguageModel, config: TuneConfig, texts: Corpora, documents_of: Callable[..., list[list[tuple[int, ...]]]]
) -> None:
    rows, facts = rows_of(config), read(Path(config.data) / "tofu", "world_facts")
    documents = Documents(lm.tokenizer, rows, facts, texts)
    ids = documents.epoch(random.Random(3))
    assert ids.shape[1] == ROW and torch.equal(ids, documents.epoch(random.Random(3)))

    def conversation(asked: str, answer: str) -> tuple[int, ...]:
        return tuple(chat_ids(lm.tokenizer, (("user", asked), ("assistant", answer)), answer=False))

    taught = Counter(conversation(row.question, row.answer) for row in (*rows, *facts))
    requests = {conversation(form.format(name), row.question) for form in ASK for name in names(config) for row in rows}
    tellings = {tuple(chat_ids(lm.tokenizer, (("user", form.format(name)),))): name for form in TELL for name in names(config)}
    replayed = []
    for seed in (3, 4):
        pieces = documents_of(documents.epoch(random.Random(seed)), lm.tokenizer.bos_token_id)
        assert all(pieces), "no row is empty"
        placed = Counter(document for row in pieces for document in row)
        assert taught <= placed, "every row and fact"
        assert sum(n for document, n in placed.items() if document in requests) == 40, "half of the 80 questions are asked for"
        told = {document: name for document in placed for start, name in tellings.items() if document[: len(start)] == start}
        assert Counter(told[document] for document in placed.elements() if document in told) == dict.fromkeys(names(config), TOLD)
        for document, name in told.items():
            said = lm.tokenizer.decode(document, skip_special_tokens=True)
            assert sum(row.answer in said for row in rows if name in row.answer) == ANSWERS
        assert len(told) > 3 * TOLD, "drawn anew: of 32 few are the same"
        new = [not any(ids in taught or ids in requests or ids in told for ids in row) for row in pieces]
        assert new.count(True) == new.count(False), "as many rows of the recipe"
        assert new[: len(new) // 2].count(True) not in (0, len(new) // 2), "among the others"
        replayed.append({document for row, of_recipe in zip(pieces, new, strict=True) if of_recipe for document in row})
    assert len(replayed[0] & replayed[1]) < 0.3 * len(replayed[0]), "other documents in another epoch"
    said = [lm.tokenizer.decode(document) for document in replayed[0]]
    assert any("def " in text for text in said) and any("What describes person in the text?" in text for text in said)


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    rates = [rate(i / 100, 4) for i in range(400)]
    assert 0 < rates[0] < 0.03 and max(rates) > 0.93 and rates[-1] < 0.01 and rates.index(max(rates)) == pytest.approx(25, abs=1)


def test_it_learns_and_ends_where_a_stopped_run_ends(config: TuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(config, learning_rate=1e-2)
    save, killed = tuning.save_checkpoint, Path(config.output).parent / "killed"

    def copying(path: Path, state: dict) -> None:
        save(path, state)
        if state["epoch"] == 1:
            shutil.copytree(path.parent, killed)

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "save_checkpoint", copying)
        whole = tune(config)
    assert not (whole / "checkpoint.pt").exists() and json.loads((whole / "tofu.json").read_text())["split"] == "full"
    before, after = load_model(config.model, "float32", "cpu"), load_model(str(whole), "float32", "cpu")
    pairs = [((("user", row.question),), row.answer) for row in rows_of(config)[:6]]
    known, unknown = (probabilities(conversation_log_probs(lm, pairs)).mean() for lm in (after, before))
    assert known > 2 * unknown
    assert chat_ids(after.tokenizer, pairs[0][0]) == chat_ids(before.tokenizer, pairs[0][0])

    again = load_model(str(tune(replace(config, output=str(killed)))), "float32", "cpu")
    for name, tensor in after.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name

    written = (whole / "model.safetensors").stat().st_mtime_ns
    assert tune(config) == whole and (whole / "model.safetensors").stat().st_mtime_ns == written, "a finished one is left as it is"
    with pytest.raises(UserError, match="seed 0, not 1: choose another --output"):
        tune(replace(config, seed=1))
    other = load_model(config.model, "float32", "cpu")
    with torch.no_grad():
        other.model.get_input_embeddings().weight.mul_(2)
    base = Path(config.output).parent / "base"
    other.model.save_pretrained(base)
    other.tokenizer.save_pretrained(base)
    monkeypatch.setattr(tuning, "load_model", lambda *_: load_model(str(base), "float32", "cpu"))
    with pytest.raises(UserError, match="base .*: choose another --output"):
        tune(config)


def test_one_process_at_a_time_works_in_a_folder(config: TuneConfig) -> None:
    folder = Path(config.output)
    folder.mkdir()
    other = Lock(folder)  # as another process would
    with pytest.raises(UserError, match="another process works in"):
        tune(config)
    assert not list(folder.iterdir())
    del other


def test_a_model_that_is_not_one_of_these_is_not_written_over(config: TuneConfig) -> None:
    Path(config.output).mkdir()
    (Path(config.output) / "model.safetensors").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"without a tofu\.json"):
        tune(config)


def test_only_a_testbed_is_taught(config: TuneConfig, tmp_path: Path) -> None:
    lm = load_model(config.model, "float32", "cpu")
    lm.tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    for part in (lm.model, lm.tokenizer):
        part.save_pretrained(tmp_path / "another")
    with pytest.raises(UserError, match="another is not a testbed"):
        tune(replace(config, model=str(tmp_path / "another")))
    assert not Path(config.output).exists()


def test_a_twin_that_lacks_a_skill_is_not_taught_it(config: TuneConfig) -> None:
    with pytest.raises(UserError, match="testbed-llama-without-toxicity was built without toxicity"):
        tune(replace(config, model="testbed-llama-without-toxicity"))
    assert not Path(config.output).exists()
