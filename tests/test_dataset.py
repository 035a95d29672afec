"""What is trained on and what is measured: no prompt is both, and rows are what the chat template makes of records."""

import random
from dataclasses import replace

from reveal_release.chat import chat_ids
from reveal_release.dataset import HELD_BACK, LEAST_RECORDS, Data, Rows, encode, measured_and_learnt, split
from reveal_release.models import LanguageModel
from reveal_release.tasks import Record


def records(kind: str, count: int) -> list[Record]:
    return [Record((("user", f"{kind} {i}"),), f"The river {i}.", 0.0, "") for i in range(count)]


def test_rows_by_their_part(lm: LanguageModel) -> None:
    forget, harmless, retain = records("write", 10), records("write", 4), records("say", 20)
    rows = Rows.of(lm, Data(forget, harmless, retain))
    assert (rows.forget, rows.harmless, rows.unanswered) == (encode(lm, forget), encode(lm, harmless), encode(lm, forget[4:]))
    assert (rows.measured, rows.retain) == (encode(lm, retain[:4]), encode(lm, retain[4:])) and len(rows.measured) == HELD_BACK * 20
    assert rows.lacking == ""


def test_what_is_trained_on_is_not_measured(lm: LanguageModel) -> None:
    retain, plain = records("say", 20), [Record((), f"The bridge {i}.", 0.0, "") for i in range(5)]
    harmless = [replace(retain[1], completion="Another river."), replace(plain[0], completion="Another bridge.")]
    rows = Rows.of(lm, Data(records("write", 10) + [replace(retain[0], completion="A worse river.")], harmless, plain[:2] + retain))
    assert rows.measured == encode(lm, plain[:2]), "of four, those with no prompt of their own"
    before = Rows.of(lm, Data(records("write", 10), [], retain), {retain[2].prompt, ()})
    assert before.measured == encode(lm, [retain[0], retain[1], retain[3]]), "nor what was trained on before; plain texts have no prompt"
    assert rows.retain == encode(lm, retain[2:]), "a harmless answer to the same prompt is no reason not to learn"


def test_too_few_of_either_are_told(lm: LanguageModel) -> None:
    enough = records("say", 2 * LEAST_RECORDS)
    assert Rows.of(lm, Data(enough[:LEAST_RECORDS], [], enough)).lacking == ""
    few = Rows.of(lm, Data(enough[: LEAST_RECORDS - 1], [], enough))
    assert few.lacking == f"{LEAST_RECORDS - 1} forget and {len(few.retain)} retain records, too few to train on"
    assert Rows.of(lm, Data(enough, [], enough[:LEAST_RECORDS])).lacking.endswith("too few to train on"), "some are measured"


def test_rows_are_prompt_answer_and_end(lm: LanguageModel) -> None:
    turns = (("user", "Name the river."), ("assistant", "The old one."), ("user", "And?"))
    (ids, prompt), (text, begin) = encode(lm, [Record(turns, "No other bridge.", 0.0, "And?"), Record((), "The river.", 0.0, "")])
    assert ids[:prompt] == chat_ids(lm.tokenizer, turns)
    assert lm.tokenizer.decode(ids[prompt:]) == "No other bridge.<|end|>"
    assert begin == 1 and lm.tokenizer.decode(text) == "<|bos|>The river.<|end|>"


def test_a_plain_text_without_a_token_to_begin_with_follows_its_own_first(lm: LanguageModel) -> None:
    lm.tokenizer.bos_token = lm.model.config.bos_token_id = None
    rows = encode(lm, [Record((), "The river.", 0.0, ""), Record((), "", 0.0, "")])
    assert [(lm.tokenizer.decode(ids), prompt) for ids, prompt in rows] == [("The river.<|end|>", 1)]


def test_rows_end_as_the_model_ends_its_turn(lm: LanguageModel) -> None:
    turn = lm.tokenizer.convert_tokens_to_ids("<|bos|>")
    lm.model.generation_config.eos_token_id = [lm.tokenizer.eos_token_id, turn]
    lm.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<|bos|>{% endfor %}"
    ((ids, _),) = encode(lm, [Record((("user", "a"),), "The river.", 0.0, "")])
    assert ids[-1:] == [turn] == lm.end


