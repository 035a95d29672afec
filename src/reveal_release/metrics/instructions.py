"""The instructions in what a model wrote when it was asked for one, or for several: without the talk and the marks around them.

    instructions("Sure! Here it is:\\n\\n**Rewritten instruction:** \\"Name a river.\\"")      # ["Name a river."]
    instructions("1. Name a river.\\n2. Say it again.")                                     # ["Name a river.", "Say it again."]

Not promised: that talk which looks like an instruction is told from one ("I am happy to help.").
"""

import re

from .words import is_instruction, words

_MARK = re.compile(r"(?:>\s*)?(?:[-*+•–]\s+)?(?:\*\*\d{1,3}[.):]+\*\*|\(?\d{1,3}[.):]+(?=\D))?\s*")
_LABEL = re.compile(
    r"(?:\*\*)?(?:(?:sure|certainly|of course)[!,.] )?(?:here(?:['’]s| is| are) )?"
    r"(?:(?:the|a|an|your|new|original|likely|possible|revised|re-?written|re-?worded|re-?phrased) )*"
    r"(?:instruction|version|revised|re-?written|re-?worded|re-?phrased)(?: (?:of it|in other words))?"
    r"(?: (?:is|was|be|could|might|may|would|have|been|likely|probably|then))*(?:\*\*)?(?::(?:\*\*)?\s*|$)",
    re.IGNORECASE,
)
"""As in "The instruction was likely: Name a river.", or alone as a heading."""
_LEAD_IN = re.compile(r"(?!(?:def|class|for|while|if|with)\b).*:(?:\*\*)?")
"""A line that ends with a colon, but for one of code."""
_PAIRS = (("**", "**"), ('"', '"'), ("'", "'"), ("`", "`"), ("“", "”"), ("‘", "’"))


def instructions(text: str) -> list[str]:
    """One a line, without its bullet, number or label, and without quotes or bold around the whole.

    Left out: what a model thinks before `</think>`, code fences, headings, a line that ends with a colon, and what a search does not
    try, being of fewer than 2 or of more than 40 words.
    """
    return [line for line in spoken(text) if is_instruction(line)]


def spoken(text: str) -> list[str]:
    """The same, however long."""
    found = []
    for line in text.rpartition("</think>")[2].partition("<think>")[0].splitlines():  # the thought may have been cut
        line = _unwrapped(_MARK.sub("", _unwrapped(line.strip()), count=1)).strip()
        if label := _LABEL.match(line):
            line = _unwrapped(line[label.end() :]).strip()
        if len(words(line)) > 1 and not line.startswith(("#", "```")) and (label or not _LEAD_IN.fullmatch(line)):
            found.append(line)
    return found


def _unwrapped(line: str) -> str:
    """Without a pair of marks around the whole, as in a list of JSON or in bold."""
    for start, end in _PAIRS:
        inner = line.removesuffix(",").removeprefix(start).removesuffix(end)
        if f"{start}{inner}{end}" == line.removesuffix(",") and start not in inner and end not in inner:
            return inner
    return line
