"""A folder has one process at a time, and that one may have it several times."""

import subprocess
import sys
from pathlib import Path

from reveal_release.lock import Lock

ANOTHER_PROCESS = """
import sys
from pathlib import Path

from reveal_release.lock import Lock, UserError

for path in map(str.strip, sys.stdin):
    try:
        Lock.of(Path(path))
    except UserError as error:
        print(error, flush=True)
    else:
        print("has it", flush=True)
"""


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ANOTHER_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        asks, answers = process.stdin, process.stdout
        assert asks and answers

        def there() -> str:
            print(tmp_path, file=asks, flush=True)
            return answers.readline()

        assert there() == "has it\n"
        here = Lock.of(tmp_path)
        for again in (here, Lock.of(tmp_path.parent / tmp_path.name)):  # has it as long as any is used
            assert again and there().startswith(f"another process works in {tmp_path}: let it finish, stop it, or choose another")
            here = again
        del here, again
        assert there() == "has it\n"
        asks.close()
