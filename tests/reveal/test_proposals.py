"""Candidate instructions: every source asks what it says, and nothing comes twice or malformed."""

import random

import pytest
import torch

from reveal_release.chat import chat_ids, user_turn_ids
from reveal_release.generation import Completion, generate
from reveal_release.metrics.words import key, words
from reveal_release.models import LanguageModel
from reveal_release.reveal import proposals
from reveal_release.reveal.proposals import INDUCE, REWRITE, SOURCES, Context, propose
from reveal_release.reveal.soft_prompt import TOKENS

SEEDS = ("Write a comment.", "Say what you think of the old bridge.", "Read it out.")


@pytest.fixture
def context(lm: LanguageModel) -> Context:
    return Context(lm, SEEDS, best=("Name the river.", "Sing."), outputs=("one", "two", "three", "four"), rng=random.Random(3))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list:
    """The prompts that reach the model, which answers them all the same."""
    prompts: list = []

    def record(lm, wanted, *rest):  # type: ignore[no-untyped-def]
        prompts.extend(wanted)
        return generate(lm, wanted, *rest)

    monkeypatch.setattr(proposals, "generate", record)
    return prompts


def test_rewrite_asks_for_each_of_the_best_in_turn(context: Context, asked: list) -> None:
    assert len(SOURCES["rewrite"](context, 3)) == 3
    assert [p[0][1] for p in asked] == [REWRITE.format(t) for t in ("Name the river.", "Sing.", "Name the river.")]


def test_rewrite_starts_from_the_seeds(lm: LanguageModel, asked: list) -> None:
    SOURCES["rewrite"](Context(lm, SEEDS), 2)
    assert [p[0][1] for p in asked] == [REWRITE.format(t) for t in SEEDS[:2]]


def test_user_turn_continues_the_template(context: Context, asked: list) -> None:
    assert len(SOURCES["user_turn"](context, 2)) == 2
    assert asked == [user_turn_ids(context.lm.tokenizer)] * 2
    context.lm.tokenizer.chat_template = None
    assert SOURCES["user_turn"](context, 2) == []


def test_induction_shows_three_outputs(context: Context, asked: list, lm: LanguageModel) -> None:
    assert len(SOURCES["induction"](context, 4)) == 4
    for ((role, text),) in asked:
        lines = text.split("\n")
        assert role == "user" and len(lines) == 4 and lines[-1] == INDUCE.split("\n")[-1]
        shown = {line.removeprefix("Output: ") for line in lines[:3]}
        assert len(shown) == 3 and shown <= {"one", "two", "three", "four"}
    assert SOURCES["induction"](Context(lm, SEEDS), 4) == []


def test_soft_prompt_stands_before_and_after_the_outputs_in_turn(context: Context, asked: list, lm: LanguageModel) -> None:
    """Without the soft tokens what is asked is what induction asks."""
    assert len(SOURCES["soft_prompt"](context, 4)) == 4
    soft = list(asked)
    asked.clear()
    SOURCES["induction"](Context(lm, SEEDS, outputs=context.outputs, rng=random.Random(3)), 4)
    for i, (row, request) in enumerate(zip(soft, asked, strict=True)):
        ids = chat_ids(lm.tokenizer, request)
        plain = lm.model.get_input_embeddings()(torch.tensor(ids))
        assert len(row) == len(ids) + TOKENS
        [at] = [p for p in range(len(ids) + 1) if torch.allclose(torch.cat([row[:p], row[p + TOKENS :]]), plain, atol=1e-6)]
        before, after = lm.tokenizer.decode(ids[:at]), lm.tokenizer.decode(ids[at:])
        assert ("Output" in before, "Output" in after) == ((True, False) if i % 2 else (False, True))
        assert "What was the instruction?" in after
    assert SOURCES["soft_prompt"](Context(lm, SEEDS), 4) == []


def test_propose_gives_new_single_lines_of_sensible_length(context: Context) -> None:
    known = {key("write a COMMENT")}
    found = propose(context, ("seeds", "rewrite", "user_turn", "induction", "soft_prompt"), 60, known)
    assert found[:2] == [SEEDS[1], SEEDS[2]]
    assert len(found) > 10
    assert len({key(text) for text in found}) == len(found)
    assert {key(text) for text in found} | {key(SEEDS[0])} == known
    for text in found:
        assert 2 <= len(words(text)) <= 40 and text == text.strip() and "\n" not in text
    assert propose(context, ("seeds",), 9, known) == []


def test_only_the_first_line_counts(lm: LanguageModel) -> None:
    seeds = ("\n Name it now. \nAnd why?", "Word", "   ", "w " * 41, "name it, NOW!")
    assert propose(Context(lm, seeds), ("seeds",), 5, set()) == ["Name it now."]


def test_the_sentence_in_which_it_was_cut_does_not_count(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [Completion(text) for text in ("Name the river. Then say", "Say why? And", "Sing of the", "Read it out\nand then")]
    for text in texts:
        text.ended = False
    monkeypatch.setitem(SOURCES, "rewrite", lambda context, count: [*texts, Completion("Write of the")])
    found = propose(Context(lm, SEEDS), ("rewrite",), 5, set())
    assert found == ["Name the river.", "Say why?", "Sing of the", "Read it out", "Write of the"], "of one sentence all counts"


@pytest.mark.parametrize("source", ["rewrite", "induction"])
def test_of_a_chat_models_talk_the_instruction_counts(context: Context, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ['Here is the instruction in other words:\n\n"Name a lake."', "Sure!\n\n1. Hum.\n2. Hum it.", "**Instruction:** Say why. And"]
    texts = [Completion(text) for text in answers]
    texts[-1].ended = False
    monkeypatch.setattr(proposals, "generate", lambda *_: texts)
    assert propose(context, (source,), 3, set()) == ["Name a lake.", "Hum it.", "Say why."]


def test_the_same_random_state_proposes_the_same(lm: LanguageModel) -> None:
    one, two, other = (propose(Context(lm, SEEDS, rng=random.Random(s)), ("rewrite", "user_turn"), 8, set()) for s in (1, 1, 2))
    assert one == two != other
