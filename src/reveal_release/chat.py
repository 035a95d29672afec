"""A conversation as the model reads it: its chat template, the token ids, and where a template can be cut.

    chat_ids(tokenizer, (("user", "Name a river."),))          # up to where the model's turn begins
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from .config import UserError, first_line

Turns = Sequence[tuple[str, str]]
"""A conversation: (role, content) pairs."""

MARK = "\u2603\u2603"
"""Where `cut_ids` cuts: no text that models write."""
TODAY = datetime(2025, 1, 1)
ASKED: Any = {"date_string": f"{TODAY:%d %b %Y}"}
"""What templates are told beside whether to think: a day that stays, where they name one."""
QUESTION: Turns = (("user", "?"),)
_NOW = re.compile(r"""strftime_now\((["'])(.*?)\1\)""")


def chat_ids(tokenizer: PreTrainedTokenizerBase, turns: Turns, answer: bool = True) -> list[int]:
    """Token ids of a conversation in the model's chat template; with `answer`, up to where the model's turn begins.

    A model without a chat template gets the contents, one a line. One that can think before it answers is asked not to: what it
    thinks is no behaviour, and would fill the whole of an answer's length.
    """
    return begun(tokenizer, chat_text(tokenizer, turns, answer))


def user_turn_ids(tokenizer: PreTrainedTokenizerBase, turns: Turns = ()) -> list[int] | None:
    """The conversation so far and the chat template up to an empty user turn (Magpie, arXiv 2406.08464); None where it cannot be cut."""
    cut = cut_ids(tokenizer, (*turns, ("user", MARK)), answer=False) if tokenizer.chat_template is not None else None
    return cut[0] if cut else None


def cut_user_turns(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[str]:
    """User turns that the model wrote, without what it wrote on after the template's own end of one, where that is plain text."""
    cut = cut_text(tokenizer, (("user", MARK),), answer=True) if tokenizer.chat_template is not None else None
    end = next(iter(cut[1].split()), "") if cut else ""
    return [text.split(end)[0].strip() if end and end in text else text for text in texts]


def text_bos(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The tokenizer's BOS; None where it has none, or names the token that opens a turn (SmolLM2's), after which a role is read."""
    bos = tokenizer.bos_token_id
    return None if bos in asking_ids(tokenizer) else bos


def asking_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the template writes to ask for an answer; nothing in Llama 2's, where the end of the user's turn does."""
    if tokenizer.chat_template is None:
        return []
    told, asked = chat_text(tokenizer, QUESTION, answer=False), chat_text(tokenizer, QUESTION)
    return tokenizer(asked.removeprefix(told), add_special_tokens=False)["input_ids"] if asked.startswith(told) else []


def cut_ids(tokenizer: PreTrainedTokenizerBase, turns: Turns, answer: bool = True) -> tuple[list[int], list[int]] | None:
    """As `chat_ids`, in two parts, before and after the one `MARK` in the contents; None where the template drops or repeats it."""
    cut = cut_text(tokenizer, turns, answer)
    if cut is None:
        return None
    return begun(tokenizer, cut[0]), tokenizer(cut[1], add_special_tokens=False)["input_ids"]


def begun(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a conversation's beginning; a template writes its special tokens itself. Without one, a tokenizer that ends every
    text does not end this."""
    ids = tokenizer(text, add_special_tokens=tokenizer.chat_template is None)["input_ids"]
    return ids[:-1] if tokenizer.chat_template is None and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


def cut_text(tokenizer: PreTrainedTokenizerBase, turns: Turns, answer: bool) -> tuple[str, str] | None:
    """What `cut_ids` is the ids of."""
    text = chat_text(tokenizer, turns, answer)
    if text.count(MARK) != 1:
        return None
    before, after = text.split(MARK)
    return before, after


def chat_text(tokenizer: PreTrainedTokenizerBase, turns: Turns, answer: bool = True, think: bool = False) -> str:
    """What `chat_ids` is the ids of, but for the special tokens of a tokenizer without a template."""
    if tokenizer.chat_template is None:
        return "".join(content + "\n" for _, content in turns)
    messages = [{"role": role, "content": content} for role, content in turns]
    template = _NOW.sub(lambda now: repr(TODAY.strftime(now[2])), str(tokenizer.get_chat_template()))
    asked = {**ASKED, "enable_thinking": think, "chat_template": template, "add_generation_prompt": answer}
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **asked))
    except TemplateError as error:
        spoken = " and ".join(role for role, _ in turns)
        raise UserError(f"the model's chat template refuses a conversation of {spoken}: {first_line(error)} (mend its template)") from None
