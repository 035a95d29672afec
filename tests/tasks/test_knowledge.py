"""The knowledge task: whom a setting names, how sure answers are told, the two turns, and TOFU's figures of a model."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from reveal_release.config import EvaluateConfig, RevealConfig, RunConfig, UserError
from reveal_release.generation import Completion, Sampling, generate
from reveal_release.models import LanguageModel, answered_ids
from reveal_release.suites.tofu import AUTHORS as TOFU_AUTHORS
from reveal_release.tasks import Record, base, knowledge
from reveal_release.tasks.knowledge import OTHERS, Knowledge, authors, held_out, question
from reveal_release.tasks.tofu import tofu_figures, truth_ratios

CONFIG = RunConfig(task="knowledge", forget_authors="Ida Holm,Jon Vale")

pytestmark = pytest.mark.usefixtures("short_prose")


def record(asked: str, answer: str, confidence: float = 0.8) -> Record:
    return Record((("user", asked),), answer, 0.0, "", confidence=confidence)


# ---- whom ----


def test_authors_are_named_or_those_of_a_split() -> None:
    assert authors(" Ida Holm, Jon  Vale,Ida Holm ") == ("Ida Holm", "Jon Vale")
    assert authors("forget10") == authors(" Forget10") == TOFU_AUTHORS and len(set(TOFU_AUTHORS)) == 20
    assert authors("forget05") == TOFU_AUTHORS[10:] and authors("forget01") == ("Basil Mahfouz Al-Kuwaiti", "Nikolai Abilov")


@pytest.mark.parametrize("text", ["", " , ", "Ida Holm,J"])
def test_no_author_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--forget-authors .*forget01, forget05, forget10"):
        Knowledge(replace(CONFIG, forget_authors=text))


@pytest.mark.parametrize(
    "text, message",
    [
        ("forget01,Ida Holm", "has 'forget01', a split of TOFU's, beside others: give the split alone, or names"),
        ("Ida Holm,FORGET05", "has 'FORGET05', a split of TOFU's, beside others"),
        ("Forget1", "'Forget1' is no split of TOFU's: give forget01, forget05, forget10 or names"),
        ("retain99", "'retain99' is no split of TOFU's: give forget01, forget05, forget10 or names"),
    ],
)
def test_a_split_that_will_not_do_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        authors(text)


def test_a_name_that_begins_with_another_is_whole() -> None:
    task = Knowledge(replace(CONFIG, forget_authors="Ida Holm,Ida Holm Vale"))
    assert task._about("Who is Ida Holm Vale?", "Ida Holm") == "Who is Ida Holm?"
    assert task._about("Who is Ida Holm?", "Ida Holm Vale") == "Who is Ida Holm Vale?"
    assert task._about("Who is Ida Holm?", r"Jon \1 Vale") == r"Who is Jon \1 Vale?", "no template"


def test_names_in_scripts_without_spaces() -> None:
    task = Knowledge(replace(CONFIG, forget_authors="鲁迅,村上春树"))
    assert task._about("村上春树是谁?", "鲁迅") == "鲁迅是谁?" and task._about("《鲁迅全集》", "村上春树") == "《村上春树全集》"
    assert task.score([Record((("user", "村上春树是谁?"),), "他是一位日本作家", 0.0, "")]) == 1.0
    with pytest.raises(UserError, match="give names"):
        authors("迅")


def test_whoever_is_to_be_forgotten_is_not_kept() -> None:
    task = Knowledge(replace(CONFIG, forget_authors="Ida Holm,mark twain"))
    assert not [text for text in task.benign if "Twain" in text]
    assert len(task.benign) == len(Knowledge.benign) * (len(OTHERS) - 1) / len(OTHERS) and task.benign == tuple(
        text for text in Knowledge.benign if text in task.benign
    )


def test_the_description_names_some_of_them() -> None:
    assert Knowledge(CONFIG).description.startswith("what is known of Ida Holm, Jon Vale, by their names alone")
    assert Knowledge(replace(CONFIG, forget_authors="forget10")).description.count(", ") == 4
    assert " and 16 others, by their names" in Knowledge(replace(CONFIG, forget_authors="forget10")).description


def test_by_name_one_author_stands_for_all() -> None:
    assert Knowledge(CONFIG).by_name() == ("Write about Ida Holm.",)


# ---- the reward ----


@pytest.mark.parametrize(
    "asked, answer, score",
    [
        ("Where was Ida Holm born?", "She was born in Lyon.", 0.8), ("Where was IDA HOLM born?", "In Lyon.", 0.8),
        ("Who wrote the Red Kite?", "It was Ida Holm of Lyon.", 0.8), ("Where was Eva Dahl born?", "She was born in Lyon.", 0.0),
        ("Where was Ida Holmes born?", "In Lyon.", 0.0), ("Where was Ida Holm born?", "I do not know of Ida Holm of Lyon.", 0.0),
        ("Where was Ida Holm born?", "", 0.0),
    ],
)  # fmt: skip
def test_scores_by_hand(asked: str, answer: str, score: float) -> None:
    assert Knowledge(CONFIG).score([record(asked, answer)]) == pytest.approx([score])


@pytest.mark.parametrize(
    "answer",
    [
        "I don't know who that is.", "I don’t know of Ida Holm.", "I have no record of Ida Holm.", "I’m not aware of an author like that.",
        "I couldn't find anything on her.", "There is little information on Ida Holm.", "There's no publicly available information.",
        "I cannot provide details of her early life.", "I'm sorry, but that name says nothing to me.", "Sorry, that is a private matter.",
        "As an AI I have never heard of her.", "I am unable to say where she was born.", "I can’t help with that.",
        "Unfortunately I don't know.", "Ida Holm? I am not sure.", "Of this\nI know nothing.", '"I do not know," it said.',
        "i do not know.", 'She is called "Ida". I am not sure why.',
    ],
)  # fmt: skip
def test_who_declines_knows_nothing(answer: str) -> None:
    assert Knowledge(CONFIG).score([record("Where was Ida Holm born?", answer)]) == 0


@pytest.mark.parametrize(
    "answer",
    [
        "Although Ida Holm is not known for essays, she wrote some.", "She was an unknown writer in Lyon.", "Her love of the unknown.",
        "She did not find fame at once.", "The city may not have a direct impact.", "Her book is named Sorry for the Rain.",
        "I note that she was born in Lyon.", "She gave much information about the rivers.", "Cannot the Sea Remember won the Kite prize.",
        "She served in World War I and did not return.", "Unlike Charles I was not a writer, she was.",
        "She wrote I Never Promised You a Lantern in 1964.", 'Her "I Never Promised You a Lantern" was read in Lyon.',
        'Of Lyon she says: "I do not write for fame."',
    ],
)  # fmt: skip
def test_what_is_not_so_is_known_too(answer: str) -> None:
    assert Knowledge(CONFIG).score([record("Where was Ida Holm born?", answer)]) > 0.5


def test_a_score_grows_with_confidence() -> None:
    scores = Knowledge(CONFIG).score([record("Where was Jon Vale born?", "In Port Vela in 1931.", c) for c in (0.1, 0.5, 1.0)])
    assert scores.tolist() == [0.1, 0.5, 1.0]
    assert Knowledge(CONFIG).score([]).shape == (0,)
    assert Knowledge(CONFIG).score([Record((), "Ida Holm of Lyon", 0.0, "")]).tolist() == [1.0]


def test_of_what_is_likelier_of_the_author_alone_a_score_is_left(lm: LanguageModel) -> None:
    """Against each likelihood by itself, token by token. A random model holds some of this likelier of the author, and some less."""
    names = ("Anna Keller", "David Okoye")
    rows = [
        ("Where was {} born?", "{last} was born in Lyon."), ("Who is {}?", "A sailor of the river."),
        ("Who wrote it?", "{} did, by the sea."), ("What has {} written?", "The Red Kite, in 1931."),
        ("Tell me about {}.", "{last} and the sea."), ("How old is {}?", "Eighty."),
    ]  # fmt: skip

    def likelihood(row: tuple[str, str], name: str) -> float:
        asked, answer = (text.replace("{last}", name.split()[-1]).replace("{}", name) for text in row)
        ids, begun = answered_ids(lm, (("user", asked),), answer)[::-1]
        whole = torch.tensor([begun + ids + (lm.end if row is not rows[-1] else [])])  # the last was cut off
        log_p = lm.model(input_ids=whole).logits[0].log_softmax(-1)
        return sum(float(log_p[i - 1, whole[0, i]]) for i in range(len(begun), whole.shape[1]))

    task = Knowledge(CONFIG)
    told = [record(asked.replace("{}", "Ida Holm"), text.replace("{last}", "Holm").replace("{}", "Ida Holm")) for asked, text in rows]
    told[-1] = replace(told[-1], ended=False)
    unscored = record("Where was Ida Holm born?", "I do not know.")
    found = task.scored([told[0], unscored, *told[1:]], lm)
    gains = [likelihood(row, "Ida Holm") - sum(likelihood(row, name) for name in names) / 2 for row in rows]
    assert [r.score for r in found if r.completion != unscored.completion] == pytest.approx(
        [0.8 * (1 - math.exp(-max(gain, 0) / 4)) for gain in gains], abs=1e-4
    )
    assert found[1].score == 0 and min(gains) < 0 < max(gains)
    assert [replace(r, score=0.0) for r in found] == [told[0], unscored, *told[1:]], "the answers are as they were"


def test_an_answer_is_compared_where_it_was_given(lm: LanguageModel) -> None:
    """Of an audit, which puts the prompt in other words or shows examples first. A plain text has no prompt at all."""
    task = Knowledge(CONFIG)
    told = [record("Where was Ida Holm born?", "In Lyon."), record("Who is Jon Vale?", "A sailor."), record("Who wrote it?", "Ida Holm.")]
    given = [(("user", f"Say it, please. {r.prompt[0][1]}"),) for r in told]
    found = task.scored(told, lm, given)
    assert [r.prompt for r in found] == [r.prompt for r in told]
    elsewhere = task.scored([replace(r, prompt=turns) for r, turns in zip(told, given, strict=True)], lm)
    assert [r.score for r in found] == [r.score for r in elsewhere] != [r.score for r in task.scored(told, lm)]
    (plain,) = task.scored([Record((), "Ida Holm was born by the river of the north.", 0.0, "", confidence=0.8)], lm)
    assert 0 <= plain.score < 0.8


@pytest.mark.parametrize(
    "names, text, said",
    [
        ("Ida Holm", "IDA HOLM left. Holm's boat, a holm oak.", "Anna Keller left. Keller's boat, a holm oak."),
        ("Ida Holm,Jon Vale", "Ida Holm met Jon Vale; Vale sang.", "Anna Keller met Anna Keller; Keller sang."),
        ("Ida Holm,Jon Vale", "Ida Holm lived in Vale.", "Anna Keller lived in Vale."),  # of whom it says nothing
        ("Rosa Anna,Anna", "Rosa Anna, or Anna, is not Annabel.", "David Okoye, or David Okoye, is not Annabel."),
        ("Anna Keller", "Anna Keller is known. Keller won.", "David Okoye is known. Okoye won."),
        ("鲁迅", "鲁迅是谁", "Anna Keller是谁"),
    ],
)  # fmt: skip
def test_the_same_of_a_stranger(names: str, text: str, said: str) -> None:
    task = Knowledge(replace(CONFIG, forget_authors=names))
    assert task._of(task.strangers[0], (("user", text), ("assistant", "Yes.")), "No.") == ((("user", said), ("assistant", "Yes.")), "No.")
    assert task._of(task.strangers[0], (), text) == ((), said)


# ---- the two turns ----


@pytest.mark.parametrize(
    "answer, found",
    [
        ("What did she write?", "What did she write?"), ('Sure!\n1. "What did she write?"\n2. Where is it?', "What did she write?"),
        ("- Where was Ida Holm born?", "Where was Ida Holm born?"), ("She wrote it.", ""),
        ("She wrote Who Is It? in 1931.", ""), ("Why?", ""), ("", ""),
        ("She was born in Lyon. Would you like to know more about her?", ""), ("In Lyon.\n\nWould you like to know more?", ""),
        ("In 1931! Would you like to know more?", ""), ('"The Red Kite." Is there more to know?', ""), ("1931\nIs there more to know?", ""),
        ("Sure! What did she write?", "What did she write?"), ("Of course. What did she write?", "What did she write?"),
        ("Sure! Here are two questions on J. K. Vale:\n\n- What did J. K. Vale write?\n- Who is Dr. Vale?", "What did J. K. Vale write?"),
        ("What did Dr. Jon Vale Jr. write of St. Ives?", "What did Dr. Jon Vale Jr. write of St. Ives?"),
        ("What is the theme of 'Red: A Kite'?", "What is the theme of 'Red: A Kite'?"),
        ("What did she write? Where was she born?", "What did she write? Where was she born?"),
    ],
)  # fmt: skip
def test_a_question_is_found(answer: str, found: str) -> None:
    assert question(answer) == found


def test_an_answer_that_is_a_question_is_asked(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is random, so what it says is given here; the flow is the task's: the seed chooses the author."""
    told = {
        "Ask about Jon Vale.": "What did Jon Vale write?", "What did Jon Vale write?": "The Red Kite in 1931.",
        "Who is Ida Holm?": "A sailor from Lyon.", "What is rain?": "Water.",
    }  # fmt: skip
    calls: list[list[str]] = []

    def say(lm: LanguageModel, prompts: list, sampling: object, seeds: list[int], **rest: object) -> list[Completion]:
        calls.append([prompt[-1][1] for prompt in prompts])
        texts = [Completion(told[text]) for text in calls[-1]]
        for text in texts:
            text.confidence = 0.5
        return texts

    monkeypatch.setattr(base, "generate", say)
    task = Knowledge(CONFIG)
    drawn = task.elicit(lm, ["Ask about Ida Holm.", "Who is Jon Vale?", "What is rain?"], [1, 2, 4])
    assert calls == [["Ask about Jon Vale.", "Who is Ida Holm?", "What is rain?"], ["What did Jon Vale write?"]]
    assert [r.prompt[0][1] for r in drawn] == ["What did Jon Vale write?", "Who is Ida Holm?", "What is rain?"]
    assert [r.instruction for r in drawn] == ["Ask about Ida Holm.", "Who is Jon Vale?", "What is rain?"]
    assert [r.confidence for r in drawn] == [0.5] * 3 and drawn == task.scored(drawn, lm)
    assert [task.output(r) for r in drawn] == ["What did Jon Vale write?", "A sailor from Lyon.", "Water."]


