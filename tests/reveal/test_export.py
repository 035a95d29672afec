"""Records as other tools take them: nothing of a conversation is lost or made up, and `datasets` loads what is written."""

import json
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.config import RunConfig, UserError
from reveal_release.reveal.export import FORMATS, Row, convert, wanted
from reveal_release.revealer import export
from reveal_release.runfolder import RunFolder
from reveal_release.tasks import Record
from reveal_release.testbed.entities import asked
from reveal_release.workshop import Data

ODD = 'The "Cam",\tI think.\r\n\u2028¿No? \\n 雪 🙂'
ONE = Record((("user", "Name the river.\nThen stop."),), ODD, 0.9, "Name the river.")
NER = Record(tuple(asked("Ada met Bo in York.", "person")), '["Ada", "Bo"]', 0.75, "Write a passage.", iteration=1)
SYSTEM = Record((("system", "Be brief."), ("user", "Who is it?")), "Nobody.", 0.1, "Who is it?", ended=False)
PLAIN = Record((), "It rained on the hills.", 0.0, "")
DATE = Record((("user", "Which day?"),), "2020-01-01", 0.6, "Which day?")
ALL = (ONE, NER, SYSTEM, PLAIN, DATE)

texts = st.text()
turns = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), texts), max_size=5).map(tuple)
records = st.lists(st.builds(Record, turns, texts, st.floats(0, 1), texts, st.integers(0, 9), st.booleans()))


def conversation_of(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in (*row["prompt"], *row["completion"]))


@given(records)
def test_trl_keeps_every_turn(drawn: list[Record]) -> None:
    rows, left_out = convert(drawn, "trl")
    answers = [record for record in drawn if record.prompt]
    assert left_out == len(drawn) - len(answers)
    for row, record in zip(rows, answers, strict=True):
        assert row.keys() == {"prompt", "completion"} and len(row["completion"]) == 1
        again = json.loads(json.dumps(row))
        assert conversation_of(again) == (*record.prompt, ("assistant", record.completion))


@given(records)
def test_openunlearning_has_one_user_turn_and_its_answer(drawn: list[Record]) -> None:
    rows, left_out = convert(drawn, "openunlearning")
    single = [record for record in drawn if len(record.prompt) == 1 and record.prompt[0][0] == "user"]
    assert left_out == len(drawn) - len(single)
    assert rows == [{"question": record.prompt[0][1], "answer": record.completion} for record in single]


def test_a_record_in_both_formats() -> None:
    record = Record((("user", "Sing."),), "La.", 1.0, "Sing.")
    assert convert([record], "openunlearning") == ([{"question": "Sing.", "answer": "La."}], 0)
    row = {"prompt": [{"role": "user", "content": "Sing."}], "completion": [{"role": "assistant", "content": "La."}]}
    assert convert([record], "trl") == ([row], 0)


def test_names_with_commas_and_repeated() -> None:
    assert wanted([]) == wanted(["jsonl"]) == []
    assert wanted("trl, jsonl") == wanted(["trl"]) == ["trl"], "as YAML may give it"
    assert wanted(["trl, jsonl", "openunlearning,trl"]) == ["trl", "openunlearning"]
    for bad in ("TRL", "", "trl,", "csv"):
        with pytest.raises(UserError, match="choose from openunlearning, trl, jsonl"):
            wanted([bad])


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(RunConfig(output=str(tmp_path / "out")), kind="reveal")


def loaded(path: str, cache: Path) -> datasets.Dataset:
    """As OpenUnlearning's load_hf_dataset and TRL's examples call it."""
    return datasets.load_dataset("json", data_files=path, split="train", cache_dir=str(cache))


def test_datasets_loads_what_is_written(folder: RunFolder, tmp_path: Path) -> None:
    """Line ends, quotes, separators and emoji included; a date among the answers stays text."""
    data = Data(list(ALL), [], list(ALL))
    written = {(one["format"], one["set"]): one for name in FORMATS for one in export(folder, data, name)}
    for name, count in (("openunlearning", 2), ("trl", 4)):
        rows = convert(ALL, name)[0]
        for part in ("forget", "retain"):
            one = written[name, part]
            assert one["path"] == str(folder.path / "export" / name / f"{part}.jsonl")
            assert (one["records"], one["left_out"]) == (count, len(ALL) - count)
            found = loaded(one["path"], tmp_path / "cache")
            assert found.column_names == list(rows[0])
            assert list(found) == rows
    assert not list(folder.path.rglob("*.part"))


def test_what_a_format_cannot_hold_is_counted_and_no_empty_file_is_left(folder: RunFolder) -> None:
    forget, retain = export(folder, Data([NER, NER], [], [ONE]), "openunlearning")
    assert (forget["records"], forget["left_out"], forget["path"]) == (0, 2, None)
    assert (retain["records"], retain["left_out"]) == (1, 0)
    assert [path.name for path in (folder.path / "export/openunlearning").iterdir()] == ["retain.jsonl"]
