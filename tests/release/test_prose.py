"""Prose by name, and a user's own file, sound or not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reveal_release.config import UserError
from reveal_release.release.prose import LEAST, prose
from reveal_release.testbed import heldout


def test_the_bundled_texts_are_those_for_validation() -> None:
    assert prose("encyclopedia") == heldout.wikitext("validation")
    assert prose("web") == heldout.web("validation")
    assert not {*prose("encyclopedia"), *prose("web")} & {*heldout.wikitext("test"), *heldout.web("test")}


LINES = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Zs"]), min_size=1), min_size=LEAST)


@given(lines=LINES, blank=st.sampled_from(["\n", "\n\n", " \n\t\n", "\r\n"]), mark=st.sampled_from(["utf-8", "utf-8-sig"]))
def test_a_file_is_read_line_by_line(lines: list[str], blank: str, mark: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("prose") / "mine.txt"
    path.write_bytes(blank.join(lines).encode(mark))
    assert prose(str(path)) == [line.strip() for line in "\n".join(lines).encode().decode("utf-8-sig").split("\n")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: give encyclopedia, web, or a file in UTF-8, a passage a line"),
        ("Ünlesbar.\n".encode("latin-1") * LEAST, "cannot be read"),
        (b"A passage.\n\n" * (LEAST - 1), f"has {LEAST - 1} passages: give at least {LEAST}, each on a line of its own"),
        (b"", "has 0 passages"),
    ],
)
def test_what_will_not_do_is_refused_in_one_line(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        prose(str(path))
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_folder_or_nothing_is_no_file(tmp_path: Path) -> None:
    for name in ("", str(tmp_path)):
        with pytest.raises(UserError, match="cannot be read"):
            prose(name)
