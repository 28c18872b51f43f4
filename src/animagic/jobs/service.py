"""Jobs in order: handed in, made one after the other, watched, changed and kept. What app and server share."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from ..pipelines.options import VideoOptions
from ..pipelines.voices import LIVE
from .catalog import Model, models
from .errors import JobFailed, NoSuchJob, OutOfSpace, TooMany
from .folder import Folder
from .inputs import check_limits, copied, fingerprint
from .job import Job
from .manager import Manager
from .prompts import JobPrompt, planned_chunks
from .record import Event, Record, Records, Seen
from .settings import Settings
from .store import Store
from .voices import VoiceFile

__all__ = ["Event", "JobFailed", "Model", "NoSuchJob", "OutOfSpace", "Service", "TooMany"]

_CANCELLED = ("cancelled", "The video was cancelled.")


class Service:
    """Jobs, their store and the worker that makes them; a context manager, from `start` to `stop`.

    Any thread may call it. An owner given to a method means: only jobs of that owner exist.
    Raises: NoSuchJob for an unknown id; StoreUnavailable while the database is away.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        settings.folder.mkdir(parents=True, exist_ok=True)
        self.store = Store(settings.url)
        self._records = Records(self.store, lambda id: Folder(settings.jobs / id))
        self._manager = Manager(settings, self.store, self._records)
        self._importing = threading.Thread(target=_import_all, name="animagic-import", daemon=True)

    def start(self) -> None:
        """Begin to make what is queued; what was being made when the last server ended goes on first.

        Raises: InputError if another server uses the folder.
        """
        self._manager.start()
        self._importing.start()

    def stop(self) -> None:
        """End: a running job may go on for a while (`Settings.drain`); then it is stopped, and kept."""
        self._manager.stop()
        if self._importing.ident is not None:
            self._importing.join()
        self.store.close()

    def __enter__(self) -> Service:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def models(self) -> list[Model]:
        """The models of the zoo that make videos."""
        return models()

    # ------------------------------------------------------------ jobs

    def submit(
        self,
        request: VideoOptions,
        *,
        owner: str = "",
        priority: int = 0,
        idempotency: str = "",
        asked: dict[str, Any] | None = None,
        remixed_from: str | None = None,
        extends: str | None = None,
    ) -> Job:
        """Hand in a request; its input files are copied. What can be refused without the model is refused now.

        Args:
            owner, priority, asked, remixed_from, extends: see `Job`.
            idempotency: a key; the same request with the same key again gives the job that there is.
        Raises: TooMany; OutOfSpace; IdempotencyConflict; InputError for a request beyond the limits; as
            `requests.job_for`.
        """
        from ..requests import job_for

        self._manager.check_space()
        counts, most = self.store.counts(owner), self.settings.limits.queued
        if counts["queued"] + counts["in_progress"] >= most and not self.store.earlier(owner, idempotency):
            raise TooMany(f"you have {most} unfinished videos; wait until one is finished.")
        check_limits(request, self.settings.limits)
        job_for(request)
        print_ = fingerprint(request, remixed_from=remixed_from, extends=extends) if idempotency else ""
        id = f"video_{uuid.uuid4().hex}"
        folder = self.folder(id)
        folder.root.mkdir(parents=True)
        try:
            stored = copied(request, folder.inputs).stored()
            folder.request.write_text(json.dumps(stored), "utf-8")
            job = Job(
                id=id,
                status="queued",
                model=request.model,
                request=stored,
                created_at=time.time(),
                owner=owner,
                priority=priority,
                asked=asked or {},
                remixed_from=remixed_from,
                extends=extends,
            )
            added = self.store.add(job, idempotency, print_)
        except BaseException:
            folder.remove()
            raise
        if added.id != id:
            folder.remove()
            return self._records.newest(added)
        self._records.add(added)
        self._manager.wake()
        return added

    def get(self, id: str, owner: str | None = None) -> Job:
        """A job as it is now."""
        return self._record(id, owner).job

    def list(
        self,
        owner: str | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> tuple[list[Job], bool]:
        """Jobs, and whether there are more; see `Store.list`."""
        jobs, more = self.store.list(owner, after, limit, order)
        return [self._records.newest(job) for job in jobs], more

    def cancel(self, id: str, owner: str | None = None) -> Job:
        """Stop a job: at once if it is queued, else at its next step. It fails with the code "cancelled"."""
        record = self._record(id, owner)
        if record.job.finished:
            return record.job
        record.cancelled = record.cancelled or time.monotonic()
        now, keep = time.time(), self.settings.keep
        times = {"completed_at": now, "expires_at": None if keep is None else now + keep}
        with _there(id):
            job = self.store.update(id, expected="queued", status="failed", error=_CANCELLED, **times)
        if job.finished:
            record.change(status=job.status, error=job.error, **times)
            self.folder(id).tidy()
            record.released.set()
        elif self.folder(id).root.exists():
            self.folder(id).cancelled.touch()
            self._manager.send(record, "stop", id)
        return record.job

    def delete(self, id: str, owner: str | None = None) -> None:
        """Delete a job and its files; a running one is cancelled first, and has ended then."""
        record = self._record(id, owner)
        self.cancel(id, owner)
        record.released.wait()
        self._manager.delete(id)

    def remix(
        self,
        id: str,
        prompt: str,
        owner: str | None = None,
        *,
        priority: int = 0,
        idempotency: str = "",
        asked: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Job:
        """The same request with another prompt, and other changes, by the names of options."""
        source = self.get(id, owner)
        request = self._request(source).changed(
            **{"prompt": prompt, "prompts_at": {}, "prompt_given": None, "prompts_at_given": {}} | changes
        )
        return self.submit(
            request,
            owner=source.owner if owner is None else owner,
            priority=priority,
            idempotency=idempotency,
            asked=asked,
            remixed_from=id,
        )

    def extend(
        self,
        source: str,
        prompt: str,
        frames: int,
        owner: str | None = None,
        *,
        priority: int = 0,
        idempotency: str = "",
        asked: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Job:
        """A longer video: that of a completed job, frame by frame, and as many new frames, which go on from its
        latents.

        Raises: InputError for a job that is not completed, and for a model that cannot continue a video.
        """
        from ..requests import job_for

        job = self.get(source, owner)
        if job.status != "completed":
            raise InputError(f"the video {source} is not completed; only a whole one can be continued.")
        request = self._request(job)
        if not (made := job_for(request)).can_be_continued:
            raise InputError(f"the videos of the model {request.model} cannot be continued; MAGI-1's can.")
        if frames < 1:
            raise InputError(f"{frames} new frames are asked for; ask for at least 1.")
        assert request.frames is not None  # of a completed job
        longer = request.changed(
            **{
                "prompt": prompt,
                "prompts_at": {},
                "prompt_given": None,
                "prompts_at_given": {},
                "image": None,
                "endless": False,
                "latents": str(self.folder(source).latents),
                "latent_frames": -(-request.frames // made.settings().frames_per_latent),
                "frames": request.frames + frames,
            }
            | changes
        )
        return self.submit(
            longer,
            owner=job.owner if owner is None else owner,
            priority=priority,
            idempotency=idempotency,
            asked=asked,
            extends=source,
        )

    def prompt(self, id: str, text: str, chunk: int | None = None, owner: str | None = None) -> int:
        """Give a job another prompt from a chunk on; None: from the next one that is not begun. Returns the chunk.

        Raises: InputError for a job that is finished, a model whose prompt cannot change, and a chunk that is begun.
        """
        record = self._record(id, owner)
        request = self._request(record.job)
        if "live" not in type(request).model_fields:
            raise InputError(f"the prompt of the model {request.model} cannot change while the video is made.")
        if record.job.finished:
            raise InputError("the video is finished: its prompt cannot change any more.")
        text, chunks = text.strip(), planned_chunks(request) if record.job.status == "queued" else None
        with self._manager.lock:
            if queued := record.job.status == "queued":
                chunk = JobPrompt({}, self.folder(id).prompts, chunks).set(text, chunk)
        if not queued:
            chunk = self._manager.ask("prompt", record, text, chunk)
        assert chunk is not None
        with record.writing, _there(id):
            stored = record.job.request
            said = {"prompts_at": {**stored["prompts_at"], str(chunk): text}} if chunk else {"prompt": text}
            job = self.store.update(id, expected=record.job.status, request={**stored, **said})
            if not record.job.finished:
                record.change(request=job.request)
        return chunk

    def sound(self, id: str, samples: np.ndarray, end: bool = False, owner: str | None = None) -> None:
        """More of the voice of a job whose `audio` is `animagic.pipelines.voices.LIVE`: float32 (n,), 16 kHz.

        end: there is no more; so it is taken after a minute without any.
        Raises: InputError for other samples, a voice that has ended, and a job without one.
        """
        record = self._record(id, owner)
        if record.job.finished:
            raise InputError("the video is finished: nobody listens any more.")
        if LIVE not in record.job.request.get("audio", ()):
            raise InputError(f"no voice is waited for: hand in a job with the voice {LIVE!r}.")
        with record.writing:
            VoiceFile(self.folder(id)).add(samples, end, self.settings.limits.seconds)

    def end(self, id: str, owner: str | None = None) -> None:
        """End a video that has no end: it is complete with the frames that are final."""
        record = self._record(id, owner)
        self._manager.send(record, "end", id)

    # ------------------------------------------------------------ what is made

    def folder(self, id: str) -> Folder:
        """The folder of a job, whether there is such a job or not."""
        return self._records.folder(id)

    def mime_type(self, id: str, owner: str | None = None) -> str | None:
        """Of the stream; None: it has not begun."""
        head = self._record(id, owner).head
        return None if head is None else head.mime_type

    async def events(self, id: str, owner: str | None = None) -> AsyncIterator[Event]:
        """News of a job until it is finished: first what is known, then what changes."""
        record, seen = await asyncio.to_thread(self._record, id, owner), Seen()
        with record.news.watched() as changed:
            while True:
                changed.clear()
                finished = record.job.finished  # before the news are told: none is missed
                for event in record.since(seen):
                    yield event
                if finished or self._manager.stopping:
                    return
                await changed.wait()

    async def stream(self, id: str, start: int = 0, owner: str | None = None) -> AsyncIterator[bytes]:
        """A fragmented MP4, as it is made, that begins with chunk number `start` (behind its head).

        Raises: JobFailed at its end if the job failed; InputError for a chunk below 0.
        """
        if start < 0:
            raise InputError(f"the stream cannot begin at chunk {start}; the first one is 0.")
        record = await asyncio.to_thread(self._record, id, owner)
        path, sent, headless = self.folder(id).stream, start, True
        with record.news.watched() as changed:
            while True:
                changed.clear()
                finished = record.job.finished
                while sent < len(record.chunks) and record.head is not None:
                    chunk = record.chunks[sent]
                    try:
                        with path.open("rb") as file:
                            head = file.read(record.head.size) if headless else b""
                            file.seek(chunk.offset)
                            data = file.read(chunk.size)
                    except FileNotFoundError:
                        raise NoSuchJob(f"the video {id} has been deleted.") from None
                    sent, headless = sent + 1, False
                    yield head + data
                if finished or self._manager.stopping:
                    break
                await changed.wait()
        if record.job.error is not None:
            raise JobFailed(*record.job.error)

    # ------------------------------------------------------------ inside

    def _record(self, id: str, owner: str | None = None) -> Record:
        record = self._records.get(id)
        if record is None or (owner is not None and record.job.owner != owner):
            raise NoSuchJob(f"there is no video {id[:100]!r}.")
        return record

    @staticmethod
    def _request(job: Job) -> VideoOptions:
        from ..requests import from_metadata

        return from_metadata({"request": job.request}, job.id)


@contextmanager
def _there(id: str) -> Iterator[None]:
    """Raises NoSuchJob for a row that somebody else has deleted meanwhile."""
    try:
        yield
    except KeyError:
        raise NoSuchJob(f"there is no video {id!r}.") from None


def _import_all() -> None:
    """Import what checks requests, so that the first one need not wait for it."""
    from ..requests import build_request, job_for

    job_for(build_request("any"))
