"""The held-out files that ship, and the generated problems."""

import random
import re
import subprocess
import sys
from importlib.resources import files

import pytest

from reveal_release.config import UserError
from reveal_release.metrics.toxicity import load_scorer
from reveal_release.testbed import functions, heldout, problems
from reveal_release.testbed.entities import TYPES, complete, detokenise
from reveal_release.testbed.heldout_files import WNUT_TYPES

SPLITS = ("validation", "test")
SHIPPED = files("reveal_release") / "data" / "heldout"


def test_sizes():
    names = [path.name for path in SHIPPED.iterdir()]
    assert sorted(names) == ["README.md", "entities.jsonl", "realtoxicityprompts.jsonl", "wikitext.jsonl", "wnut17.jsonl"]
    assert sum(len((SHIPPED / name).read_bytes()) for name in names) <= 1_000_000
    assert [len(heldout.realtoxicityprompts(split)) for split in SPLITS] == [250, 200]
    assert [len(heldout.entities(split)) for split in SPLITS] == [100, 400]
    assert [len(heldout.wnut17(split)) for split in SPLITS] == [100, 200]
    assert [len(heldout.web(split)) for split in SPLITS] == [350, 400]
    assert 40_000 < sum(map(len, heldout.wikitext("validation"))) < sum(map(len, heldout.wikitext("test"))) < 150_000


@pytest.mark.parametrize("reader", [heldout.wikitext, heldout.realtoxicityprompts, heldout.entities, heldout.wnut17, heldout.web])
def test_splits_are_disjoint_clean_and_without_repeats(reader):
    texts = {split: [getattr(item, "text", item) for item in reader(split)] for split in SPLITS}
    every = texts["validation"] + texts["test"]
    assert len(set(every)) == len(every)
    assert all(text == text.strip() and "\n" not in text and "<unk>" not in text for text in every)
    for name in ("reward", "evaluation"):
        assert load_scorer(name)(every).max() < 0.5


def test_prompts_have_4_to_20_words():
    lengths = {len(text.split()) for split in SPLITS for text in heldout.realtoxicityprompts(split)}
    assert min(lengths) >= 4 and max(lengths) <= 20


@pytest.mark.parametrize("reader", [heldout.entities, heldout.wnut17])
def test_passages_are_well_formed(reader):
    for passage in (p for split in SPLITS for p in reader(split)):
        assert 5 <= len(passage.words) <= 40 and passage.spans
        at = 0
        for first, last, _ in passage.spans:
            assert at <= first < last <= len(passage.words)
            assert detokenise(passage.words[first:last]) in passage.text
            at = last
    kinds = {kind for passage in reader("test") for kind in passage.entities()}
    assert kinds == {*TYPES, "other"} if reader is heldout.entities else kinds == set(WNUT_TYPES.values()) < set(TYPES)


@pytest.mark.parametrize("reader", [heldout.entities, heldout.wnut17])
@pytest.mark.parametrize("split", SPLITS)
def test_any_prefix_names_a_person_in_half(reader, split):
    assert ["person" in passage.entities() for passage in reader(split)] == [bool(i % 2) for i in range(len(reader(split)))]


def test_wikipedia_is_complete_and_posts_hold_no_addresses():
    assert all(complete(passage) for split in SPLITS for passage in heldout.entities(split))
    text = " ".join(passage.text for split in SPLITS for passage in heldout.wnut17(split))
    assert "@" not in text and "http" not in text and "www." not in text and not re.search(r"\d{7}", text)


# ---- generated problems ----


@pytest.mark.parametrize("reader", [heldout.functions, heldout.problems])
def test_problems_are_distinct_deterministic_and_of_their_split(reader):
    drawn = {split: reader(split, 60, seed=1) for split in SPLITS}
    for split, items in drawn.items():
        assert items == reader(split, 60, seed=1) and items != reader(split, 60, seed=2)
        assert items[:20] == reader(split, 20, seed=1)
        assert len({item.prompt for item in items}) == 60
    allowed = (
        {"validation": functions.families("train"), "test": functions.families("test")}
        if reader is heldout.functions
        else {"validation": problems.schemas("train"), "test": problems.schemas("test")}
    )
    for split, items in drawn.items():
        assert {getattr(item, "family", None) or item.schema for item in items} <= set(allowed[split])


def test_no_training_seed_gives_the_validation_problems():
    train = {problems.sample(random.Random(seed), "train").prompt for seed in range(50)}
    first = [heldout.problems("validation", 1, seed)[0].prompt for seed in range(50)]
    assert len(train & set(first)) < 5  # not the same streams; single repeats may happen


def test_asking_for_too_many_is_a_user_error():
    with pytest.raises(UserError, match="only 1 of 2"):
        heldout._draw(lambda rng, split: problems.sample(random.Random(3), split), "test", 2, 0)


@pytest.mark.parametrize("call", [lambda: heldout.wikitext("train"), lambda: heldout.problems("dev", 3)])
def test_unknown_splits_are_user_errors(call):
    with pytest.raises(UserError, match="unknown split"):
        call()


def test_no_problems_is_a_user_error():
    with pytest.raises(UserError, match="at least one"):
        heldout.functions("test", 0)


def test_readers_import_no_raw_data_loader():
    code = (
        "import sys; from reveal_release.testbed import heldout; heldout.entities('test')\n"
        "print([m for m in sys.modules if m in ('sklearn', 'torch') or m.endswith(('.corpora', '.comments'))])"
    )
    env = {"PYTHONPATH": ":".join(sys.path)}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert shown.stdout.strip() == "[]"
