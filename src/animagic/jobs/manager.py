"""The thread that gives jobs to the worker, one after the other, and keeps what becomes of them."""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import shutil
import threading
import time
from concurrent.futures import Future, TimeoutError
from typing import Any

from ..errors import InputError
from .errors import OutOfSpace
from .folder import Folder, Head, Piece
from .lock import FolderLock
from .process import WorkerProcess
from .record import Record, Records
from .settings import Settings
from .store import Store, StoreUnavailable

log = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds that a worker may take for a step, when it is to stop, before it is ended by force."""
LAST_PATIENCE = 10.0
"""The same when the server ends."""
SPARE = 256 * 2**20
"""Bytes of the disk that stay free: no new job is taken when there are less."""
_HOUSEKEEPING = 30.0  # seconds


class Manager:
    """Owns the worker's process. What it is told comes from other threads."""

    def __init__(self, settings: Settings, store: Store, records: Records):
        self._settings, self._store, self._records = settings, store, records
        self.lock = threading.Lock()
        """Held while a job goes from the queue to the worker."""
        self._inbox: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self._process: WorkerProcess | None = None
        self._current: Record | None = None
        self._answers: dict[int, Future[int]] = {}
        self._numbers = itertools.count()
        self._thread = threading.Thread(target=self._run, name="animagic-jobs", daemon=True)
        self._sizes: dict[str, int] = {}  # of the folders of finished jobs
        self._full = self._leaving = False
        self.stopping = False

    def start(self) -> None:
        """Raises InputError if another server uses the folder."""
        self._lock = FolderLock(self._settings.folder)
        self._store.requeue()
        self._process = self._new_process()  # at once: it takes seconds to import what it needs
        self._thread.start()
        self.wake()

    def stop(self) -> None:
        """Let the present job go on for a while, then stop it; it stays in progress, and goes on at the next start."""
        if self._thread.ident is None:
            return  # it was never started
        self.stopping = True
        self._records.tell_all()
        self.wake()
        self._thread.join(self._settings.drain)
        if (record := self._current) is not None and (process := self._process) is not None:
            process.send("stop", record.job.id)
            self._thread.join(LAST_PATIENCE)
        if self._process is not None:
            self._process.close(5.0)
        self._thread.join()
        self._lock.close()

    @property
    def worker(self) -> int | None:
        """The process that makes videos; None: there is none at the moment."""
        return None if self._process is None else self._process.pid

    def wake(self) -> None:
        """There is something to do."""
        self._inbox.put(())

    def send(self, record: Record, *message: Any) -> bool:
        """Send the worker a message about a job, if it has it."""
        process = self._process
        if process is None or self._current is not record:
            return False
        process.send(*message)
        return True

    def ask(self, word: str, record: Record, *rest: Any) -> int:
        """Ask the worker about the job that it has. Raises InputError for what it refuses."""
        number, answer = next(self._numbers), Future[int]()
        self._answers[number] = answer
        if not self.send(record, word, number, record.job.id, *rest):
            self._answers.pop(number, None)
            raise InputError("the video is not being made at the moment; try again.")
        try:
            return answer.result(PATIENCE)
        except TimeoutError:
            raise InputError("the video is not being made at the moment; try again.") from None
        finally:
            self._answers.pop(number, None)

    # ------------------------------------------------------------ what the worker says, in the thread of its process

    def _on_message(self, word: str, *rest: Any) -> None:
        if word == "answer":
            number, value, sentence = rest
            if (answer := self._answers.get(number)) is not None:
                answer.set_result(value) if sentence is None else answer.set_exception(InputError(sentence))
            return
        if word in ("done", "failed", "broken", "stopped", "gone"):
            self._inbox.put((word, *rest))
            return
        if word == "ready" or (record := self._records.get(rest[0])) is None:
            return
        if word == "report":
            record.change(report=rest[1])
        elif word == "chunk":
            record.add_chunk(Piece(**rest[1]))
        elif word == "begun":
            record.head = Head(**rest[1])
        elif word == "preview":
            record.previews += 1
        elif word == "note":
            record.notes.append(rest[1])
        record.news.tell()

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        cleaned = 0.0
        while not (self.stopping and self._current is None):
            with contextlib.suppress(queue.Empty):
                self._until_kept(self._inbox.get(timeout=1.0))
            self._end_by_force()
            if time.monotonic() - cleaned > _HOUSEKEEPING and not self.stopping:
                cleaned = time.monotonic()
                self._guarded(self._clean)

    def _until_kept(self, message: tuple[Any, ...]) -> None:
        """Take in a message; what it means is not lost because the database is away."""
        while True:
            try:
                if message:
                    getattr(self, f"_on_{message[0]}")(*message[1:])
                    message = ()
                self._give()
                return
            except StoreUnavailable:
                log.warning("the database is away; trying again")
                if self.stopping:
                    self._current = None
                    return
            except Exception:
                log.exception("a job could not be looked after")
                self._give_up()
                return

    def _give_up(self) -> None:
        """What became of the present job cannot be kept: at least the others go on."""
        if (record := self._current) is not None:
            error = ("server_error", "the server could not keep this video; its log has the details.")
            self._current = None
            record.change(status="failed", error=error, completed_at=time.time())
            record.released.set()

    def _guarded(self, work: Any) -> None:
        try:
            work()
        except StoreUnavailable:
            log.warning("the database is away; old jobs are deleted later")
        except Exception:
            log.exception("old jobs could not be deleted")

    def _new_process(self) -> WorkerProcess:
        return WorkerProcess(self._settings, self._lock.number, self._on_message)

    def _give(self) -> None:
        """Give the worker the next job, if it is idle."""
        if self._current is not None or self.stopping or self._leaving:
            return
        with self.lock:
            job = self._store.claim()
            if job is None:
                return
            record = self._records.add(job)
            if self._records.folder(job.id).cancelled.exists():  # before a crash
                record.cancelled = time.monotonic()
            record.change(status=job.status, started_at=job.started_at)
            self._hand_over(record)

    def _hand_over(self, record: Record) -> None:
        self._current = record
        if self._process is None:
            self._process = self._new_process()
        self._process.send("make", record.job.id, str(self._records.folder(record.job.id).root))
        if record.cancelled is not None:  # somebody was as quick
            self._process.send("stop", record.job.id)

    def _on_done(self, id: str, result: dict[str, Any], request: dict[str, Any]) -> None:
        self._finish(id, status="completed", result=result, request=request)

    def _on_failed(self, id: str, code: str, sentence: str) -> None:
        self._finish(id, status="failed", error=(code, sentence))

    def _on_broken(self, id: str, sentence: str) -> None:
        self._leaving = True  # a fresh process makes the next one
        self._on_failed(id, "server_error", sentence)

    def _on_stopped(self, id: str) -> None:
        record = self._current
        if record is not None and record.cancelled is not None:
            self._finish(id, status="failed", error=("cancelled", "The video was cancelled."))
        else:
            self._current = None  # it goes on at the next start

    def _on_gone(self, code: int) -> None:
        self._process, self._leaving = None, False
        for answer in list(self._answers.values()):
            if not answer.done():
                answer.set_exception(InputError("the video is not being made at the moment; try again."))
        record = self._current
        if record is None or self.stopping:
            self._current = None
        elif record.cancelled is not None:
            self._on_stopped(record.job.id)
        elif record.crashes:
            self._on_failed(
                record.job.id,
                "server_error",
                f"the process that makes videos has died twice (exit code {code}), most likely for want of memory: "
                "ask for a smaller or shorter video.",
            )
        else:
            record.crashes += 1
            log.warning("the worker died (exit code %s); %s goes on in a new one", code, record.job.id)
            self._hand_over(record)

    def _finish(self, id: str, **values: Any) -> None:
        record = self._current
        if record is None or record.job.id != id:
            return
        now, keep = time.time(), self._settings.keep
        values |= {"completed_at": now, "expires_at": None if keep is None else now + keep}
        with contextlib.suppress(KeyError):  # it was deleted meanwhile
            self._store.update(id, report=record.job.report, **values)
        self._records.folder(id).tidy()
        record.change(**values)
        self._current = None
        record.released.set()
        self._guarded(self._clean)

    def _end_by_force(self) -> None:
        """End a worker that does not come to its next step."""
        record, process = self._current, self._process
        since = None if record is None else record.cancelled
        if process is not None and since is not None and time.monotonic() - since > PATIENCE:
            process.kill()

    # ------------------------------------------------------------ what goes

    def delete(self, id: str) -> None:
        """Delete a finished job and its files, these first: if this server dies meanwhile, it is deleted later."""
        self._records.folder(id).remove()
        self._store.delete(id)
        self._records.remove(id)
        self._sizes.pop(id, None)

    def _clean(self) -> None:
        """Delete what has expired, and the oldest where all take too much."""
        for job in self._store.expired(time.time()):
            self.delete(job.id)
        most = self._settings.disk
        if most is None:
            return
        finished = self._store.oldest_finished()
        for job in finished:
            if job.id not in self._sizes:
                self._sizes[job.id] = self._records.folder(job.id).size()
        others = [path for path in self._settings.jobs.glob("video_*") if path.name not in self._sizes]
        used = sum(self._sizes.values()) + sum(Folder(path).size() for path in others)
        for job in finished:
            if used <= most:
                break
            used -= self._sizes[job.id]
            self.delete(job.id)
        self._full = used > most

    def check_space(self) -> None:
        """Raises OutOfSpace."""
        free = shutil.disk_usage(self._settings.folder).free
        if free < SPARE:
            raise OutOfSpace(f"the disk of this server is nearly full ({free} bytes are free): try again later.")
        if self._full:
            raise OutOfSpace("the videos in work take all the space of this server: try again when they are finished.")
