"""Making the held-out files from small raw sets in the real sets' formats."""

import json
import random

import pytest

from reveal_release.config import UserError
from reveal_release.testbed import heldout_files
from reveal_release.testbed.corpora import prose as prose_of
from reveal_release.testbed.entities import load_fewnerd

SPLITS = ("validation", "test")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    draw = random.Random(0)
    nouns = ["bus", "river", "council", "garden", "museum", "bridge", "school", "budget", "harbour", "market"]

    def sentence():
        built = (f"the {draw.choice(nouns)} by the {draw.choice(nouns)} was opened in {draw.randint(1000, 9999)} ," for _ in "ab")
        return " ".join(built)

    def wiki(count, line_end):
        lines = []
        for i in range(count):
            lines += [f" = Article {i} = ", f" = = Part {i} = = ", " Short . "]
            lines += [f" In part @-@ time , {sentence()} " for _ in range(3)]
        return line_end.join(lines)

    for name in ("text_wikitext103_tokens", "text_wikitext2_raw_test", "tox_rtp_quark_val", "ner_fewnerd_resplit", "ner_wnut17"):
        (folder / name).mkdir()
    (folder / heldout_files.RAW[0]).write_text(wiki(40, "\n"), encoding="utf-8")
    (folder / heldout_files.RAW[1]).write_text(wiki(9, "\r\n"), encoding="utf-8", newline="")
    rows = []
    for i in range(60):
        scores = dict.fromkeys(heldout_files.ATTRIBUTES, 0.1)
        text = f"In {1000 + i} the {draw.choice(nouns)}"
        if i < 10:
            scores[heldout_files.ATTRIBUTES[i % 7]], text = 0.5, f"Refused {i} by an attribute"
        elif i == 10:
            text = "Too short"
        elif i == 11:
            scores["insult"], text = None, "Refused since it was never scored"
        elif i == 12:
            text = "You are a stupid idiot"  # the bundled scorers must see what Perspective did not
        elif i == 13:
            text = "Refused by its mark"
        rows.append(json.dumps({"challenging": i == 13, "prompt": {"text": text, **scores}}))
    (folder / heldout_files.RAW[2]).write_text("\n".join(rows), encoding="utf-8")
    for number, name in enumerate(("dev", "test", "big_test")):
        starts = ["Paris\tB-location_GPE", "Ada\tB-person_other"]
        words = [[starts[i % 3 == 0], *(f"{w}\tO" for w in sentence().split())] for i in range(300 + number)]
        (folder / f"ner_fewnerd_resplit/{name}.txt").write_text("\n\n".join("\n".join(w) for w in words) + "\n", encoding="utf-8")

    def post(start, words):
        return "\n".join([*start, *(f"{word}\tO" for word in words.split())])

    posts = [post([], "nothing is named in this one")]
    for i in range(12):
        posts.append(post([("Ada\tB-person", "Ajax\tB-group", "Ulysses\tB-creative-work", "Acme\tB-corporation")[i % 4]], sentence()))
    addresses = ("@ bus", "http://bus", "www.bus", "0123456789")
    refused = [post(["Ada\tB-person"], f"wrote to {address} of the council") for address in addresses]
    refused += [post(["Ada\tB-person"], "went on by"), post(["Ada\tB-person"], "bus " * 40)]
    (folder / heldout_files.RAW[-2]).write_text("\n\n".join(posts + refused) + "\n\n", encoding="utf-8")
    later = [post(["New\tB-location", "York\tI-location"], sentence()) for _ in range(12)]
    # The validation file's posts come again: they must not be in both parts.
    named = [post(["Bob\tB-person"], sentence()) for _ in range(3)]
    (folder / heldout_files.RAW[-1]).write_text("\n\n".join(posts + later + named) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(heldout_files, "PROMPTS", {"validation": 6, "test": 20})
    monkeypatch.setattr(heldout_files, "PASSAGES", {"validation": 3, "test": 9})
    monkeypatch.setattr(heldout_files, "POSTS", {"validation": 5, "test": 6})
    monkeypatch.setattr(heldout_files, "EARLIER", {"validation": 4, "test": 8})
    monkeypatch.setattr(heldout_files, "WIKITEXT_TEST_BYTES", 1500)


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_build_is_deterministic_and_takes_what_it_should(raw, small, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        heldout_files.build(raw, tmp_path / name, seed)
    contents = {name: [path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in "abc"}
    assert contents["a"] == contents["b"] != contents["c"]

    prompts = read(tmp_path / "a/realtoxicityprompts.jsonl")
    assert [row["split"] for row in prompts] == ["validation"] * 6 + ["test"] * 20
    assert all(row["prompt"].startswith("In 1") for row in prompts)

    wikitext = read(tmp_path / "a/wikitext.jsonl")
    prose = prose_of(raw)
    found = {split: [row for row in wikitext if row["split"] == split] for split in SPLITS}
    assert {row["text"] for row in found["validation"]} == set(prose["validation"]) and prose["validation"]
    assert not {row["text"] for row in wikitext} & set(prose["train"])
    assert len({row["article"] for row in found["test"]}) == 3  # of 9 articles of about 480 bytes, three fit
    assert [row["article"] for row in found["test"]][::3] == ["Article 0", "Article 3", "Article 6"]
    assert all(row["text"].startswith("In part-time, the ") and "Part" not in row["text"] for row in wikitext)

    entities = read(tmp_path / "a/entities.jsonl")
    passages = load_fewnerd(raw / "ner_fewnerd_resplit")
    for split, size in (("validation", 3), ("test", 9)):
        rows = [row for row in entities if row["split"] == split]
        assert [row["spans"] for row in rows] == [[[0, 1, ("location_GPE", "person_other")[i % 2]]] for i in range(size)]
        assert {tuple(row["words"]) for row in rows} <= {passage.words for passage in passages[split]}

    posts = read(tmp_path / "a/wnut17.jsonl")
    found = {split: [row for row in posts if row["split"] == split] for split in SPLITS}
    assert [row["words"][0] == "Ada" for row in found["validation"]] == [False, True, False, True, False]
    assert {row["words"][0]: row["spans"][0][2] for row in found["validation"]}.items() <= {
        "Ada": "person", "Ajax": "organization", "Acme": "organization", "Ulysses": "art"
    }.items()  # fmt: skip
    assert [(row["words"][0], row["spans"]) for row in found["test"]] == [
        ("New", [[0, 2, "location"]]), ("Bob", [[0, 1, "person"]])
    ] * 3  # fmt: skip
    assert not {" ".join(row["words"]) for row in found["validation"]} & {" ".join(row["words"]) for row in found["test"]}


def test_what_development_measured_on_is_not_test_again(raw, small, tmp_path, monkeypatch):
    """The earlier sample takes half of the sentences, so that a draw from all would meet it."""
    passages = load_fewnerd(raw / "ner_fewnerd_resplit")["test"]
    drawn = []

    def record(items, sizes, rng, name, parts=heldout_files._parts):
        rows = list(parts(items, sizes, rng, name))
        drawn.append(rows)
        yield from rows

    monkeypatch.setattr(heldout_files, "EARLIER", {"validation": 4, "test": len(passages) // 2})
    monkeypatch.setattr(heldout_files, "_parts", record)
    rows = heldout_files._passages(raw / "ner_fewnerd_resplit", random.Random(0))
    earlier = {passage.words for _, passage in drawn[1]}
    assert len(earlier) == len(passages) // 2
    test = {tuple(row["words"]) for row in rows if row["split"] == "test"}
    assert len(test) == 9 and not test & earlier


def test_prompts_keep_their_order_when_the_parts_are_cut_anew(raw, monkeypatch):
    """So that moving the boundary moves prompts from test to validation and draws no others."""
    monkeypatch.setattr(heldout_files, "PROMPTS", {"validation": 6, "test": 20})
    before = heldout_files._prompts(raw / heldout_files.RAW[2], random.Random(0))
    monkeypatch.setattr(heldout_files, "PROMPTS", {"validation": 11, "test": 15})
    after = heldout_files._prompts(raw / heldout_files.RAW[2], random.Random(0))
    assert [row["prompt"] for row in after] == [row["prompt"] for row in before]
    assert [row["split"] for row in after] == ["validation"] * 11 + ["test"] * 15


def test_missing_and_short_raw_sets_are_user_errors(raw, small, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="wiki.valid.tokens does not exist"):
        heldout_files.build(tmp_path, tmp_path)
    monkeypatch.setattr(heldout_files, "PROMPTS", {"validation": 6, "test": 200})
    with pytest.raises(UserError, match="val.jsonl has 46 usable items, 206 are needed"):
        heldout_files.build(raw, tmp_path)
