"""TOFU's files: what a row holds, and what is told of those that are not TOFU's."""

from pathlib import Path

import pytest

from reveal_release.config import UserError
from reveal_release.suites.tofu import Question, read


def test_rows_as_they_stand(tofu: Path) -> None:
    rows = read(tofu, "forget10_perturbed")
    assert len(rows) == 400 and rows[21].question == "What is the name of the bridge 1 of Carmen Montenegro?"
    assert rows[0].paraphrased == "Hsiao Yun-Hwa has the old bridge 0." and rows[0].perturbed[4] == "Hsiao Yun-Hwa has the new river 4."
    assert rows[0].paraphrased_question == "Which bridge has Hsiao Yun-Hwa, number 0?"
    assert read(tofu, "full")[0] == Question("What is the name of the bridge 0 of Ada Byron?", "It is the old bridge of Ada Byron and 0.")


def test_a_fact_is_its_own_paraphrase(tofu: Path) -> None:
    assert read(tofu, "world_facts_perturbed")[1] == Question("Where is the market 1?", "Town 1", "Town 1", ("North", "River", "Old"))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "has no rows: is it complete"),
        ('{"question": "Q?", "answer": "A"}', "line 1: no field 'perturbed_answer'"),
        ('{"question": "Q?", "answer": " "}', "line 1: 'answer' is no text"),
        ('{"question": "Q?", "answer": "A", "perturbed_answer": "B"}', "'perturbed_answer' is no list of texts"),
        ('{"question": "Q?", "answer": "A", "perturbed_answer": ["B"]}', "line 1: no field 'paraphrased_answer'"),
        ('{"question": "Q?", "answer": "A", "perturbed_answer": ["B"], "paraphrased_answer": "C"}', "no field 'paraphrased_question'"),
        ("\n".join(
            '{"question": "Q?", "answer": "A", "paraphrased_answer": "A", "paraphrased_question": "Q?", "perturbed_answer": ' + wrong
            for wrong in ('["B"]}', '["B", "C"]}')
        ), "different numbers of perturbed answers"),
    ],
)  # fmt: skip
def test_another_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "retain_perturbed.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read(tmp_path, "retain_perturbed")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no full.json in .*testbed sources"):
        read(tmp_path, "full")
