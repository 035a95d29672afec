"""Passages written in every scheme and layout and read again; traps and malformed data are refused by line."""

import json

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reveal_release.config import UserError
from reveal_release.suites.conll import FORMS, WORDS, from_dataset, load_conll, load_dataset_passages, tagged
from reveal_release.testbed.entities import Passage, read_conll
from reveal_release.testbed.heldout_files import WNUT_TYPES

SCHEMES = ("BIO", "IOB1", "BIOES", "BILOU", "IO", "bare")
# Marks that a reader may trip over: line ends and spaces of Unicode, comment signs, quotes, numbers.
TOKENS = st.text(st.sampled_from("abXé7#-_.'\"\u00a0\u0085\u2028"), min_size=1, max_size=4)
ANCHOR = Passage(("Anchor", "away"), ())  # a file of comment signs alone has no rows, and one of bare types needs an O


@st.composite
def written(draw, scheme):
    """Passages that the scheme can express: in IO, neighbours of one type would be one entity."""
    passages = [ANCHOR]
    for _ in range(draw(st.integers(0, 3))):
        words = draw(st.lists(TOKENS, min_size=1, max_size=9))
        cuts = sorted(draw(st.sets(st.integers(0, len(words)), max_size=6)))
        edges = cuts if draw(st.booleans()) else [at for cut in cuts for at in (cut, cut)][1:-1]  # apart, or touching
        spans = []
        for first, last in zip(edges[::2], edges[1::2], strict=False):
            kind = draw(st.sampled_from(["person", "location", "creature"]))
            if scheme not in ("IO", "bare") or not spans or spans[-1][1:] != (first, kind):
                spans.append((first, last, kind))
        if scheme == "bare":
            words = [word.replace("#", "x") for word in words]
        passages.append(Passage(tuple(words), tuple(spans)))
    return passages


def tags_of(passage, scheme):
    """The definition of each scheme, written from the spans' side."""
    tags = ["O"] * len(passage.words)
    for first, last, kind in passage.spans:
        touches = any(end == first and other == kind for _, end, other in passage.spans)
        for i in range(first, last):
            alone, opens, closes = last - first == 1, i == first, i == last - 1
            prefix = {
                "BIO": "B" if opens else "I",
                "IOB1": "B" if opens and touches else "I",
                "BIOES": "S" if alone else "B" if opens else "E" if closes else "I",
                "BILOU": "U" if alone else "B" if opens else "L" if closes else "I",
                "IO": "I",
                "bare": "",
            }[scheme]
            tags[i] = f"{prefix}-{kind}" if prefix else kind
    return tags


class Named(list):
    """Rows whose features name their numbers, without the time that a `datasets.Dataset` takes."""

    def __init__(self, rows, names):
        super().__init__(rows)
        self.features = {"ner_tags": datasets.List(datasets.ClassLabel(names=names))}


@pytest.mark.parametrize("scheme", SCHEMES)
@given(data=st.data())
@settings(max_examples=60)  # it writes files
def test_files_of_every_scheme_and_layout(tmp_path_factory, scheme, data):
    passages = data.draw(written(scheme))
    separator, end = data.draw(st.sampled_from(["\t", " ", "  "])), data.draw(st.sampled_from(["\n", "\r\n"]))
    between = data.draw(st.integers(0, 2))
    lines = ["# sent_id = 1", "-DOCSTART- -X- -X- O", ""] if data.draw(st.booleans()) else []
    numbered = [*lines]
    for passage in passages:
        lines += ["# text = Anchor away"] if data.draw(st.booleans()) else []
        for i, (word, tag) in enumerate(zip(passage.words, tags_of(passage, scheme), strict=True), 1):
            lines.append(separator.join([word, *(["NN"] * between), tag]))
            numbered.append(f"{i}{separator}{lines[-1]}")
        lines += ["", " \t"][: data.draw(st.integers(1, 2))]
        numbered.append("")
    path, encoding = tmp_path_factory.getbasetemp() / "scheme.conll", data.draw(st.sampled_from(["utf-8", "utf-8-sig"]))
    path.write_text(end.join(lines), encoding=encoding, newline="")
    assert load_conll(path) == passages
    path.write_text(end.join(numbered), encoding=encoding, newline="")
    with pytest.raises(UserError, match=r"scheme.conll:\d+: the first column counts .*: remove these numbers"):
        load_conll(path)


