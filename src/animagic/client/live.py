"""One connection over which a video comes while it is made, and prompts and sound go."""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, first_line
from .core import Answer, Core, as_json, nothing
from .replies import RequestRefused, ServerError

if TYPE_CHECKING:
    import numpy as np

_PATH = "/v1/realtime/video"


@dataclass(frozen=True)
class Fragment:
    """A piece of fragmented MP4: of which chunk, its first frame, how many frames. The first one begins with the
    head."""

    data: bytes
    chunk: int
    start: int
    frames: int


class _Session:
    """What has been said over a connection.

    Attributes:
        id: of the video on the server, as `Client.get` takes it; None until the first fragment.
        mime_type: for MediaSource.addSourceBuffer; "" until the first fragment.
        done: whether the video has ended.
        begins: event id of a later prompt -> the chunk it begins with.
    """

    def __init__(self, socket: Any, core: Core):
        self._socket, self._core = socket, core
        self._numbers = itertools.count(1)
        self._about: dict[str, Any] | None = None
        self.id: str | None = None
        self.mime_type = ""
        self.done = False
        self.begins: dict[str, int] = {}

    def _read(self, message: str | bytes) -> Fragment | None:
        if isinstance(message, bytes):
            if self._about is None:
                raise ServerError("the server sent a fragment without saying of which chunk.")
            about, self._about = self._about, None
            return Fragment(message, about["generation_chunk_index"], about["start"], about["num_frames"])
        said = json.loads(message)
        kind = said["type"]
        if kind == "video.start":
            self.id = said["id"]
        elif kind == "video.chunk_metadata":
            self._about, self.mime_type = said, said["mime_type"]
        elif kind == "session.interaction.queued":
            self.begins[said["event_id"]] = said.get("chunk", 0)
        elif kind == "session.done":
            self.done = True
        elif kind == "error":
            raise RequestRefused(said["message"], 400, said.get("code"))
        return None

    def _prompt(self, text: str) -> tuple[str, str]:
        event = f"prompt-{next(self._numbers)}"
        said = {"event_id": event, "event": {"prompt": text}}
        return event, json.dumps({"type": "session.interaction", "interaction": said})


_STOP = json.dumps({"type": "session.stop"})
_END_OF_SOUND = json.dumps({"type": "session.sound_end"})


class Live(_Session):
    """A video that is being made: an iterator over its fragments, which ends with the video."""

    def __iter__(self) -> Live:
        return self

    def __next__(self) -> Fragment:
        """The next fragment. Raises RequestRefused for a prompt that the server refuses; the iteration can go on."""
        while not self.done:
            with _said_plainly(self._core):
                message = self._socket.recv()
            if (fragment := self._read(message)) is not None:
                return fragment
        raise StopIteration

    def prompt(self, text: str) -> str:
        """Another prompt, from the next chunk on that is not begun; returns its event id, see `begins`."""
        event, message = self._prompt(text)
        self._send(message)
        return event

    def sound(self, samples: np.ndarray) -> None:
        """What is heard next: 16 kHz, float32 (n,), from -1 to 1."""
        self._send(_as_bytes(samples))

    def end_sound(self) -> None:
        """There is no more to hear."""
        self._send(_END_OF_SOUND)

    def stop(self) -> None:
        """End the video with the frames that are final; what remains of them still comes."""
        self._send(_STOP)

    def _send(self, message: str | bytes) -> None:
        with _said_plainly(self._core):
            self._socket.send(message)


class AsyncLive(_Session):
    """As `Live`, for asyncio."""

    def __aiter__(self) -> AsyncLive:
        return self

    async def __anext__(self) -> Fragment:
        """See `Live`."""
        while not self.done:
            with _said_plainly(self._core):
                message = await self._socket.recv()
            if (fragment := self._read(message)) is not None:
                return fragment
        raise StopAsyncIteration

    async def prompt(self, text: str) -> str:
        """See `Live.prompt`."""
        event, message = self._prompt(text)
        await self._send(message)
        return event

    async def sound(self, samples: np.ndarray) -> None:
        """See `Live.sound`."""
        await self._send(_as_bytes(samples))

    async def end_sound(self) -> None:
        """See `Live.end_sound`."""
        await self._send(_END_OF_SOUND)

    async def stop(self) -> None:
        """See `Live.stop`."""
        await self._send(_STOP)

    async def _send(self, message: str | bytes) -> None:
        with _said_plainly(self._core):
            await self._socket.send(message)


@contextmanager
def connect(core: Core, prompt: str, model: str | None, options: Mapping[str, Any], timeout: float) -> Iterator[Live]:
    """A live session, begun; ended with the context."""
    with _said_plainly(core):
        socket = _websockets("websockets.sync.client").connect(**_opening(core, timeout))
    with socket:
        live = Live(socket, core)
        live._send(_start(prompt, model, options))
        yield live


@asynccontextmanager
async def connect_async(
    core: Core, prompt: str, model: str | None, options: Mapping[str, Any], timeout: float
) -> AsyncIterator[AsyncLive]:
    """See `connect`."""
    with _said_plainly(core):
        socket = await _websockets("websockets.asyncio.client").connect(**_opening(core, timeout))
    async with socket:
        live = AsyncLive(socket, core)
        await live._send(_start(prompt, model, options))
        yield live


def _opening(core: Core, timeout: float) -> dict[str, Any]:
    uri = core.url.replace("http", "ws", 1) + _PATH
    return {"uri": uri, "additional_headers": core.headers, "open_timeout": timeout, "max_size": None}


def _start(prompt: str, model: str | None, options: Mapping[str, Any]) -> str:
    named = {} if model is None else {"model": model}
    return as_json({"type": "session.start", "format": "m4s", "prompt": prompt, **named, **options}).decode()


def _as_bytes(samples: np.ndarray) -> bytes:
    if getattr(samples, "ndim", None) != 1 or samples.dtype.kind != "f":
        raise InputError("sound is sent as float32 samples (n,) of 16 kHz, from -1 to 1.")
    return samples.astype("<f4").tobytes()


def _websockets(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise InputError("a live session needs websockets: pip install 'animagic[client]'.") from None


@contextmanager
def _said_plainly(core: Core) -> Iterator[None]:
    """What websockets raises, in our words."""
    exceptions = _websockets("websockets.exceptions")
    try:
        yield
    except exceptions.InvalidStatus as error:
        answer = error.response
        raise core.error(Answer(answer.status_code, answer.headers, answer.body or b"")) from None
    except exceptions.ConnectionClosed as error:
        raise ServerError(f"the live session ended before its video did ({first_line(error)}).") from error
    except (OSError, exceptions.WebSocketException) as error:
        raise core.error(nothing(error)) from error
