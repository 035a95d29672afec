"""Conversations in the chat template and without one, and where a template can be cut."""

import pytest
from tokenizers.processors import TemplateProcessing

from reveal_release.chat import MARK, chat_ids, cut_ids, user_turn_ids
from reveal_release.config import UserError
from reveal_release.models import LanguageModel

TURNS = [("user", "Name the river."), ("assistant", "The old one."), ("user", "And the bridge?")]


def test_a_tokenizer_that_ends_every_text_does_not_end_a_question(lm: LanguageModel) -> None:
    plain, lm.tokenizer.chat_template = lm.tokenizer("Name the river.\n")["input_ids"], None
    begin, end = lm.tokenizer.bos_token, lm.tokenizer.eos_token
    lm.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(token, lm.tokenizer.convert_tokens_to_ids(token)) for token in (begin, end)]
    )
    assert lm.tokenizer("Name the river.\n")["input_ids"][-1] == lm.tokenizer.eos_token_id
    assert chat_ids(lm.tokenizer, TURNS[:1]) == [lm.tokenizer.bos_token_id, *(i for i in plain if i != lm.tokenizer.bos_token_id)]


def test_chat_ids_are_the_template_up_to_the_answer(lm: LanguageModel) -> None:
    text = "<|bos|><|user|>Name the river.<|end|><|assistant|>The old one.<|end|><|user|>And the bridge?<|end|>"
    encoded = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert chat_ids(lm.tokenizer, TURNS, answer=False) == encoded
    assert chat_ids(lm.tokenizer, TURNS) == [*encoded, lm.tokenizer.convert_tokens_to_ids("<|assistant|>")]


def test_without_a_template_the_contents_are_lines(lm: LanguageModel) -> None:
    lm.tokenizer.chat_template = None
    ids = chat_ids(lm.tokenizer, TURNS)
    assert ids == lm.tokenizer("Name the river.\nThe old one.\nAnd the bridge?\n")["input_ids"]
    assert user_turn_ids(lm.tokenizer) is None


def test_user_turn_is_a_prefix_of_every_conversation(lm: LanguageModel) -> None:
    prefix = user_turn_ids(lm.tokenizer)
    assert prefix
    assert lm.tokenizer.decode(prefix) == "<|bos|><|user|>"
    for text in ("Name the river.", "7 bridges", "\nsnow"):
        assert chat_ids(lm.tokenizer, [("user", text)])[: len(prefix)] == prefix


@pytest.mark.parametrize(
    "template",
    ["{% for m in messages %}{{ m['content'] }} {{ m['content'] }}{% endfor %}", "{{ bos_token }}nothing of the user's"],
    ids=["twice", "never"],
)
def test_a_template_that_cannot_be_cut_gives_no_user_turn(lm: LanguageModel, template: str) -> None:
    lm.tokenizer.chat_template = template
    assert user_turn_ids(lm.tokenizer) is None


def test_a_model_that_can_think_is_asked_not_to(lm: LanguageModel) -> None:
    """As Qwen3's template has it: the turn begins with an empty thought where thinking is off."""
    lm.tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        "{% if enable_thinking is defined and enable_thinking is false %} no{% endif %}"
    )
    assert lm.tokenizer.decode(chat_ids(lm.tokenizer, [("user", "river")])) == "river no"
    cut = cut_ids(lm.tokenizer, [("user", MARK)])
    assert cut and lm.tokenizer.decode(cut[1]) == " no"


def test_a_conversation_that_the_template_refuses_is_one_line(lm: LanguageModel) -> None:
    lm.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] or raise_exception('empty\\nturn') }}{% endfor %}"
    with pytest.raises(UserError, match=r"template refuses a conversation of user: empty \(mend its template\)$"):
        chat_ids(lm.tokenizer, [("user", "")])


def test_a_template_that_names_the_day_names_the_same_one(lm: LanguageModel) -> None:
    """As Llama 3.2's: a run that goes on after midnight asks as before."""
    lm.tokenizer.chat_template = "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}{{ messages[0]['content'] }}"
    assert lm.tokenizer.decode(chat_ids(lm.tokenizer, TURNS[:1])) == "01 Jan 2025Name the river."
    lm.tokenizer.chat_template = """{%- set today = strftime_now("%Y-%m-%d") %}{{ today }}{{ messages[0]['content'] }}"""  # SmolLM3's
    assert lm.tokenizer.decode(chat_ids(lm.tokenizer, TURNS[:1])) == "2025-01-01Name the river."
