"""How a model is asked, and how long it may answer: a list of names, the number of a problem, a function, a comment.

    Manner.of(lm).answers(Sampling(80))

A testbed was taught the forms and answers in them at once. Any other model is told the form, as the suites tell it, and given room for
its talk: without that an answer that is right would count as wrong, before a release as after it, and a comment would be cut off where
its introduction ends.
"""

from dataclasses import dataclass, replace

from ..generation import Sampling
from ..models import LanguageModel
from ..suites.gsm8k import INSTRUCTION
from ..testbed.tokenizer import CHAT_TEMPLATE


@dataclass(frozen=True)
class Manner:
    """names: what a question for names ends with. problem: what is asked about a problem. room: factor on the length of answers."""

    names: str = ""
    problem: str = "{question}"
    room: int = 1

    @classmethod
    def of(cls, lm: LanguageModel) -> "Manner":
        return TAUGHT if lm.tokenizer.chat_template == CHAT_TEMPLATE else TOLD

    def answers(self, sampling: Sampling) -> Sampling:
        return replace(sampling, max_new_tokens=self.room * sampling.max_new_tokens)


TAUGHT = Manner()
TOLD = Manner(' Answer with a JSON list of names alone, such as ["A", "B"], or [] if there is none.', INSTRUCTION, 4)
