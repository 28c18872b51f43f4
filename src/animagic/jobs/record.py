"""What is known of jobs at the moment, and who waits for news of them."""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .folder import Folder, Head, Piece
from .job import Job
from .store import Store

_REMEMBERED = 200  # finished jobs in memory


@dataclass(frozen=True)
class Event:
    """News of a job.

    kind and data:
        status: status, progress (0 to 100), error (None, or code and message).
        progress: progress, and the fields of `animagic.requests.Report`.
        preview: count, of the pictures of what is being made that there have been.
        chunk: index, start (number of its first frame), frames, offset, size: the stream has it.
        note: line, of what was found and chosen.
    """

    kind: Literal["status", "progress", "preview", "chunk", "note"]
    data: dict[str, Any]


@dataclass
class Seen:
    """What a watcher has been told."""

    status: tuple[Any, ...] = ()
    report: Any = None
    previews: int = 0
    chunks: int = 0
    notes: int = 0


class News:
    """Wakes the watchers of one job, which may run in several event loops, from any thread.

    Many of them cost little: a loop is called once, however many watch in it, and not again before it has come.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.AbstractEventLoop, set[asyncio.Event]] = {}
        self._called: set[asyncio.AbstractEventLoop] = set()

    @contextmanager
    def watched(self) -> Iterator[asyncio.Event]:
        """An event of the running loop that is set at every change."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            self._waiting.setdefault(loop, set()).add(event)
        try:
            yield event
        finally:
            with self._lock:
                self._waiting[loop].discard(event)
                if not self._waiting[loop]:
                    del self._waiting[loop]

    def tell(self) -> None:
        with self._lock:
            for loop in set(self._waiting) - self._called:
                self._called.add(loop)
                try:
                    loop.call_soon_threadsafe(self._wake, loop)
                except RuntimeError:  # the loop is closed, its watchers with it
                    del self._waiting[loop]
                    self._called.discard(loop)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._called.discard(loop)
            for event in self._waiting.get(loop, ()):
                event.set()

    @property
    def watchers(self) -> int:
        with self._lock:
            return sum(map(len, self._waiting.values()))


@dataclass
class Record:
    """A job in memory: newer than the database. Changed by threads of the service, read by any."""

    job: Job
    head: Head | None = None
    chunks: list[Piece] = field(default_factory=list)
    previews: int = 0
    notes: list[str] = field(default_factory=list)
    cancelled: float | None = None
    """When somebody wanted it to stop, by the monotonic clock."""
    crashes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the job is changed."""
    voice: threading.Lock = field(default_factory=threading.Lock)
    """Held while a part of its voice is written."""
    released: threading.Event = field(default_factory=threading.Event)
    """Set when no worker has it any more, nor will have."""
    news: News = field(default_factory=News)

    def change(self, **values: Any) -> Job:
        """Change fields of the job, and tell."""
        with self.lock:
            self.job = replace(self.job, **values)
        self.news.tell()
        return self.job

    def add_chunk(self, chunk: Piece) -> None:
        """A chunk that is there; a run that goes on tells of those that were there again."""
        index = bisect_left(self.chunks, chunk.offset, key=lambda known: known.offset)
        if self.chunks[index : index + 1] != [chunk]:
            self.chunks[index:] = [chunk]
            self.news.tell()

    def since(self, seen: Seen) -> Iterator[Event]:
        """What a watcher does not know yet, which it is then told. The end comes last."""
        job, report = self.job, self.job.report
        if not job.finished:
            yield from self._status(seen, job)
        while seen.notes < len(self.notes):
            seen.notes += 1
            yield Event("note", {"line": self.notes[seen.notes - 1]})
        while seen.chunks < len(self.chunks):
            seen.chunks += 1
            index = seen.chunks - 1
            yield Event("chunk", {"index": index} | vars(self.chunks[index]))
        if report is not None and report is not seen.report:
            seen.report = report
            yield Event("progress", {"progress": job.progress} | report)
        if self.previews > seen.previews and not job.finished:  # then the picture is gone
            seen.previews = self.previews
            yield Event("preview", {"count": self.previews})
        if job.finished:
            yield from self._status(seen, job)

    def _status(self, seen: Seen, job: Job) -> Iterator[Event]:
        if seen.status != (status := (job.status, job.error)):
            seen.status = status
            error = None if job.error is None else {"code": job.error[0], "message": job.error[1]}
            yield Event("status", {"status": job.status, "progress": job.progress, "error": error})


class Records:
    """The records of jobs: those that are not finished, and those that were asked for last."""

    def __init__(self, store: Store, folder: Callable[[str], Folder]):
        self._store, self.folder = store, folder
        self._known: OrderedDict[str, Record] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, id: str) -> Record | None:
        """The one record of a job; None: there is no such job."""
        with self._lock:
            if (record := self._known.get(id)) is not None:
                self._known.move_to_end(id)
                return record
        job = self._store.get(id)
        return None if job is None else self.add(job)

    def add(self, job: Job) -> Record:
        """The record of a job; made anew only if there is none."""
        folder = self.folder(job.id)
        with self._lock:
            if (record := self._known.get(job.id)) is None:
                record = self._known[job.id] = Record(job, folder.head, folder.chunks)
                if job.finished:
                    record.released.set()
            self._forget()
            return record

    def newest(self, job: Job) -> Job:
        """A job as it is in memory, else as it was given."""
        with self._lock:
            record = self._known.get(job.id)
        return job if record is None else record.job

    def remove(self, id: str) -> None:
        with self._lock:
            self._known.pop(id, None)

    def tell_all(self) -> None:
        with self._lock:
            for record in self._known.values():
                record.news.tell()

    def _forget(self) -> None:
        spare = [i for i, r in self._known.items() if r.job.finished and not r.news.watchers]
        for id in spare[:-_REMEMBERED]:
            del self._known[id]
