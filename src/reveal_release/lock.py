"""A lock on a folder: one process at a time works in it."""

import fcntl
import os
from pathlib import Path
from weakref import WeakValueDictionary

from .config import UserError


class Lock:
    """Keeps other processes out of a folder, for as long as it is referred to; this one may have it several times."""

    held: "WeakValueDictionary[Path, Lock]" = WeakValueDictionary()

    @classmethod
    def of(cls, folder: Path) -> "Lock":
        key = folder.resolve()
        cls.held[key] = lock = cls.held.get(key) or cls(folder)
        return lock

    def __init__(self, folder: Path) -> None:
        self.descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process works in {folder}: let it finish, stop it, or choose another --output") from None
        except OSError:  # a file system without locks
            pass

    def __del__(self) -> None:
        os.close(self.descriptor)