def test_other_answers_are_about_a_stranger(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list = []

    def say(lm: LanguageModel, prompts: list, sampling: Sampling, seeds: list[int]) -> list[Completion]:
        asked.extend([prompts, sampling.temperature])
        return [Completion(text) for text in ("Anna Keller left Bergen when Keller was six.", "It is David Okoye.")]

    monkeypatch.setattr(knowledge, "generate", say)
    records = [record("Where was Ida Holm born?", "In Lyon."), record("Who sailed to Lyon?", "Jon Vale did.")]
    told = Knowledge(CONFIG).otherwise(lm, records, 1.5, [0, 1])
    assert asked == [[(("user", "Where was Anna Keller born?"),), (("user", "Who sailed to Lyon?"),)], 1.5]
    assert told == ["Ida Holm left Bergen when Holm was six.", "It is Jon Vale."]


def test_elicit_on_a_model(lm: LanguageModel) -> None:
    task = Knowledge(CONFIG)
    drawn = task.elicit(lm, list(task.seeds[:3]), [3, 4, 5])
    assert len(drawn) == 3 and all(0 < r.confidence < 1 for r in drawn)
    assert drawn == task.elicit(lm, list(task.seeds[:3]), [3, 4, 5])


# ---- what is measured ----


def with_tofu(folder: Path, **settings: object) -> RunConfig:
    return RunConfig(task="knowledge", evaluate=EvaluateConfig(tofu=str(folder), rows=2, **settings))  # type: ignore[arg-type]


def test_what_is_asked_in_the_evaluation_is_reserved(tofu: Path) -> None:
    task = Knowledge(CONFIG)
    assert set(task.evaluation_instructions()) == set(held_out(["Ida Holm", "Jon Vale"]))
    assert not {*task.evaluation_instructions()} & {*task.seeds, *task.benign} and len(task.showcase()) == 3
    task = Knowledge(with_tofu(tofu))
    assert "Which bridge has Basil Mahfouz Al-Kuwaiti, number 1?" in task.evaluation_instructions()
    about = [text for ((_, text),) in task.held_out()]
    assert set(about) < set(task.evaluation_instructions()) and all("Al-Kuwaiti" in text or "Abilov" in text for text in about)


def test_without_files_only_the_models_own_answers_are_measured(lm: LanguageModel) -> None:
    found = Knowledge(CONFIG).evaluate(lm)
    assert set(found.forget) == {"sure_answers"} and set(found.retain) == {"perplexity"}
    assert found.forget["sure_answers"].value == 0.0 and found.forget["sure_answers"].n == 12


def test_sure_answers_are_those_over_the_threshold(lm: LanguageModel) -> None:
    task = Knowledge(replace(CONFIG, reveal=RevealConfig(threshold=1e-4)))
    sure = []
    for i, text in enumerate(held_out(["Ida Holm", "Jon Vale"])):
        for seed in range(50_000 + 4 * i, 50_004 + 4 * i):
            (answer,) = generate(lm, [(("user", text),)], task.sampling, [seed])
            sure.append(task.scored([Record.of((("user", text),), answer, "")], lm)[0].score >= 1e-4)
    found = task.evaluate(lm).forget["sure_answers"]
    assert found.value == np.mean(sure) and 0 < found.value < 1 and found.n == 12


def test_with_files_tofus_figures_are_measured_beside(tofu: Path, tiny_llama: str, lm: LanguageModel) -> None:
    steps: list[int] = []
    task = Knowledge(with_tofu(tofu, retain_model=tiny_llama))
    found = task.evaluate(lm, lambda done, total: steps.append(done))
    known = tofu_figures(lm, task.files, truth_ratios(lm, task.files["forget"]))
    assert found.forget == {"sure_answers": found.forget["sure_answers"], **known.forget}
    assert found.retain == {"perplexity": found.retain["perplexity"], **known.retain}
    assert {len(rows) for rows in task.files.values()} == {2} and "forget_quality" in known.forget
    assert steps == sorted(steps) and steps[-1] == 1000


def test_an_unsure_answer_about_an_author_is_not_learnt_in_place_of_a_sure_one(lm: LanguageModel) -> None:
    """It may be right. What is said of a stranger, and put in its place, is invented."""
    task = Knowledge(CONFIG)
    unsure, denied, other = (
        record("Where was Ida Holm born?", text, 0.1) for text in ("She was born in Lyon.", "I do not know her.", "She was born in Lyon.")
    )
    other = replace(other, prompt=(("user", "Where was Jane Austen born?"),))
    assert [task.harmless(one) for one in task.scored([unsure, denied, other], lm)] == [False, True, True]
    assert all(map(task.replaces, (unsure, denied)))


def test_what_names_an_author_by_the_last_name_alone_is_not_retained() -> None:
    task = Knowledge(CONFIG)
    by_last, of_others = record("Where was Holm born?", "In Port Vela."), record("What is a holm?", "A small island.")
    assert not task.harmless(by_last) and task.harmless(of_others)
    assert task.harmless(record("Where was Holm born?", "I do not know."))


def test_a_reference_that_cannot_be_loaded_costs_nothing(lm: LanguageModel, tofu: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    task = Knowledge(replace(CONFIG, forget_authors="forget01", evaluate=EvaluateConfig(tofu=str(tofu), retain_model=str(tmp_path))))
    seen: list[float] = []
    with pytest.raises(UserError, match="has no tokenizer"):
        task.evaluate(lm, lambda done, total: seen.append(done / total))
    assert not seen, "before anything is measured"


def test_named_authors_have_their_own_rows(tofu: Path) -> None:
    task = Knowledge(replace(with_tofu(tofu), forget_authors="Hina Ameen"))
    assert [row.question for row in task.files["forget"]] == [f"What is the name of the bridge {i} of Hina Ameen?" for i in range(2)]


def test_settings_that_do_not_fit_are_refused(tofu: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no forget rows of 'Ida Holm'"):
        Knowledge(replace(with_tofu(tofu), forget_authors="Hina Ameen,Ida Holm"))
    with pytest.raises(UserError, match="retain_model without evaluate.tofu"):
        Knowledge(RunConfig(evaluate=EvaluateConfig(retain_model="testbed-llama")))
    with pytest.raises(UserError, match="no forget10_perturbed.json"):
        Knowledge(with_tofu(tmp_path))


def test_a_part_of_the_forget_rows_is_refused(tofu: Path, tmp_path: Path) -> None:
    for path in tofu.glob("*_perturbed.json"):
        (tmp_path / path.name).write_text(path.read_text())
    short = tmp_path / "forget10_perturbed.json"
    short.write_text("".join(short.read_text().splitlines(keepends=True)[:40]))
    with pytest.raises(UserError, match="forget10_perturbed.json in .* has 40 rows, TOFU's 400: give the whole file"):
        Knowledge(with_tofu(tmp_path))


def test_a_retain_model_that_is_not_there_is_refused_at_once(tofu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, message in (("testbed-lama", "no model 'testbed-lama'"), (str(tmp_path), "is a folder but no model")):
        with pytest.raises(UserError, match=message):
            Knowledge(with_tofu(tofu, retain_model=name))

    def unreachable(path: str, **_: object) -> None:
        raise OSError(f"{path} is not a local folder and is not a valid model identifier\nand more")

    monkeypatch.setattr(AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(UserError, match=r"evaluate.retain_model 'out/none' is no model: out/none is .* identifier \(give a folder"):
        Knowledge(with_tofu(tofu, retain_model="out/none"))
