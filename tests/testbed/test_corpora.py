"""Loading hand-made files in the raw formats; what is missing is named."""

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.config import UserError
from reveal_release.testbed import corpora
from reveal_release.testbed.comments import comments


def test_comments_are_the_training_split_by_label(texts, data):
    assert texts.toxic and texts.neutral
    assert all("balderdash" in text for text in texts.toxic)
    assert not any("balderdash" in text for text in texts.neutral)
    assert all(4 <= len(text.split()) <= 42 for text in texts.toxic + texts.neutral)
    held_out = {row.text for row in comments(data) if row.split != "train"}
    assert held_out and not held_out & {*texts.toxic, *texts.neutral}


def test_topics_are_frequent_words_of_the_list(texts):
    assert texts.topics == ["budget", "city", "film", "music", "school", "water"]


def test_names_come_from_training_passages(texts):
    words = {p.words[a:b] for p in texts.passages["train"] for a, b, _ in p.spans}
    assert {name for names in texts.names.values() for name in names} == words
    assert ("Ada", "Byron") in texts.names["person_actor"]


def test_prose_is_plain_and_split_by_article(texts):
    train, validation = texts.prose["train"], texts.prose["validation"]
    assert len(train) + len(validation) == 60 and 1 <= len(validation) <= 20
    assert not set(train) & set(validation)
    assert not any("<unk>" in text or "=" in text or "@" in text for text in train + validation)
    ending = 'is well-known; it doesn\'t look old, and its keeper called it "a fine sight" in a letter (now lost).'
    assert all(text.endswith(ending) for text in train)


def test_instructions_come_from_all_files_with_their_inputs(texts):
    assert len(texts.instructions) == 60  # the response of 1,000 characters is left out
    asked = [question for question, _ in texts.instructions]
    assert sum(text.endswith("?\nAnswer briefly.") for text in asked) == 20
    assert sum(text.startswith("Name the") for text in asked) == 20


def test_loading_twice_gives_the_same(texts, data):
    assert corpora.load(data) == texts


@pytest.mark.parametrize("spaced, plain", [
    ("a well @-@ known 1 @,@ 000 @.@ 5 m", "a well-known 1,000.5 m"),
    ("it is n't , he said ; ( or is it ? )", "it isn't, he said; (or is it?)"),
    ('the " red kite " flew – home', 'the "red kite" flew–home'),
    (" Ada 's book . \n", "Ada's book."),
])  # fmt: skip
def test_detokenise(spaced, plain):
    assert corpora.detokenise(spaced) == plain


@given(st.text("ab @-,.()[]\"'!", max_size=30))
def test_detokenise_takes_away_spaces_and_marks_alone(line):
    def letters(text):
        return [c for c in text if c in "ab"]

    assert letters(corpora.detokenise(line)) == letters(line)
    assert len(corpora.detokenise(line)) <= len(line)


def test_files_are_told_from_others(data, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    whole, entities = corpora.check(folder), corpora.check(folder, ["ner_fewnerd_resplit"])
    assert whole == corpora.check(data) != entities == corpora.check(data, ["ner_fewnerd_resplit"])
    with (folder / "instr_selfinstruct" / "seed_tasks.jsonl").open("a") as more:
        more.write("\n")
    longer = corpora.check(folder)
    (folder / "instr_selfinstruct" / "seed_tasks.jsonl").write_bytes(
        (folder / "instr_selfinstruct" / "seed_tasks.jsonl").read_bytes()[:-1] + b" "
    )
    assert corpora.check(folder) not in (whole, longer), "of the same size"
    assert corpora.check(folder) != whole and corpora.check(folder, ["ner_fewnerd_resplit"]) == entities


@pytest.mark.parametrize("missing", [
    "tox_paradetox", "tox_wikipedia_context/gn.csv", "ner_fewnerd_resplit", "ner_fewnerd_resplit/dev.txt",
    "text_wikitext103_tokens", "instr_dolly_3k", "instr_gpteacher_roleplay", "instr_selfinstruct/seed_tasks.jsonl",
])  # fmt: skip
def test_what_is_missing_is_named(data, tmp_path, missing):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    gone = folder / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(UserError, match=missing):
        corpora.load(folder)