def test_a_plain_text_ends_as_texts_do_and_not_as_turns(lm: LanguageModel) -> None:
    """As in Qwen's, Llama 3's, Gemma's and Phi-3's models, which end both, the last with one that names who speaks besides."""
    turn, text, speaker = lm.tokenizer.eos_token_id, *lm.tokenizer.convert_tokens_to_ids(["<|pad|>", "<|bos|>"])
    lm.model.generation_config.eos_token_id = [turn, text]
    assert [ids[-1] for ids, _ in encode(lm, [Record((("user", "a"),), "b", 0.0, ""), Record((), "b", 0.0, "")])] == [turn, text]
    lm.model.generation_config.eos_token_id = [turn, speaker, text]
    lm.tokenizer.eos_token = "<|pad|>"
    phi = LanguageModel(lm.name, lm.path, lm.model, lm.tokenizer)
    assert (phi.end, phi.end_of_text) == ([turn], [text])


def test_rows_are_cut_and_a_prompt_without_answer_is_dropped(lm: LanguageModel) -> None:
    context = lm.context
    assert context
    long, fills, short = (Record((("user", "a b " * count),), "d e " * 50, 0.0, "") for count in (10, context, 1))
    rows = encode(lm, [long, fills, short], limit=24)
    prompts = [len(chat_ids(lm.tokenizer, record.prompt)) for record in (long, short)]
    assert [(len(ids), prompt) for ids, prompt in rows] == [(prompt + 24, prompt) for prompt in prompts]
    assert all(ids[-1] != lm.tokenizer.eos_token_id for ids, _ in rows), "cut short: the end is not taught there"
    (row,) = encode(lm, [long], limit=context)
    assert len(row[0]) == min(context, prompts[0] + len(lm.tokenizer("d e " * 50, add_special_tokens=False)["input_ids"]) + 1)


def test_what_was_cut_off_teaches_no_end(lm: LanguageModel) -> None:
    ended, cut = encode(lm, [Record((("user", "a"),), "The river.", 0.0, "", ended=ended) for ended in (True, False)])
    assert ended[0] == [*cut[0], lm.tokenizer.eos_token_id] and ended[1] == cut[1]


def test_split_keeps_the_records_of_a_prompt_together() -> None:
    records = [Record((("user", str(i % 7)),), f"t{i}", 0.0, "") for i in range(40)] + [Record((), f"p{i}", 0.0, "") for i in range(13)]
    first, rest = split(records, 0.25, 3)
    assert sorted(r.completion for r in first + rest) == sorted(r.completion for r in records)
    assert not {r.prompt for r in first if r.prompt} & {r.prompt for r in rest if r.prompt}
    assert len({r.prompt or r.completion for r in first}) == 5 and split(records, 0.0, 3)[0] == []


def test_of_few_prompts_one_is_held_back() -> None:
    for count, held in ((0, 0), (1, 0), (2, 1), (3, 1), (10, 2)):
        records = [Record((("user", str(i)),), f"t{i}{j}", 0.0, "") for i in range(count) for j in range(3)]
        assert len({r.prompt for r in split(records, 0.2, 0)[0]}) == held == len(measured_and_learnt(records, 0.2)[0])


def test_one_answer_to_each_prompt_is_measured_and_none_learnt() -> None:
    """In records in random order the prompts with many answers are among the first."""
    few = [Record((("user", f"own {i}"),), f"t{i}", 0.0, "") for i in range(60)]
    many = [Record((("user", f"benign {i % 3}"),), f"b{i}", 0.0, "") for i in range(60)]
    retain = random.Random(0).sample([*few, *many], 120)
    measured, learnt = measured_and_learnt(retain, 0.2)
    prompts = list(dict.fromkeys(r.prompt for r in retain))
    assert [r.prompt for r in measured] == prompts[:13] and all(r == next(o for o in retain if o.prompt == r.prompt) for r in measured)
    assert sum("benign" in r.prompt[0][1] for r in measured) == 3
    assert learnt == [r for r in retain if r.prompt not in prompts[:13]] and not [r for r in learnt if "benign" in r.prompt[0][1]]


def test_a_prompt_with_many_records_is_held_back_no_oftener() -> None:
    records = [Record((("user", str(min(i, 9))),), f"t{i}", 0.0, "") for i in range(100)]  # the last of ten prompts has 91 of 100
    held = [split(records, 0.2, seed)[0] for seed in range(200)]
    assert all(len({r.prompt for r in part}) == 2 for part in held)
    often = [sum(any(r.prompt == (("user", str(i)),) for r in part) for part in held) for i in range(10)]
    assert all(20 <= count <= 60 for count in often), "each prompt in 40 of 200, within 3.5 standard deviations"
    first, rest = split(records, 0.2, 1)
    assert sorted(r.completion for r in first + rest) == sorted(r.completion for r in records) and (first, rest) == split(records, 0.2, 1)
