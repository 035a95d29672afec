"""Python files of a user's own as they are run."""

from pathlib import Path

import pytest

from reveal_release.tasks.userfile import execute

from .conftest import written


def test_an_interruption_while_a_file_runs_is_one(tmp_path: Path) -> None:
    path = written(tmp_path / "slow.py", "raise KeyboardInterrupt")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            execute(path)
