"""The raw data sets of the testbeds: where each comes from, its licence, and the SHA-256 of every file that is read.

    verify(Path("raw"))                   # what `testbed build` and, with TOFU, `testbed tofu` read
    verify(Path("raw"), held_out=True)    # and what the held-out files and the scorers' checks are made from

Nothing is fetched: get each file from its repository at the commit given here and put it below `raw`, as FOLDER/NAME.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..config import UserError


@dataclass(frozen=True)
class Source:
    """One data set.

    Args:
        folder: its folder below the data folder.
        origin: public repository; commit: the revision that the files were taken from.
        licence: of the data, not of the repository that carries it.
        files: (name, path in the repository, SHA-256) of each file that is read.
        held_out: read only for the held-out files and the scorers' checks, not by `testbed build`.
    """

    folder: str
    origin: str
    commit: str
    licence: str
    files: tuple[tuple[str, str, str], ...]
    held_out: bool = False


SOURCES = (
    Source(
        "tox_paradetox",
        "github.com/s-nlp/paradetox",
        "d97b17d0813539cf05c74f9cdb5e66372704ca57",
        "CC0-1.0",
        (
            ("paradetox.tsv", "paradetox/paradetox.tsv", "6e5e80def7deaf4a3410f7de6c638c13f100ce5ece09ee84a47f6f14ab69a0cd"),
            (
                "paradetox_cannot_rewrite.tsv",
                "paradetox/paradetox_cannot_rewrite.tsv",
                "d3dbe41d0a20e1f2df76ed487d424e35555b81d88d80b28f81fa0f793197971b",
            ),
        ),
    ),
    Source(
        "tox_civil_comments_toxic_spans",
        "github.com/ipavlopoulos/toxic_spans",
        "beaf170538df8275c3447b2e26070f2f82e55272",
        "CC0-1.0",
        (
            ("comments.csv", "data/comments.csv", "76cd6ebd10a890d269c0a7e5e451f3da12375219906f314fd9cfb1e18b1a905f"),
            ("annotations.csv", "data/annotations.csv", "f67725aa9de73cd4ef9050222f6ae985ef0e33e8da89cb8137ffeb9a1d0fc32b"),
            ("spans.csv", "data/spans.csv", "389c6964db5d96d79ecfe038aa4ffe04abafd64b6d6427fbad4ec7fb2c7672aa"),
            ("tsd_test.csv", "SemEval2021/data/tsd_test.csv", "74f4dd086667fdad6198539ff9201d1f25f3a94c5169da1e7643a949974bf6b8"),
        ),
    ),
    Source(
        "tox_wikipedia_context",
        "github.com/ipavlopoulos/context_toxicity",
        "5df49c294e6a41f0ba351e65fda7c315aa4cc168",
        "Apache-2.0",
        (
            ("gn.csv", "data/CAT_LARGE/gn.csv", "def84ddcff46dfd628e3d37c9c81b9cb81d7cf35e82197212a5758c0d24fb667"),
            ("gc.csv", "data/CAT_LARGE/gc.csv", "7939002c35bfdaf4c406e8fb7e206dfe5a6801b24f60bf6faa51442a26701dea"),
            ("cat_small.csv", "data/CAT_SMALL/cat_small.csv", "32ccd4a9ed4d4d294542d175c40002922f1b8081a450d222a07d7cb8c1d33f6e"),
        ),
    ),
    Source(
        "ner_fewnerd_resplit",
        "github.com/antonioloison/structshot",
        "e5549d081eee8bc7d452074228e038135aa86f5f",
        "CC-BY-SA-4.0",
        (
            ("dev.txt", "data/fewnerd/dev.txt", "79c5e0f708ea4fd8ca70caed0504c7b49e02f82f9c2dd5ebb4a5f701f6681767"),
            ("test.txt", "data/fewnerd/test.txt", "fa426070828fdadfb70bbd1647ed3c96931bf225760ecc2cf580428cb847f80d"),
            ("big_test.txt", "data/fewnerd/big_test.txt", "70611158191dd852d36d4074b020a8c9f14a0d0b9557fdd1e147a0f47a2196b2"),
        ),
    ),
    Source(
        "text_wikitext103_tokens",
        "github.com/thunlp/RobTest",
        "5e9cd37d8a57746093f12b56a3d5e9190a5785ba",
        "CC-BY-SA-3.0",
        (
            (
                "wiki.valid.tokens",
                "src/data/wikitext-103/wiki.valid.tokens",
                "9aee9f52d6e77de6c7751fc5e7c44287db3ec0eaf15477098acc6b93c1c4250b",
            ),
        ),
    ),
    Source(
        "instr_dolly_3k",
        "github.com/gpt4life/alpagasus",
        "95ad3e52510df8c0a2f0dd6cbe50b501acde83a1",
        "CC-BY-SA-3.0",
        (
            ("dolly_3k.json", "data/filtered/dolly_3k.json", "cb8d16e85ec217a53587c96596a1e8971b8d72a2fd9d5bc23a2dd3d57b59eeea"),
        ),
    ),
    Source(
        "instr_gpteacher_roleplay",
        "github.com/gururise/AlpacaDataCleaned",
        "791174f63efa9aa54ca6c38639dc6e5bb5657d80",
        "MIT",
        (
            (
                "roleplay-simple-deduped-roleplay-dataset.json",
                "dataset_extensions/GPTeacher/Roleplay/roleplay-simple-deduped-roleplay-dataset.json",
                "785ab4e1d48148e2ef73515f857e512504ed303a04075adf4951d2ef552567f2",
            ),
        ),
    ),
    Source(
        "instr_selfinstruct",
        "github.com/yizhongw/self-instruct",
        "0b26ccaa415992100fa32df62d41b994cf928e23",
        "Apache-2.0",
        (
            ("seed_tasks.jsonl", "data/seed_tasks.jsonl", "7779004fa198fdf27cf70a159363879d8a26c53329e11b436af17b3941875f48"),
            (
                "user_oriented_instructions.jsonl",
                "human_eval/user_oriented_instructions.jsonl",
                "81d60a117db495cecedecd9193504fd07c5b5a42f6699ef6b0f9da10fc22f42e",
            ),
        ),
    ),
    Source(
        "text_wikitext2_raw_test",
        "github.com/Tylogi/TyloQuant",
        "7989d038b13ca737da11a95fb90e77ae059f33c0",
        "CC-BY-SA-3.0",
        (
            (
                "wiki.test.raw",
                "data/wikitext-2-raw/wiki.test.raw",
                "4f3e427e4aff23acff917a8a51aeae21bf12832256e26914c8fc250dcef4103c",
            ),
        ),
        held_out=True,
    ),
    Source(
        "ner_wnut17",
        "github.com/leondz/emerging_entities_17",
        "e52a2d2a71ac1a051ca2d532eef28653c5c02603",
        "CC-BY-4.0",
        (
            ("emerging.dev.conll", "emerging.dev.conll", "e053b752b8155113ca66e7db08af5f2f5f43ab993694e4774f1ec5bad42312d8"),
            ("emerging.test.annotated", "emerging.test.annotated", "2aa79b764e56ec9264a1b30fdd9b70195bd00ff400b62edd8f399d5f13c178f0"),
        ),
        held_out=True,
    ),
    Source(
        "tox_rtp_quark_val",
        "github.com/GXimingLu/Quark",
        "30c9a0fe022b7d006b826abec2eb5d3ac288e637",
        "Apache-2.0",
        (
            ("val.jsonl", "data/toxicity/val.jsonl", "e04b11a04505777e3fdf6e31c74edec623033d8808290745ce0f211ddaf380a7"),
        ),
        held_out=True,
    ),
)


TOFU = Source(
    "tofu",
    "github.com/licong-lin/negative-preference-optimization",
    "1207bbe9a1abf502bc2d7b43a0a467d9524b4036",
    "MIT",
    (
        (
            "full.json",
            "TOFU/TOFU_data/full.json",
            "667baef2f26f781f1328701d8ea54bf25123ff22fb2d98574c96cd991cb54086",
        ),
        (
            "real_authors.json",
            "TOFU/TOFU_data/real_authors.json",
            "5ed86f884ecbefc3a5db0b9dfe84ab3db710690c74d9402c0acc14bc3dd5a4b7",
        ),
        (
            "world_facts.json",
            "TOFU/TOFU_data/world_facts.json",
            "5547b07340f46755b868a525941341c3d93814b5370ae7fa10143f653a3c7033",
        ),
        (
            "forget10_perturbed.json",
            "TOFU/TOFU_data/forget10_perturbed.json",
            "6fbcb946c57ea1d7b2124cea0e61bf3b5409d1bc10d02368f090109450ed73c7",
        ),
        (
            "retain_perturbed.json",
            "TOFU/TOFU_data/retain_perturbed.json",
            "fc69f33bad70d3dca65920bdb54380039e3e8872dd16bbae20c1a839b99533fb",
        ),
        (
            "real_authors_perturbed.json",
            "TOFU/TOFU_data/real_authors_perturbed.json",
            "a23255383ac75a5fbe5acd57622a03fb9c368954fd7b2428afa152b784d9533a",
        ),
        (
            "world_facts_perturbed.json",
            "TOFU/TOFU_data/world_facts_perturbed.json",
            "0e171838040d0ec94b1ce248d891508e85e3b77344370077caa27b61898eb3e1",
        ),
    ),
)
"""Of github.com/locuslab/tofu (Maini et al. 2024, arXiv:2401.06121), whose licence this is. For `testbed tofu` and the knowledge task."""


def verify(data: Path, held_out: bool = False) -> None:
    """Checks that every file is below `data` and unchanged.

    Raises:
        UserError: names the first file that is missing or differs, and where it comes from.
    """
    for source in SOURCES:
        if held_out or not source.held_out:
            verify_source(source, data)


def verify_source(source: Source, data: Path) -> None:
    """As `verify`, of one set."""
    for name, path, digest in source.files:
        file, origin = data / source.folder / name, f"{path} of {source.origin} at commit {source.commit}"
        if not file.is_file():
            raise UserError(f"no {source.folder}/{name} in {data}: it is {origin}")
        if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise UserError(f"{file} is not the file that the testbeds were made from: it is {origin}")