def test_a_space_after_a_tag_is_none_of_its_type(tmp_path):
    (tmp_path / "spaces.tsv").write_text("Ada\tB-PER \nByron\tI-PER\nsailed\tO  \n", encoding="utf-8")
    (passage,) = load_conll(tmp_path / "spaces.tsv")
    assert passage.entities() == {"person": ["Ada Byron"]}


@pytest.mark.parametrize("scheme", SCHEMES)
@given(data=st.data())
@settings(max_examples=40)
def test_rows_of_every_scheme_as_strings_and_as_numbers(scheme, data):
    passages = data.draw(written(scheme))
    rows = [{"tokens": list(p.words), "ner_tags": tags_of(p, scheme)} for p in passages]
    assert from_dataset(rows) == passages
    names = sorted({tag for row in rows for tag in row["ner_tags"]})
    numbered = [{"tokens": row["tokens"], "ner_tags": [names.index(tag) for tag in row["ner_tags"]]} for row in rows]
    assert from_dataset(Named([*numbered, {"tokens": [], "ner_tags": []}], names)) == passages


@given(st.lists(st.sampled_from(["O", "B-aa", "I-aa", "B-bb", "I-bb"]), min_size=1, max_size=9))
def test_ill_formed_sequences_start_an_entity_as_in_the_strict_reader(tmp_path_factory, tags):
    path = tmp_path_factory.getbasetemp() / "ill.conll"
    path.write_text("".join(f"w\t{tag}\n" for tag in tags), encoding="utf-8")
    assert load_conll(path) == read_conll(path)


@given(st.lists(st.sampled_from([f"{p}-{k}" for p in "BIESLU" for k in ("aa", "bb")] + ["O"]), min_size=1, max_size=8))
def test_any_sequence_covers_exactly_the_tagged_words(tags):
    (passage,) = from_dataset([{"tokens": ["w"] * len(tags), "ner_tags": tags}])
    kinds = {i: kind for first, last, kind in passage.spans for i in range(first, last)}
    assert kinds == {i: tag[2:] for i, tag in enumerate(tags) if tag != "O"}
    starts = {first for first, _, _ in passage.spans}
    for i, tag in enumerate(tags):
        broken = i == 0 or tags[i - 1] == "O" or tags[i - 1][2:] != tag[2:] or tags[i - 1][0] in "ESLU" or tag[0] in "BSU"
        assert (i in starts) == (tag != "O" and broken)


# ---- types ----


def read(tmp_path, text):
    path = tmp_path / "data.conll"
    path.write_text(text, encoding="utf-8")
    return load_conll(path)


def test_what_a_name_on_the_command_line_may_be(tmp_path):
    path = tmp_path / "mine.conll"
    path.write_text("Ada B-PER\nsings O\n")
    rows = tmp_path / "mine.jsonl"
    rows.write_text('{"tokens": ["Ada", "sings"], "ner_tags": ["B-PER", "O"]}\n')
    assert tagged(str(path)) == tagged(str(rows)) == [Passage(("Ada", "sings"), ((0, 1, "person"),))]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("missing.conll", None, "no file or folder"),
        ("empty.jsonl", "", "cannot be loaded"),
        ("none.jsonl", '{"tokens": [], "ner_tags": []}\n', "has no sentence"),
        ("numbers.jsonl", '{"tokens": ["Ada"], "ner_tags": [1]}\n', "tags are numbers .* write them as words such as B-PER"),
        ("names.jsonl", '{"words": ["Ada"], "tags": ["O"]}\n', "row 0 has the columns tags, words: name that of the words `tokens`"),
        ("commas.csv", "Ada,B-PER\n", "commas.csv:1: one column, .* by a tab or a space in 'Ada,B-PER'"),
        ("numbered.conll", "1 Ada B-PER\n2 sings O\n", "the first column counts .*: remove these numbers"),
    ],
)
def test_a_file_that_will_not_do_is_told_what_does(name, text, line, tmp_path):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=line) as caught:
        tagged(str(path))
    assert FORMS in str(caught.value) and "\n" not in str(caught.value)


