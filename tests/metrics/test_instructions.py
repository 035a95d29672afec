"""The instructions in an answer: lists of any style, lead-ins, labels, quotes; and that nothing of an instruction is lost."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.metrics.instructions import instructions, spoken
from reveal_release.metrics.words import UNSPACED, words

letters = st.characters(categories=["L"]).filter(lambda letter: not re.match(f"[{UNSPACED}]", letter))
sentences = st.lists(st.text(letters, min_size=1, max_size=8), min_size=2, max_size=40).map(" ".join)
marks = st.sampled_from(["{}", "  {}", "{n}. {}", "{n}.{}", "{n}) {}", "({n}) {}", "{n}: {}", "- {}", "> {}", "> - {}", "* {}", "• {}",
                         '"{}",', '- "{}"', "{n}. **{}**", "**{n}. {}**", "**{n}.** {}", "{n}. “{}”", "`{}`", "- {n}. {}",
                         "**Rewritten instruction:** {}", '{n}. The instruction was likely: "{}"', "Instruction: {}"])  # fmt: skip


@given(st.lists(st.tuples(sentences, marks), min_size=1, max_size=8), st.sampled_from(["\n", "\n\n", "\r\n"]))
def test_lists_of_any_style(items: list[tuple[str, str]], between: str) -> None:
    lines = [mark.format(text, n=n) for n, (text, mark) in enumerate(items, 1)]
    talk = ["<think>Let me see: they sing.\n1. No.</think>", "Here are some instructions:", "```", "# A list", *lines, "```", "OK."]
    assert instructions(between.join(talk)) == [text for text, _ in items]


@given(st.text())
def test_any_text_gives_lines_of_it(text: str) -> None:
    for line in instructions(text):
        assert line in text and 2 <= len(words(line)) <= 40 and len(line.splitlines()) == 1 and line == line.strip()


@pytest.mark.parametrize("line", ["12:30 is late, say so.", "3.14 is pi, explain.", "Say 'no'.", '"Yes" or "no": say', "2 words",
                                  "Write an instruction: be short.", "Follow this instruction: sing."])  # fmt: skip
def test_what_belongs_to_an_instruction_stays(line: str) -> None:
    assert instructions(line) == [line]


@pytest.mark.parametrize(
    "answer",
    [
        'Here is a rewritten version of the instruction:\n\n"Name a river."', "**Rewritten instruction:**\n\nName a river.",
        "Sure! Here's the instruction in other words:\n\n> Name a river.", "Certainly!\n\n1. Name a river.\n2. Say it again.",
        'The original instruction might have been: "Name a river."', "<think>\nA river.\n</think>\n\n**Name a river.**",
        'Here is the rewritten instruction: "Name a river."', "Here's a rewritten version: Name a river.", "**Revised:** Name a river.",
        'Reworded: "Name a river."', "**Rewritten Instruction**\n\nName a river.",
        "Sure! Here is the instruction in other words: Name a river.",
    ],
)  # fmt: skip
def test_the_first_of_what_a_chat_model_says(answer: str) -> None:
    assert spoken(answer)[0] == instructions(answer)[0] == "Name a river."


@pytest.mark.parametrize(
    "answer", ["", "<think>\nOkay, the user wants me to", "Sure! Here it is:", "**Rewritten instruction**", "Certainly!"]
)
def test_talk_alone_holds_none(answer: str) -> None:
    assert spoken(answer) == []


@pytest.mark.parametrize("line", ["def add(a, b):", "Complete this text: it was", "A new version of the song is out: sing it."])
def test_what_has_a_colon_of_its_own_stays(line: str) -> None:
    assert spoken(f"{line}\n    and on") == [line, "and on"]


def test_what_is_said_may_be_longer_than_what_is_tried() -> None:
    long = "word " * 40 + "end"
    assert spoken(f"Here it is:\n{long}") == [long] and instructions(long) == []
