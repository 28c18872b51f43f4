"""The worker's process, as the server holds it."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from .settings import Settings


class WorkerProcess:
    """A process that makes videos. It ends with this one, however this one ends: their pipe breaks.

    lock: a file descriptor that it inherits.
    on_message: called in a thread of its own with every message, see `animagic.jobs.worker`; and with ("gone", exit
        code) when the process has ended.
    """

    def __init__(self, settings: Settings, lock: int, on_message: Callable[..., None]):
        ours, theirs = multiprocessing.Pipe()
        about = {
            "device": settings.device,
            "memory": settings.memory,
            "threads": settings.threads,
            "frames": settings.limits.frames,
        }
        # Threads that wait busily would take the time of those that answer.
        environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ
        if settings.threads is not None:
            environment["OMP_NUM_THREADS"] = str(settings.threads)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "animagic.jobs.worker", str(theirs.fileno()), json.dumps(about)],
                pass_fds=[theirs.fileno(), lock],
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the server, which stops this one in good order
            )
        self._connection: Connection = ours
        self._sending, self._on_message = threading.Lock(), on_message
        self._thread = threading.Thread(target=self._listen, name="animagic-worker", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, *message: Any) -> None:
        """Send a message; it is lost if the process has ended, which `on_message` is told."""
        try:
            with self._sending:
                self._connection.send(message)
        except OSError:
            pass

    def _listen(self) -> None:
        try:
            while True:
                self._on_message(*self._connection.recv())
        except (EOFError, OSError):
            self._on_message("gone", self._process.wait())

    def kill(self) -> None:
        self._process.kill()

    def close(self, timeout: float) -> None:
        """End the process, by force after `timeout` seconds."""
        self.send("quit")
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join()
        self._connection.close()
