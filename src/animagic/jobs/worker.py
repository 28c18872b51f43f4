"""The process that makes the videos of a server, one after the other: `python -m animagic.jobs.worker FD SETTINGS`.

It speaks through the pipe FD with `animagic.jobs.process`, in tuples that begin with a word:

    in:   make (id, root), stop (id), end (id), prompt (number, id, text, chunk), quit ()
    out:  ready (), begun (id, facts), report (id, report), preview (id), chunk (id, chunk), note (id, line),
          answer (number, chunk, sentence), done (id, result, request), stopped (id), failed (id, code, sentence),
          broken (id, sentence), after which the process ends

SETTINGS is JSON: device, memory, frames (the most of a video without an end), threads. Without a reader at the other
end of the pipe the process ends.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import sys
import threading
import time
import traceback
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..errors import AnimagicError, InputError
from ..requests import Report, from_metadata, generate
from .folder import Folder
from .models import WarmModels
from .prompts import JobPrompt
from .streams import StreamWriter
from .voices import VoiceFile

OFTEN = 0.05
"""Seconds between two reports, at least."""


class Stopped(BaseException):
    """Somebody has stopped the job: not an error, which others might catch."""


class Task:
    """A job in the hands of the worker.

    Attributes:
        stop: whether it ends at the next step.
        ended: whether a video without an end is complete with what is final.
        prompt: what changes the prompt; None: the model cannot.
    """

    def __init__(self, id: str, root: str):
        self.id, self.folder = id, Folder(Path(root))
        self.request = from_metadata({"request": json.loads(self.folder.request.read_text("utf-8"))}, id)
        self.stop = self.ended = False
        self.voice = VoiceFile(self.folder, check=self.check)
        self.prompt: JobPrompt | None = None
        if "live" in type(self.request).model_fields:
            self.prompt = JobPrompt({0: self.request.prompt} | self.request.prompts_at, self.folder.prompts)

    def check(self) -> None:
        """Raises Stopped if somebody has stopped it."""
        if self.stop:
            raise Stopped

    def say(self, text: str, chunk: int | None) -> int:
        """Change the prompt. Raises InputError."""
        if self.prompt is None:
            raise InputError(f"the prompt of the model {self.request.model} cannot change while the video is made.")
        return self.prompt.set(text, chunk)


class Worker:
    """Makes videos. What arrives meanwhile is read in a thread of its own, so that it counts at the next step."""

    def __init__(self, connection: Connection, settings: dict[str, Any]):
        self._connection, self._sending = connection, threading.Lock()
        self._tasks: dict[str, Task] = {}
        self._todo: queue.Queue[Task] = queue.Queue()
        self._models = WarmModels(settings["device"], settings["memory"])
        self._most_frames: int = settings["frames"]

    def send(self, *message: Any) -> None:
        with self._sending:
            self._connection.send(message)

    # ------------------------------------------------------------ what comes in

    def listen(self) -> None:
        """Take messages until the pipe ends, and this process with it."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                word, *rest = self._connection.recv()
                if word == "quit":
                    break
                if word == "make":
                    self._take(*rest)
                elif word == "prompt":
                    self._change_prompt(*rest)
                elif (task := self._tasks.get(rest[0])) is not None:
                    task.stop, task.ended = task.stop or word == "stop", task.ended or word == "end"
        os._exit(0)  # the server is gone: nobody waits for what is being made

    def _take(self, id: str, root: str) -> None:
        try:
            self._tasks[id] = task = Task(id, root)
        except (AnimagicError, OSError, ValueError) as error:
            self.send("failed", id, "server_error", f"the request of {id} cannot be read: {error}")
        else:
            self._todo.put(task)

    def _change_prompt(self, number: int, id: str, text: str, chunk: int | None) -> None:
        task = self._tasks.get(id)
        try:
            if task is None:
                raise InputError("the video is finished: its prompt cannot change any more.")
            self.send("answer", number, task.say(text, chunk), None)
        except (AnimagicError, OSError) as error:
            self.send("answer", number, None, str(error))

    # ------------------------------------------------------------ the work

    def run(self) -> None:
        """Make what is asked for, until the process ends."""
        self.send("ready")
        while True:
            task = self._todo.get()
            try:
                outcome = self._outcome(task)
            except BaseException as error:  # what others' code left behind is not known: a fresh process is safer
                with task.folder.log.open("a", encoding="utf-8") as log:
                    traceback.print_exc(file=log)
                traceback.print_exc()
                reason = "; its log has the details" if not _is_memory(error) else ": the memory is too small for it"
                self.send("broken", task.id, f"the server could not make this video{reason}.")
                os._exit(1)
            del self._tasks[task.id]
            self.send(*outcome)

    def _outcome(self, task: Task) -> tuple[Any, ...]:
        """The message about what has become of a task."""
        try:
            return "done", task.id, *self._make(task)
        except Stopped:
            return "stopped", task.id
        except KeyboardInterrupt:
            return "failed", task.id, "cancelled", "The video was ended before any of its frames was final."
        except (AnimagicError, OSError) as error:
            if _is_full(error):
                return (
                    "failed",
                    task.id,
                    "server_error",
                    "the disk of this server is full; delete videos, and try again.",
                )
            if not isinstance(error, AnimagicError):
                raise
            return "failed", task.id, "invalid_request", str(error)

    def _make(self, task: Task) -> tuple[dict[str, Any], dict[str, Any]]:
        """Make a video; its result, and the request with what was said and chosen meanwhile."""
        folder, request = task.folder, task.request
        task.check()
        fitted = self._models.fit(request, task.prompt)
        if fitted is not None:
            self.send("note", task.id, str(fitted))
            request = request.changed(tiling=fitted.techniques.tiling)
        pipe = self._models.get(request, folder.inputs, task.prompt, fitted)
        task.check()
        made = _Made(self, task)
        with contextlib.closing(made):
            result = generate(
                request,
                folder.video,
                pipe=pipe,
                preview=folder.preview,
                resume=True,
                latents=folder.latents,
                live=task.prompt,
                voice=task.voice,
                stop=lambda: task.ended or made.frames >= self._most_frames,
                on_begin=made.begin,
                on_frames=made.add,
                on_report=made.report,
                on_note=lambda line: self.send("note", task.id, line),
            )
            made.finish()
        from ..media import read_metadata

        folder.prompts.unlink(missing_ok=True)
        return asdict(result), read_metadata(folder.video)["request"]


