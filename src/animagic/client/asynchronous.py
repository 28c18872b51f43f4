"""The client for asyncio. What its calls do is said in `blocking`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from ..media.files import atomic_path
from .core import Answer, Call, Core, Pause, Result, Steps, Variant, Watch, import_httpx, nothing
from .live import AsyncLive, connect_async
from .replies import Event, EventReader, Models, ServerError, Video, VideoFailed, Videos


class AsyncClient:
    """As `Client`, for asyncio: its calls are awaited, its iterators are asynchronous."""

    def __init__(self, url: str | None = None, key: str | None = None, *, timeout: float = 60.0, retries: int = 5):
        self._httpx = import_httpx()
        self._core = Core(url, key, retries)
        self._timeout = timeout
        self._http = self._httpx.AsyncClient(base_url=self._core.url, headers=self._core.headers, timeout=timeout)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def generate(
        self,
        prompt: str,
        model: str | None = None,
        *,
        wait: bool = True,
        on_progress: Watch | None = None,
        idempotency: str | None = None,
        **options: Any,
    ) -> Video:
        """See `Client.generate`."""
        return await self._run(self._core.generate(prompt, model, wait, on_progress, idempotency, options))

    async def remix(
        self, video: Video | str, prompt: str, *, wait: bool = True, on_progress: Watch | None = None, **options: Any
    ) -> Video:
        """See `Client.remix`."""
        return await self._run(self._core.remix(video, prompt, wait, on_progress, options))

    async def extend(
        self, video: Video | str, prompt: str, *, wait: bool = True, on_progress: Watch | None = None, **options: Any
    ) -> Video:
        """See `Client.extend`."""
        return await self._run(self._core.extend(video, prompt, wait, on_progress, options))

    async def wait(self, video: Video | str, on_progress: Watch | None = None) -> Video:
        """See `Client.wait`."""
        return await self._run(self._core.wait(video, on_progress))

    async def prompt(self, video: Video | str, prompt: str, chunk: int | None = None) -> int:
        """See `Client.prompt`."""
        return await self._run(self._core.prompt(video, prompt, chunk))

    async def get(self, video: Video | str) -> Video:
        """See `Client.get`."""
        return await self._run(self._core.video("GET", video))

    async def list(self, after: str | None = None, limit: int | None = None, order: str | None = None) -> Videos:
        """See `Client.list`."""
        return await self._run(self._core.listed(after, limit, order))

    async def cancel(self, video: Video | str) -> Video:
        """See `Client.cancel`."""
        return await self._run(self._core.video("POST", video, "/cancel"))

    async def delete(self, video: Video | str) -> None:
        """See `Client.delete`."""
        await self._run(self._core.delete(video))

    async def download(self, video: Video | str, path: str | Path, variant: Variant = "video") -> Path:
        """See `Client.download`."""
        return await self._run(self._core.download(video, Path(path), variant))

    async def models(self) -> Models:
        """See `Client.models`."""
        return await self._run(self._core.models())

    async def stream(self, video: Video | str, start: int = 0) -> AsyncIterator[bytes]:
        """See `Client.stream`."""
        async with self._open(self._core.stream(video, start), video) as response:
            async for piece in response.aiter_bytes():
                yield piece

    async def events(self, video: Video | str) -> AsyncIterator[Event]:
        """See `Client.events`."""
        reader = EventReader()
        async with self._open(self._core.events(video), video) as response:
            async for line in response.aiter_lines():
                if (event := reader.read(line)) is not None:
                    yield event

    @asynccontextmanager
    async def live(self, prompt: str, model: str | None = None, **options: Any) -> AsyncIterator[AsyncLive]:
        """See `Client.live`."""
        body = await self._run(self._core.sent(options))
        async with connect_async(self._core, prompt, model, body, self._timeout) as live:
            yield live

    async def _run(self, steps: Steps[Result]) -> Result:
        try:
            todo = next(steps)
            while True:
                if isinstance(todo, Pause):
                    await asyncio.sleep(todo.seconds)
                    todo = next(steps)
                else:
                    todo = steps.send(await self._send(todo))
        except StopIteration as end:
            return end.value

    async def _send(self, call: Call) -> Answer:
        try:
            with ExitStack() as files:
                arguments = call.arguments(files)
                async with self._http.stream(call.method, call.path, **arguments) as response:
                    if call.save is None or not response.is_success:
                        return Answer(response.status_code, response.headers, await response.aread())
                    with atomic_path(call.save) as part, part.open("wb") as file:
                        async for piece in response.aiter_bytes():
                            file.write(piece)
                    return Answer(response.status_code, response.headers)
        except self._httpx.TransportError as error:
            return nothing(error)

    @asynccontextmanager
    async def _open(self, call: Call, video: Video | str) -> AsyncIterator[Any]:
        try:
            timeout = self._httpx.Timeout(self._timeout, read=None)
            arguments = call.arguments(ExitStack()) | {"timeout": timeout}
            async with self._http.stream(call.method, call.path, **arguments) as response:
                if not response.is_success:
                    error = self._core.error(Answer(response.status_code, response.headers, await response.aread()))
                    if getattr(error, "code", None) == "video_failed":
                        raise VideoFailed(await self.get(video))
                    raise error
                yield response
        except self._httpx.TransportError as error:
            if (now := await self.get(video)).status == "failed":
                raise VideoFailed(now) from None
            raise ServerError(f"the connection to {self._core.url} broke ({nothing(error).body.decode()}).") from error