def test_types_become_the_words_of_the_question(tmp_path):
    text = "A B-PER\nB B-work_of_art\nC B-GPE\nD B-corporation\nE B-Cell_Line\nF B-DIS\nG O\n"
    kinds = [kind for *_, kind in read(tmp_path, text)[0].spans]
    assert kinds == ["person", "art", "location", "organization", "cell line", "dis"]
    assert all(kind == kind.lower() and "_" not in word for kind, word in WORDS.items())


def test_types_of_one_word_are_not_run_together(tmp_path):
    """Corporation and group are both organizations, but two of them."""
    assert read(tmp_path, "Acme I-corporation\nAjax I-group\n. O\n")[0].entities() == {"organization": ["Acme", "Ajax"]}


def test_the_words_agree_with_those_of_the_shipped_set():
    assert {kind: WORDS.get(kind, kind) for kind in WNUT_TYPES} == WNUT_TYPES


# ---- refusals ----


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no rows"),
        ("# only\n\n# comments\n", "no rows"),
        ("a\tO\nb\n", r"data.conll:2: 1 columns where line 1 has 2"),
        ("a O\n\nb c O\n", r"data.conll:3: 3 columns where line 1 has 2"),
        ("a\tO\n\tO\n", "data.conll:2: an empty token or tag"),
        ("a\tO\nb\t\n", "data.conll:2: an empty token or tag"),
        ("a\n", "data.conll:1: one column, .*: part them"),
        ("\u00a0a\u00a0O\n", "data.conll:1: one column"),
        ("a O\nb B-\n", "data.conll:2: 'B-' is no tag .*: mend it, or give the tags .* in the last column"),
        ("a O\nb B\n", "data.conll:2: 'B' is no tag"),
        ("a O\nb b-per\n", "data.conll:2: 'b-per' is no tag"),
        ("a O\nb B_PER\n", "data.conll:2: 'B_PER' is no tag"),
        ("a O\nb M-PER\n", "data.conll:2: 'M-PER' is no tag"),
        ("a (PERSON*\nb *)\n", r"data.conll:1: '\(PERSON\*' is no tag"),
        ("a O\nb B-PER\nc PER\n", r"data.conll:3: 'PER' has no prefix, 'B-PER' \(.*data.conll:2\) has one: write all with a"),
        ("a NNP\nb VBD\n", "data.conll:1: 'NNP' and no tag O anywhere: give the tags .* with O for words outside"),
        ("1\ta\tO\n2\tb\tO\n\n1\tc\tO\n", "data.conll:1: the first column counts .*: remove these numbers"),
        ("0 a O\n1 b O\n2-3 c _\n", "data.conll:1: the first column counts"),
    ],
)
def test_malformed_files_are_refused_by_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_numbers_that_do_not_count_up_are_tokens(tmp_path):
    assert [p.words for p in read(tmp_path, "1 O\n2 O\n\n7 O\n9 O\n")] == [("1", "2"), ("7", "9")]
    assert [p.words for p in read(tmp_path, "1984 B-art\n\n")] == [("1984",)]


def test_hashtags_are_rows_and_comments_are_not(tmp_path):
    (passage,) = read(tmp_path, "# id 1\tdomain=dev\nSee\tO\n#MeToo\tO\n#Rome\tB-LOC\n#\tO\n# global.columns = O\n")
    assert passage.words == ("See", "#MeToo", "#Rome", "#") and passage.spans == ((2, 3, "location"),)


def test_what_is_no_text_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_conll(tmp_path / "absent.conll")
    (tmp_path / "latin.conll").write_bytes("é O\n".encode("latin-1"))
    with pytest.raises(UserError, match="cannot be read as UTF-8"):
        load_conll(tmp_path / "latin.conll")


