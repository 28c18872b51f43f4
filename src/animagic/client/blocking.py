"""The client that waits for its answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..media.files import atomic_path
from .core import Answer, Call, Core, Pause, Result, Steps, Variant, Watch, import_httpx, nothing
from .live import Live, connect
from .replies import Event, EventReader, Models, ServerError, Video, VideoFailed, Videos


class Client:
    """A client of a server that `animagic serve` runs; closed by `close`, or as a context manager.

    Files among the options are `pathlib.Path` or bytes, and are uploaded. A `video` is a `Video` or its id.

    Args:
        url: of the server; None: what $ANIMAGIC_URL says, or this machine.
        key: that the server asks for; None: what $ANIMAGIC_KEY says.
        timeout: seconds without a sign of the server; a video that is being made has no limit.
        retries: how often a request is sent again if the server is busy, as long after as it asks for, or cannot be
            reached.
    Raises (every call): InputError with the server's sentence for what it refuses; ServerError if it fails or does not
        answer.
    """

    def __init__(self, url: str | None = None, key: str | None = None, *, timeout: float = 60.0, retries: int = 5):
        self._httpx = import_httpx()
        self._core = Core(url, key, retries)
        self._timeout = timeout
        self._http = self._httpx.Client(base_url=self._core.url, headers=self._core.headers, timeout=timeout)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ------------------------------------------------------------ making videos

    def generate(
        self,
        prompt: str,
        model: str | None = None,
        *,
        wait: bool = True,
        on_progress: Watch | None = None,
        idempotency: str | None = None,
        **options: Any,
    ) -> Video:
        """Have a video made.

        Args:
            model: a name that `models` lists; None: the server's default.
            wait: until it is completed; otherwise the video returned is queued.
            on_progress: told the video each time the server is asked for it.
            idempotency: with the same key again, the video of the first time is returned; None: a new one.
            options: of the model's system, by their names: frames, seed, image=Path("photo.png"), ...
        Raises: VideoFailed.
        """
        return self._run(self._core.generate(prompt, model, wait, on_progress, idempotency, options))

    def remix(
        self, video: Video | str, prompt: str, *, wait: bool = True, on_progress: Watch | None = None, **options: Any
    ) -> Video:
        """As a video was made, with another prompt, and other options if they are given. Raises: VideoFailed."""
        return self._run(self._core.remix(video, prompt, wait, on_progress, options))

    def extend(
        self, video: Video | str, prompt: str, *, wait: bool = True, on_progress: Watch | None = None, **options: Any
    ) -> Video:
        """A video that goes on from the end of another, by so many `frames` or `seconds`. Raises: VideoFailed."""
        return self._run(self._core.extend(video, prompt, wait, on_progress, options))

    def wait(self, video: Video | str, on_progress: Watch | None = None) -> Video:
        """Wait until a video is completed. Raises: VideoFailed."""
        return self._run(self._core.wait(video, on_progress))

    def prompt(self, video: Video | str, prompt: str, chunk: int | None = None) -> int:
        """Give a video that is being made another prompt, from a chunk on (None: the next); returns the chunk."""
        return self._run(self._core.prompt(video, prompt, chunk))

    # ------------------------------------------------------------ videos that are there

    def get(self, video: Video | str) -> Video:
        """The video as it is now."""
        return self._run(self._core.video("GET", video))

    def list(self, after: str | None = None, limit: int | None = None, order: str | None = None) -> Videos:
        """Videos, newest first (order "asc": oldest first), at most `limit` of those after the id `after`."""
        return self._run(self._core.listed(after, limit, order))

    def cancel(self, video: Video | str) -> Video:
        """Stop a video that is queued, or being made, then at its next step; it is kept, as failed ("cancelled")."""
        return self._run(self._core.video("POST", video, "/cancel"))

    def delete(self, video: Video | str) -> None:
        """Delete a video; one that is being made is stopped first."""
        self._run(self._core.delete(video))

    def download(self, video: Video | str, path: str | Path, variant: Variant = "video") -> Path:
        """Write a completed video, or a picture of it, to a file, which is there when it is whole.

        Raises: MediaError if it cannot be written.
        """
        return self._run(self._core.download(video, Path(path), variant))

    def models(self) -> Models:
        """The server's models, with their "id", and what else it says of them."""
        return self._run(self._core.models())

    # ------------------------------------------------------------ while they are made

    def stream(self, video: Video | str, start: int = 0) -> Iterator[bytes]:
        """A video as fragmented MP4, from that chunk on, while it is made. Raises: VideoFailed."""
        with self._open(self._core.stream(video, start), video) as response:
            yield from response.iter_bytes()

    def events(self, video: Video | str) -> Iterator[Event]:
        """What happens to a video until it is finished; first its present state."""
        reader = EventReader()
        with self._open(self._core.events(video), video) as response:
            for line in response.iter_lines():
                if (event := reader.read(line)) is not None:
                    yield event

    @contextmanager
    def live(self, prompt: str, model: str | None = None, **options: Any) -> Iterator[Live]:
        """A connection over which a video comes while it is made, and prompts and sound go. Options as of `generate`.

        Leaving the context ends the video.
        """
        body = self._run(self._core.sent(options))
        with connect(self._core, prompt, model, body, self._timeout) as live:
            yield live

    # ------------------------------------------------------------ carrying them out

    def _run(self, steps: Steps[Result]) -> Result:
        try:
            todo = next(steps)
            while True:
                if isinstance(todo, Pause):
                    time.sleep(todo.seconds)
                    todo = next(steps)
                else:
                    todo = steps.send(self._send(todo))
        except StopIteration as end:
            return end.value

    def _send(self, call: Call) -> Answer:
        try:
            with ExitStack() as files:
                arguments = call.arguments(files)
                with self._http.stream(call.method, call.path, **arguments) as response:
                    if call.save is None or not response.is_success:
                        return Answer(response.status_code, response.headers, response.read())
                    with atomic_path(call.save) as part, part.open("wb") as file:
                        for piece in response.iter_bytes():
                            file.write(piece)
                    return Answer(response.status_code, response.headers)
        except self._httpx.TransportError as error:
            return nothing(error)

    @contextmanager
    def _open(self, call: Call, video: Video | str) -> Iterator[Any]:
        """The response to a call that is read while it comes."""
        try:
            timeout = self._httpx.Timeout(self._timeout, read=None)
            arguments = call.arguments(ExitStack()) | {"timeout": timeout}
            with self._http.stream(call.method, call.path, **arguments) as response:
                if not response.is_success:
                    error = self._core.error(Answer(response.status_code, response.headers, response.read()))
                    if getattr(error, "code", None) == "video_failed":
                        raise VideoFailed(self.get(video))
                    raise error
                yield response
        except self._httpx.TransportError as error:
            if (now := self.get(video)).status == "failed":
                raise VideoFailed(now) from None
            raise ServerError(f"the connection to {self._core.url} broke ({nothing(error).body.decode()}).") from error