class _Made:
    """What is told of a video while it is made."""

    def __init__(self, worker: Worker, task: Task):
        self._worker, self._task = worker, task
        self._stream: StreamWriter | None = None
        self._reported, self._shown, self._clean = 0.0, 0, -1
        self.frames = 0

    def begin(self, job: Any) -> None:
        task, (height, width) = self._task, job.output_size
        plan = job.plan()
        if task.prompt is not None:
            task.prompt.chunks = plan.num_chunks
        fps = job.request.fps or job.fps
        self._stream = StreamWriter(task.folder, fps, height, width, job.sound, job.sound_start, self._on_chunk)
        self._worker.send("begun", task.id, asdict(self._stream.head))

    def add(self, pixels: Any, start: int) -> None:
        assert self._stream is not None
        self._task.check()
        self._stream.write(pixels)
        self.frames = start + len(pixels)

    def report(self, report: Report) -> None:
        now, task = time.monotonic(), self._task
        if now - self._reported >= OFTEN or report.frames != self._clean:
            self._reported, self._clean = now, report.frames
            self._worker.send("report", task.id, asdict(report))
        with contextlib.suppress(FileNotFoundError):
            if (shown := task.folder.preview.stat().st_mtime_ns) != self._shown:
                self._shown = shown
                self._worker.send("preview", task.id)
        task.check()

    def finish(self) -> None:
        assert self._stream is not None
        self._stream.finish()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _on_chunk(self, piece: Any) -> None:
        self._worker.send("chunk", self._task.id, asdict(piece))


def _is_full(error: BaseException | None) -> bool:
    """Whether the disk being full is the cause of an error."""
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or "disk is full" in str(error):
            return True
        error = error.__cause__
    return False


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def main() -> None:
    from ..pipelines.devices import use_threads

    settings = json.loads(sys.argv[2])
    with contextlib.suppress(OSError, AttributeError):
        os.nice(10)  # answers of the server come first
        Path("/proc/self/oom_score_adj").write_text("500")  # if memory ends, rather this process than the server
    use_threads(settings["threads"])
    worker = Worker(Connection(int(sys.argv[1])), settings)
    threading.Thread(target=worker.listen, daemon=True).start()
    worker.run()


if __name__ == "__main__":
    main()
