"""What the terminal shows at the end of an audit, with hostile text in it."""

from typing import Any

import pytest

from reveal_release.report.audit import render_audit

from .conftest import console, estimate, shown


@pytest.fixture
def audited() -> dict[str, Any]:
    def attack(reward: float, share: float) -> dict[str, Any]:
        told = {"reward": estimate(reward, 0.03), "share": estimate(share, 0.03)}
        return {**told, "by_seed": [{"reward": estimate(reward, 0.03)}, {"reward": estimate(reward / 2, 0.03)}]}

    strongest = [{"instruction": "Ask [i]so[/i]\x1b[31m", "original": attack(0.8, 0.9), "released": attack(0.1, 0.02)}]
    return {
        "task": "toxicity", "model": "testbed-llama", "patch": "out/[b]patch", "output": "out/audit", "evaluations": 144,
        "seeds": [11, 12], "calls": {"original": 900, "released": 800}, "seconds": {"a": 62.0, "b": 3.0}, "strongest": strongest,
        "attacks": {
            "search": {"original": attack(0.8, 0.9), "released": attack(0.1, 0.02)},
            "few_shot": {"original": attack(0.7, 0.75), "released": attack(0.2, 0.125)},
            "prefix": {"original": attack(0.6, 0.55), "released": attack(0.15, 0.1), "control": estimate(0.06, 0.03)},
            "quantise": {
                "level": "4-bit weights", "original": attack(0.7, 0.7), "released": attack(0.3, 0.25),
                "before": {"released": attack(0.1, 0.02)},
                "levels": [{"level": f"{bits}-bit weights", "released": attack(0.1, share)} for bits, share in ((8, 0.03), (4, 0.25))],
            },
            "relearn": {
                "before": {side: attack(0.3, 0.2) for side in ("original", "released", "oracle")},
                "levels": [{"level": "100 harmless answers", **{side: attack(0.3, 0.4) for side in ("original", "released", "oracle")}}],
            },
        },
        "drawn_out": ["few_shot"], "verdict": "Still drawn out: by [i]examples[/i].",
    }  # fmt: skip


def test_an_audit_by_attack_then_the_instructions_then_the_verdict(audited: dict[str, Any]) -> None:
    screen = console()
    render_audit(audited, screen)
    text = shown(screen)
    assert "Audit: toxicity, testbed-llama with out/[b]patch" in text
    assert "2 searches of 144 instructions; 1 min 5 s in all\ncalls: 900 answers of the original, 800 of the released model\n" in text
    rows = {line[2:].split("  ")[0]: " ".join(line.split()) for line in text.splitlines() if line.startswith("  ")}
    assert rows["search 2, best"].endswith("best 0.40 [0.37, 0.43] 0.05 [0.02, 0.08]")
    assert rows["examples in the context"].endswith("context 0.70 [0.67, 0.73] 0.20 [0.17, 0.23] 75 % → 12 %")
    assert rows["first tokens given"].endswith("55 % → 10 %") and "The given tokens themselves score 0.06 [0.03, 0.09]." in text
    assert rows["4-bit weights"].endswith("70 % → 25 %")
    assert "Released, same prompts: before 2 %, 8-bit weights 3 %, 4-bit weights 25 %.\n" in text
    assert rows["nothing"].count("20 % [17, 23]") == rows["100 harmless answers"].count("40 % [37, 43]") == 3
    assert "0.80 [0.77, 0.83]  0.10 [0.07, 0.13]  Ask [i]so[/i]" in text
    assert text.index("Ask [i]so[/i]") < text.index("Still drawn out: by [i]examples[/i].") and "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_the_attacks_draw_out_of_an_oracle(audited: dict[str, Any]) -> None:
    asked = {"search": 0.01, "few_shot": 0.03}
    for name, value in asked.items():
        audited["attacks"][name]["oracle"] = {"share": estimate(value, 0.01)}
    audited["calls"] = {"original": 12345, "released": 23456, "oracle": 34567}
    screen = console()
    render_audit(audited, screen)
    lines = shown(screen).splitlines()
    table = lines[next(i for i, text in enumerate(lines) if "beside the oracle" in text) :]
    assert " ".join(table[0].split()).endswith("original released oracle")
    rows = [" ".join(text.split()) for text in table if text.startswith("  ")][:2]
    assert rows == [
        "best of all searches 90 % [87, 93] 2 % [-1, 5] 1 % [0, 2]",
        "examples in the context 75 % [72, 78] 12 % [10, 16] 3 % [2, 4]",
    ]
    assert "34567 of the oracle" in shown(screen) and max(map(len, lines)) <= 80


def test_an_attack_that_could_not_be_made(audited: dict[str, Any]) -> None:
    screen = console()
    render_audit({**audited, "attacks": {**audited["attacks"], "few_shot": None, "prefix": None, "relearn": None}}, screen)
    rows = [line.split() for line in shown(screen).splitlines() if line.startswith(("  examples", "  first", "  fine-tuning"))]
    assert [row[-3:] for row in rows] == [["–"] * 3] * 3 and "themselves" not in shown(screen)


@pytest.mark.parametrize(("part", "told"), [(0.03, True), (0.999, False)])
def test_how_much_was_rounded_where_it_is_not_nearly_all(part: float, told: bool, audited: dict[str, Any]) -> None:
    screen = console()
    audited["attacks"]["quantise"]["rounded"] = part
    render_audit(audited, screen)
    assert ("Rounded were 3 % of the blocks' weights" in shown(screen)) == told and "Rounded were 100" not in shown(screen)
