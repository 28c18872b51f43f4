"""One server at a time for a folder of jobs."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from ..errors import InputError


class FolderLock:
    """Taken by a server and the worker that it starts, which inherits it: two of either never write the same video. The
    system lets it go when both have ended, in whatever way."""

    def __init__(self, folder: Path, wait: float = 10.0):
        """Raises InputError if another server holds the folder for longer than `wait` seconds."""
        self.number = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        end = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(self.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= end:
                    os.close(self.number)
                    raise InputError(f"another server uses {folder}; stop it, or choose another folder.") from None
                time.sleep(0.05)

    def close(self) -> None:
        os.close(self.number)
