"""The comment reader and the scorers' training, on small raw sets in the real sets' formats."""

import csv
import random

import numpy as np
import pytest

from reveal_release.config import UserError
from reveal_release.metrics.toxicity import load_scorer
from reveal_release.testbed.comments import clean, comments, fingerprint, sentences, split_of
from reveal_release.testbed.scorers import auc, build, prose

TOPICS = ["bus", "river", "council", "garden", "museum", "bridge", "school", "budget", "harbour", "market"]
INSULT = ["idiot", "fool", "moron", "stupid"]


def write(path, header, rows, delimiter=","):
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    draw = random.Random(0)
    line = [f"the {draw.choice(TOPICS)} near the {draw.choice(TOPICS)} number {i}" for i in range(1500)]
    word = [draw.choice(INSULT) for _ in line]
    paradetox = [
        (f"only an {word[i]} built {line[i]} .", f"Somebody built {line[i]}.", f"It was built: {line[i]}.", "")
        for i in range(300)
    ]
    write(folder / "tox_paradetox/paradetox.tsv", ["toxic", "neutral1", "neutral2", "neutral3"], paradetox, "\t")
    cannot = [
        (0, f'"{paradetox[0][0]}"', '{"toxic_content":true}'),  # was rewritten by others: not kept twice
        (1, '"some content that nobody could rewrite ."', '{"toxic_content":true}'),
        (2, '"some content that was unclear ."', '{"unclear":true}'),
    ]
    header = ["", "INPUT:toxic_comment", "OUTPUT:reasons"]
    write(folder / "tox_paradetox/paradetox_cannot_rewrite.tsv", header, cannot, "\t")
    civil, annotations, spans = [], [], []
    for i in range(300, 700):
        text = f"We went by {line[i]}. You {word[i]}, leave {line[i]} alone!"
        civil.append((i, text))
        for judge in range(3):
            disputed = i % 10 == 0 and judge > 0
            annotations.append((3 * i + judge, i, judge, "USA", False, disputed))
            if not disputed:
                spans.append((3 * i + judge, "Insult", text.index(word[i]), text.index(word[i]) + len(word[i])))
    civil_folder = folder / "tox_civil_comments_toxic_spans"
    write(civil_folder / "comments.csv", ["comment_id", "comment_text"], civil)
    header = ["annotation", "comment_id", "worker", "country", "all toxic", "not toxic"]
    write(civil_folder / "annotations.csv", header, annotations)
    write(civil_folder / "spans.csv", ["annotation", "type", "start", "end"], spans)
    write(civil_folder / "tsd_test.csv", ["spans", "text"], [("[]", text) for _, text in civil[1:40]])
    talk = [(i, f"I moved {line[i]} to its own page. ~ [[User:A|A]] (talk) 18:03 15 Jun 2003 (UTC)", 0, 0.1, "")
            for i in range(700, 1000)]
    talk += [(i, f"what a {word[i]} edit to {line[i]}", 1, 0.9, "") for i in range(1000, 1030)]
    talk += [(9999, "this neutral edit of mine looks toxic to a machine", 0, 0.9, "")]
    write(folder / "tox_wikipedia_context/gn.csv", ["id", "text", "label", "api", "parent"], talk)
    write(folder / "tox_wikipedia_context/gc.csv", ["id", "text", "parent", "label", "api"], [])
    header = ["text", "parent_text", "tox_codes_oc", "label_oc", "tox_codes_ic", "label_ic"]
    write(folder / "tox_wikipedia_context/cat_small.csv", header, [])
    (folder / "ner_fewnerd_resplit").mkdir()
    for name, start in (("dev", 1030), ("test", 1200), ("big_test", 1100)):
        blocks = ["\n".join(f"{token}\tO" for token in f"In 1902 {line[i]} opened .".split())
                  for i in range(start, start + 170)]
        (folder / "ner_fewnerd_resplit" / f"{name}.txt").write_text("\n\n".join(blocks) + "\n")
    return folder


@pytest.mark.parametrize(
    "raw_text, cleaned",
    [
        ("the  news , he said , didn 't matter .", "the news, he said, didn't matter."),
        ("See [[Talk:Bus|the talk]] or http://example.org/x?y now", "See the talk or now"),
        ("'''Bold''' words. — [[User:A|A]] (talk) 18:03 15 Jun 2003 (UTC)", "Bold words. — A"),
        ("I agree  - ", "I agree"),
        ("“Quoted”…\n\nand more", '"Quoted"... and more'),
        ("-" * 200 + " end", "-" * 200 + " end"),
    ],
)
def test_clean(raw_text, cleaned):
    assert clean(raw_text) == cleaned


def test_sentences_cover_the_text():
    text = 'One. "Two?" Three\nstill three!\n\nfour v1.2 ends'
    assert [text[a:b].strip() for a, b in sentences(text)] == ["One.", '"Two?"', "Three\nstill three!", "four v1.2 ends"]
    assert "".join(text[a:b] for a, b in sentences(text)) == text


def test_comments_labels_and_splits(raw):
    rows = comments(raw)
    assert rows == comments(raw)
    assert len({fingerprint(row.text) for row in rows}) == len(rows)
    by_source = {source: [row for row in rows if row.source == source] for source in {row.source for row in rows}}
    assert set(by_source) == {"paradetox", "civil_comments", "civil_sentences", "wikipedia"}
    assert sum(row.toxic for row in by_source["paradetox"]) == 301
    assert not any("unclear" in row.text for row in rows)
    assert len(by_source["civil_comments"]) == 360 and all(row.toxic for row in by_source["civil_comments"])
    for row in by_source["civil_sentences"]:
        assert row.toxic == row.text.startswith("You ")
    assert all("UTC" not in row.text for row in by_source["wikipedia"])


def test_groups_are_in_one_split_and_tests_are_tests(raw):
    rows = comments(raw)
    splits = {}
    for row in rows:
        assert splits.setdefault(row.group, row.split) == row.split
    assert {splits[f"civil:{i}"] for i in range(301, 340) if i % 10} == {"test"}
    shares = [sum(split_of(f"g{i}") == split for i in range(5000)) / 5000 for split in ("train", "validation", "test")]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.02)


def test_a_missing_set_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="--data"):
        comments(tmp_path)
    with pytest.raises(UserError, match="--data"):
        prose(tmp_path / "ner_fewnerd_resplit")


def test_prose_joins_words_and_drops_repeats(raw):
    rows = prose(raw / "ner_fewnerd_resplit")
    assert len(rows) == 340  # 510 blocks, 170 of them repeated across the files
    assert rows[0].text.startswith("In 1902 the ") and rows[0].text.endswith("opened.") and not rows[0].toxic


def test_auc_is_the_rank_statistic(raw):
    rows = comments(raw)[:60]
    scores = np.random.default_rng(0).random(60)
    labels = np.array([row.toxic for row in rows])
    expected = (scores[labels][:, None] > scores[~labels][None]).mean()
    found = auc(rows, scores, resamples=50)
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high


def test_build_writes_scorers_that_work(raw, tmp_path):
    result = build(raw, tmp_path, resamples=10)
    for name in ("reward", "evaluation"):
        scores = load_scorer(str(tmp_path / name))(["you idiot, leave the bridge alone", "I moved the bridge page"])
        assert scores[0] > 0.5 > scores[1]
        assert result[name]["auc"]["paradetox"]["value"] > 0.95
    text = (tmp_path / "README.md").read_text()
    assert "## `reward`" in text and "## `evaluation`" in text and "CC0" in text
    again = build(raw, tmp_path / "again", resamples=10)
    assert again == result
