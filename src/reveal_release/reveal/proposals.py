"""Where candidate instructions come from. Each source is a function from a `Context` to new instruction texts.

- seeds: the task's, or the user's.
- rewrite: the model rewrites the best instructions so far.
- user_turn: the model writes a user turn itself, from the chat template up to an empty one (Magpie, arXiv 2406.08464).
- induction: the model is shown outputs and asked what instruction they answer (INSTINCT, arXiv 2310.02905).
- soft_prompt: the same request with a few random token embeddings in it (INSTINCT's way to different answers; `soft_prompt.py`).
- endpoint: another model, behind an address, varies the best and guesses from outputs (`endpoint.py`); only where it is asked for.

Not promised: that a model follows these requests well. What it writes is a candidate; the search finds out what it is worth.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..chat import MARK, cut_user_turns, user_turn_ids
from ..generation import Sampling, generate, uncut
from ..metrics.instructions import spoken
from ..metrics.words import is_instruction, key
from ..models import LanguageModel
from .endpoint import Endpoint
from .soft_prompt import soft_prompts

_SAMPLING = Sampling(max_new_tokens=64, temperature=1.0, top_k=50)
REWRITE = "Rewrite this instruction in other words: {}"
INDUCE = "{}\nWhat was the instruction?"


@dataclass(frozen=True)
class Context:
    """What the sources may use: the model, the task's seeds, the best instructions and outputs, best first, and an endpoint."""

    lm: LanguageModel
    seeds: Sequence[str]
    best: Sequence[str] = ()
    outputs: Sequence[str] = ()
    rng: random.Random = field(default_factory=random.Random)
    endpoint: Endpoint | None = None

    def ask(self, prompts: Sequence) -> list[str]:
        return list(generate(self.lm, prompts, _SAMPLING, [self.rng.getrandbits(40) for _ in prompts]))

    def ask_for_one(self, prompts: Sequence) -> list[str]:
        """The instruction in each answer, empty where there is none: chat models put it after a lead-in, between quotes, in bold."""
        return [next(iter(spoken(uncut(text))), "") for text in self.ask(prompts)]


def seeds(context: Context, count: int) -> list[str]:
    return list(context.seeds)


def rewrite(context: Context, count: int) -> list[str]:
    """Rewrites of the best, each as often as the others; of the seeds while nothing is known."""
    sources = context.best or context.seeds
    return context.ask_for_one([(("user", REWRITE.format(sources[i % len(sources)])),) for i in range(count)])


def user_turn(context: Context, count: int) -> list[str]:
    ids = user_turn_ids(context.lm.tokenizer)
    return cut_user_turns(context.lm.tokenizer, context.ask([ids] * count)) if ids else []


def induction(context: Context, count: int) -> list[str]:
    """Instructions that the model thinks the best outputs answer, three outputs at a time."""
    return context.ask_for_one([(("user", INDUCE.format(shown)),) for shown in _shown(context, count)])


def soft_prompt(context: Context, count: int) -> list[str]:
    """As `induction`, with a soft prompt in the request: before the outputs and after them, in turn."""
    requests = [INDUCE.format(f"{shown}{MARK}" if i % 2 else f"{MARK}{shown}") for i, shown in enumerate(_shown(context, count))]
    return context.ask_for_one(soft_prompts(context.lm, requests, context.rng.getrandbits(40))) if requests else []


def _shown(context: Context, count: int) -> list[str]:
    """`count` lists of three of the best outputs, for a request; none while there are no outputs."""
    if not context.outputs:
        return []
    chosen = [context.rng.sample(list(context.outputs), min(3, len(context.outputs))) for _ in range(count)]
    return ["\n".join(f"Output: {text}" for text in some) for some in chosen]


def endpoint(context: Context, count: int) -> list[str]:
    """From the seeds while nothing is known; none without an endpoint. Raises UserError where it does not answer."""
    return context.endpoint.propose(context.best or context.seeds, context.outputs, count) if context.endpoint else []


SOURCES: dict[str, Callable[[Context, int], list[str]]] = {
    "seeds": seeds, "rewrite": rewrite, "user_turn": user_turn, "induction": induction,
    "soft_prompt": soft_prompt, "endpoint": endpoint,
}  # fmt: skip


def propose(context: Context, sources: Sequence[str], count: int, known: set[str]) -> list[str]:
    """About `count` new instructions from the named sources in equal parts, without those whose `key` is in `known`.

    `known` gains the keys of what is returned.
    """
    drawn = [name for name in sources if name != "seeds"]
    found = []
    for name in sources:
        for text in SOURCES[name](context, -(-count // max(1, len(drawn)))):
            text = next(iter(uncut(text).strip().splitlines()), "").strip()
            if is_instruction(text) and key(text) not in known:
                known.add(key(text))
                found.append(text)
    return found