@pytest.mark.parametrize(
    "row, names, message",
    [
        ({"words": ["a"], "ner_tags": [0]}, None, "row 1 has the columns ner_tags, words: name that of the words `tokens`"),
        ({"tokens": "Ada wrote", "ner_tags": [0]}, None, "row 1: `tokens` must be a list of words"),
        ({"tokens": ["a", "b"], "ner_tags": ["O"]}, None, "row 1: .* as many tags"),
        ({"tokens": ["a"], "ner_tags": None}, None, "row 1: .* as many tags"),
        ({"tokens": [None], "ner_tags": ["O"]}, None, "row 1: `tokens` must be a list of words"),
        ({"tokens": ["a"], "ner_tags": [1]}, None, "row 1: tags are numbers without names: write them as words"),
        ({"tokens": ["a"], "ner_tags": [-100]}, ["O"], "row 1: the tag -100 has no name, only 0 to 0 do: mend it"),
        ({"tokens": ["a"], "ner_tags": [0.5]}, ["O"], "row 1: the tag 0.5 is neither .*: write it as a word"),
        ({"tokens": ["a"], "ner_tags": ["B-"]}, None, "row 1: 'B-' is no tag"),
    ],
)
def test_malformed_rows_are_refused_by_number(row, names, message):
    rows = [{"tokens": ["a"], "ner_tags": ["O"]}, row]
    with pytest.raises(UserError, match=message):
        from_dataset(Named(rows, names) if names else rows)


# ---- Hugging Face datasets, without a network ----

NAMES = ["O", "B-PER", "I-PER", "B-LOC"]
EXPECTED = [
    Passage(("Ada", "Lovelace", "saw", "Rome"), ((0, 2, "person"), (3, 4, "location"))),
    Passage(("Nobody", "did"), ()),
]


@pytest.fixture
def saved(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(datasets.ClassLabel(names=NAMES))}
    )
    rows = {"tokens": [list(p.words) for p in EXPECTED], "ner_tags": [[1, 2, 0, 3], [0, 0]]}
    return datasets.Dataset.from_dict(rows, features=features)


def test_names_come_from_the_datasets_own_features(saved):
    assert from_dataset(saved) == EXPECTED
    assert from_dataset(saved.with_format("numpy")) == EXPECTED


def test_saved_datasets_are_loaded_by_split(saved, tmp_path):
    saved.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"test": saved, "train": saved.select([1])}).save_to_disk(tmp_path / "many")
    assert load_dataset_passages(tmp_path / "one") == EXPECTED
    assert load_dataset_passages(str(tmp_path / "many")) == EXPECTED
    assert load_dataset_passages(tmp_path / "many" / "train") == EXPECTED[1:]
    datasets.DatasetDict({"dev": saved, "train": saved}).save_to_disk(tmp_path / "untested")
    with pytest.raises(UserError, match="no split 'test': save one of that name, or give .*: .*untested/dev, .*untested/train$"):
        load_dataset_passages(tmp_path / "untested")
    assert load_dataset_passages(tmp_path / "untested" / "dev") == EXPECTED


def test_folders_and_files_of_json_and_parquet(saved, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    tags = (["PER", "PER", "O", "GPE"], ["O", "O"])
    rows = [{"tokens": list(p.words), "ner_tags": labels} for p, labels in zip(EXPECTED, tags, strict=True)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "train.jsonl").write_text(json.dumps(rows[1]) + "\n", encoding="utf-8")
    assert load_dataset_passages(folder) == EXPECTED
    assert load_dataset_passages(folder / "test.jsonl") == EXPECTED
    assert load_dataset_passages(folder / "train.jsonl") == EXPECTED[1:]
    saved.to_parquet(tmp_path / "data.parquet")
    assert load_dataset_passages(tmp_path / "data.parquet") == EXPECTED
    (folder / "test.jsonl").unlink()
    with pytest.raises(UserError, match="folder cannot be loaded: check the name and that it has a split 'test', or give one file"):
        load_dataset_passages(folder)


def test_what_cannot_be_loaded_is_a_user_error(saved, tmp_path):
    with pytest.raises(UserError, match="absent cannot be loaded: check the name"):
        load_dataset_passages(tmp_path / "absent")
    (tmp_path / "broken.json").write_text("{ this is not JSON", encoding="utf-8")
    with pytest.raises(UserError, match="broken.json cannot be loaded: check that it is whole"):
        load_dataset_passages(tmp_path / "broken.json")
    script = tmp_path / "script" / "script.py"
    script.parent.mkdir()
    script.write_text("raise SystemExit('a script was run')\n", encoding="utf-8")
    with pytest.raises(UserError, match="script cannot be loaded: it is a script, .*: give a file of its data, in Parquet .*JSON or CoNLL"):
        load_dataset_passages(script.parent)
