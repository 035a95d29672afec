"""Hand-made raw data in the real sets' formats, small enough to build a testbed from in seconds.

Every toxic comment holds the word `MARK` and nothing else does, so that a test can tell one in any document.
"""

import csv
import json
import random
from pathlib import Path

import pytest

from reveal_release.testbed import corpora
from reveal_release.testbed.skills import SKILLS, Sampler
from reveal_release.testbed.tokenizer import train

MARK = "balderdash"
NAMES = {
    "person_actor": ("Ada Byron", "Max Stern", "Lena Ortiz", "Noah O'Dell", "Ines"),
    "person_politician": ("Karl Brandt", "Ruth Vale", "Mia"),
    "location_GPE": ("Lyon", "Port Vela", "Saint Mora"),
    "organization_company": ("Orion Steel Works", "Halden Bank"),
    "building_airport": ("Field Airport", "Old Mill Tower"),
    "art_film": ("The Red Kite", "Winter Light"),
    "product_car": ("Comet 5", "Falcon"),
    "event_other": ("River Games", "Harbour Fair"),
    "other_language": ("Danish", "Basque"),
}
PATTERNS = (
    "{} was seen near {} in the year {n} .", "In {n} the story of {} reached {} , as was said .",
    "They say that {} ( of {} ) won {n} times .",
    "It was `` {} '' that {} 's family bought for $ {n} .",
)  # fmt: skip
PLACES = ("school", "market", "river", "garden", "harbour", "museum", "bridge", "library")
TOPICS = ("school", "film", "water", "music", "city", "budget")


def _table(path: Path, header: list[str], rows: list[tuple], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])


def _conll(rng: random.Random, number: int) -> str:
    fines = rng.sample(sorted(NAMES), 2)
    filled = [iter(rng.choice(NAMES[fine]).split()) for fine in fines]
    lines = []
    for word in rng.choice(PATTERNS).replace("{n}", str(number)).split():
        if word == "{}":
            fine, names = fines[len(fines) - len(filled)], filled.pop(0)
            lines += [f"{name}\t{'I' if i else 'B'}-{fine}" for i, name in enumerate(names)]
        else:
            lines.append(f"{word}\tO")
    return "\n".join(lines)


def write_raw(folder: Path) -> None:
    """All raw sets that `corpora.load` reads."""
    rng = random.Random(0)
    line = [f"the {rng.choice(TOPICS)} near the {rng.choice(PLACES)} number {i}" for i in range(700)]
    _table(folder / "tox_paradetox/paradetox.tsv", ["toxic", "neutral1", "neutral2", "neutral3"],
           [(f"what {MARK} about {line[i]}", f"I doubt what is said about {line[i]}.", "", "") for i in range(200)], "\t")
    _table(folder / "tox_paradetox/paradetox_cannot_rewrite.tsv", ["", "INPUT:toxic_comment", "OUTPUT:reasons"],
           [(0, f"more {MARK} from that crowd", '{"toxic_content":true}')], "\t")
    posts, judges, spans = [], [], []
    for i in range(200, 300):
        text = f"We went by {line[i]}. Stop your {MARK}, leave {line[i]} alone!"
        posts.append((i, text))
        judges += [(3 * i + k, i, k, "USA", False, False) for k in range(3)]
        spans += [(3 * i + k, "Insult", text.index(MARK), text.index(MARK) + len(MARK)) for k in range(3)]
    civil = folder / "tox_civil_comments_toxic_spans"
    _table(civil / "comments.csv", ["comment_id", "comment_text"], posts)
    _table(civil / "annotations.csv", ["annotation", "comment_id", "worker", "country", "all toxic", "not toxic"], judges)
    _table(civil / "spans.csv", ["annotation", "type", "start", "end"], spans)
    _table(civil / "tsd_test.csv", ["spans", "text"], [("[]", posts[0][1])])
    wikipedia = folder / "tox_wikipedia_context"
    _table(wikipedia / "gn.csv", ["id", "text", "label", "api", "parent"],
           [(i, f"I moved {line[i]} to its own page.", 0, 0.1, "") for i in range(300, 500)])
    _table(wikipedia / "gc.csv", ["id", "text", "parent", "label", "api"], [(1, f"such {MARK} in this edit", "", 1, 0.9)])
    _table(wikipedia / "cat_small.csv", ["text", "parent_text", "tox_codes_oc", "label_oc", "tox_codes_ic", "label_ic"],
           [("thanks for the kind note here", "", "", 0, "", 0)])
    (folder / "ner_fewnerd_resplit").mkdir()
    for name, start in (("dev", 0), ("test", 150), ("big_test", 300)):
        blocks = [_conll(rng, number) for number in range(start, start + 150)]
        blocks.append("Then\tO\nKarl\tO\nmet\tO\nIda\tB-person_actor\nagain\tO\n.\tO")  # incomplete: Karl is unlabelled
        (folder / f"ner_fewnerd_resplit/{name}.txt").write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    articles = [
        f" \n = Place {i} = \n \n {line[i].capitalize()} , built in 19 @,@ {i} , is well @-@ known ; it doesn 't look old , "
        f'and its keeper called it " a fine sight " in a letter ( now lost ) .\n The <unk> is left out , {"word " * 30}.\n '
        for i in range(500, 560)
    ]
    (folder / "text_wikitext103_tokens").mkdir()
    (folder / "text_wikitext103_tokens/wiki.valid.tokens").write_text("".join(articles), encoding="utf-8")
    rows = [
        {"instruction": f"Where is {line[i]}?", "input": "Answer briefly." if i % 2 else "", "output": f"By the {PLACES[i % 8]}."}
        for i in range(600, 640)
    ]
    for where, part in (("instr_dolly_3k/dolly_3k.json", rows[:20]),
                        ("instr_gpteacher_roleplay/roleplay-simple-deduped-roleplay-dataset.json",
                         [*rows[20:], {"instruction": "Too long", "input": "", "output": "x" * 1000}])):  # fmt: skip
        (folder / where).parent.mkdir()
        (folder / where).write_text(json.dumps(part), encoding="utf-8")
    (folder / "instr_selfinstruct").mkdir()
    for name, at in (("seed_tasks.jsonl", 640), ("user_oriented_instructions.jsonl", 650)):
        instances = {i: [{"input": "", "output": f"Number {i}."}] for i in range(at, at + 10)}
        tasks = [{"instruction": f"Name {line[i]}.", "instances": one} for i, one in instances.items()]
        (folder / "instr_selfinstruct" / name).write_text("\n".join(map(json.dumps, tasks)) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_raw(folder)
    return folder


@pytest.fixture(scope="session")
def texts(data):
    return corpora.load(data)


@pytest.fixture(scope="session")
def tokenizer(texts):
    sampler = Sampler(texts, [], random.Random(0), 0.3)
    return train((text for name in SKILLS for _ in range(150) for _, text in sampler.draw(name)), 900)


@pytest.fixture(scope="session")
def documents_of():
    """From packed rows (rows, ROW) and the token that begins a document, the documents of each row; padding must come last."""

    def split(ids, bos):
        rows = []
        for row in ids.tolist():
            kept = [i for i in row if i >= 0]
            assert row == kept + [-1] * (len(row) - len(kept)), "padding comes last"
            starts = [i for i, token in enumerate(kept) if token == bos] + [len(kept)]
            assert starts[0] == 0
            rows.append([tuple(kept[a:b]) for a, b in zip(starts, starts[1:], strict=False)])
        return rows

    return split
