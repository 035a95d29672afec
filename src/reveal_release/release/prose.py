"""The prose that the utility budget is measured by: bundled, or of the user's own, as every model knows another kind.

    prose("encyclopedia")      # paragraphs of WikiText's validation articles
    prose("web")               # posts and the beginnings of web sentences
    prose("mine.txt")          # a passage a line
"""

from pathlib import Path

from ..config import UserError
from ..testbed import heldout

BUNDLED = ("encyclopedia", "web")
LEAST = 16
"""Passages of a file: the rise of perplexity over fewer tells little."""


def prose(name: str) -> list[str]:
    """Passages of the bundled validation texts of that name, or the lines of a file that are not blank.

    Raises:
        UserError: no such file, one that is no UTF-8 text, or one of fewer than `LEAST` passages.
    """
    if name in BUNDLED:
        bundled = heldout.wikitext if name == "encyclopedia" else heldout.web
        return bundled("validation")
    try:
        text = Path(name).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"utility_text {name!r} cannot be read: give encyclopedia, web, or a file in UTF-8, a passage a line ({error})"
        ) from None
    passages = [line.strip() for line in text.split("\n") if line.strip()]
    if len(passages) < LEAST:
        raise UserError(f"utility_text {name} has {len(passages)} passages: give at least {LEAST}, each on a line of its own")
    return passages
