"""Live frames, a live prompt and a live voice over one WebSocket, in the messages of vLLM-Omni."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from functools import partial
from typing import Any

import anyio
import numpy as np
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from ..errors import AnimagicError
from ..jobs.errors import JobFailed
from ..jobs.job import Job
from ..jobs.service import Service
from ..jobs.store import StoreUnavailable
from .answers import video_of
from .bodies import inbox
from .errors import ApiError, as_answer, unusable
from .fields import parse_json
from .handing_in import Order, new_video
from .security import Caller

router = APIRouter()
START_IN = 10.0
"""Seconds until the first message must be there."""
MOST_START, MOST_CONTROL, MOST_SOUND = 4 * 2**20, 128 * 2**10, 2**20
"""Bytes of the first message, of a later one, and of one with sound."""


class Session:
    """One connection: one video that is sent while it is made, and ends with the connection."""

    def __init__(self, socket: WebSocket, service: Service, caller: Caller):
        self.socket, self.service, self.caller = socket, service, caller
        self.sending = asyncio.Lock()
        self.said: dict[str, tuple[Any, int]] = {}
        """Id of an interaction -> what was asked, and the chunk from which on it counts."""
        self.job: Job
        self.stopped = False

    async def run(self) -> None:
        try:
            with anyio.fail_after(START_IN):
                first = await self.socket.receive()
            self.job = await self._begin(first)
        except TimeoutError:
            await self._fail(ApiError(408, f"nothing was asked for within {START_IN:g} s.", "start_timeout"))
            return
        except (ApiError, AnimagicError, StoreUnavailable) as error:
            await self._fail(as_answer(error))
            return
        sender, receiver = asyncio.create_task(self._send_video()), asyncio.create_task(self._listen())
        try:
            await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sender, receiver):
                task.cancel()
            with anyio.CancelScope(shield=True):
                results = await asyncio.gather(sender, receiver, return_exceptions=True)
                await anyio.to_thread.run_sync(self._end)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
                raise result

    def _end(self) -> None:
        """Whoever was connected has gone, or has it all: nobody waits for the rest."""
        with contextlib.suppress(AnimagicError):
            if not self.service.get(self.job.id).finished:
                self.service.cancel(self.job.id)

    async def _begin(self, message: Any) -> Job:
        given = self._control(message, MOST_START, "session.start")
        if given.pop("format", "m4s") != "m4s":
            raise unusable("the format can only be m4s.", "format")
        with inbox(self.service, self.caller.sees) as box:
            order = Order(self.service, self.caller, given, box, "")
            job = await anyio.to_thread.run_sync(new_video, order)
        video = await anyio.to_thread.run_sync(video_of, job)
        width, height = (int(side) for side in video["size"].split("x"))
        config = {"model": job.model, "prompt": video["prompt"], "seed": video["seed"], **video["options"]}
        facts = {"mime_type": None, "fps": video["fps"], "width": width, "height": height, "config": config}
        await self._send(job, "video.start", id=job.id, format="m4s", **facts)
        return job

    def _control(self, message: Any, most: int, kind: str | None = None) -> dict[str, Any]:
        """A message of JSON, without its type if `kind` is the one that it must have. Raises ApiError."""
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1000)
        text = message.get("text")
        if text is None:
            raise ApiError(400, "a message of text is needed here.", "invalid_message")
        if len(text.encode("utf-8", "surrogatepass")) > most:
            raise ApiError(413, f"the message is larger than {most} bytes.", "message_too_large")
        value = parse_json(text, "the message")
        if not isinstance(value, dict) or not isinstance(value.get("type"), str):
            raise ApiError(400, "a message is an object with a type.", "invalid_message")
        if kind is not None and value.pop("type") != kind:
            raise ApiError(400, f"the first message must be {kind}.", "invalid_message")
        return value

    # ------------------------------------------------------------ to the client

    async def _send(self, job: Job, type: str, *, payload: bytes | None = None, **facts: Any) -> None:
        async with self.sending:  # a message and its bytes stay together
            await self.socket.send_text(json.dumps({"type": type, "request_id": job.id, **facts}))
            if payload is not None:
                await self.socket.send_bytes(payload)

    async def _fail(self, error: ApiError) -> None:
        message = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await self.socket.send_text(json.dumps(message))
            await self.socket.close(1011 if error.status >= 500 else 1008)

    async def _send_video(self) -> None:
        held, place, sent, frames = b"", 0, 0, 0
        try:
            async for piece in self.service.stream(self.job.id):
                held, place = held + piece, place + len(piece)
                chunks = self.service.folder(self.job.id).chunks
                ended = next((i for i, c in enumerate(chunks) if c.offset + c.size == place), None)
                if ended is None:  # the head, which goes with the first chunk
                    continue
                chunk = chunks[ended]
                await self._send_chunk(ended, chunk, held)
                held, sent, frames = b"", sent + 1, chunk.start + chunk.frames
        except JobFailed as error:
            if not self.stopped:
                await self._fail(ApiError(500, str(error), error.code))
                return
        await self._send(self.job, "session.done", id=self.job.id, chunks=sent, frames=frames, stopped=self.stopped)
        await self.socket.close()

    async def _send_chunk(self, index: int, chunk: Any, data: bytes) -> None:
        begun = [event for event, (_, start) in self.said.items() if start == index]
        await self._send(
            self.job,
            "video.chunk_metadata",
            payload=data,
            kind="media" if chunk.frames else "trailer",
            transport_chunk_index=index,
            generation_chunk_index=index,
            start=chunk.start,
            num_frames=chunk.frames,
            byte_length=len(data),
            mime_type=self.service.mime_type(self.job.id),
            started_event_ids=begun,
            active_event_ids=begun,
            completed_event_ids=begun,
        )

    # ------------------------------------------------------------ from the client

    async def _listen(self) -> None:
        while True:
            message = await self.socket.receive()
            if message.get("bytes") is not None:
                await self._hear(message["bytes"])
                continue
            event = None
            try:
                given = self._control(message, MOST_CONTROL)
                event = (
                    given.get("interaction", {}).get("event_id") if isinstance(given.get("interaction"), dict) else None
                )
                await self._obey(given)
            except (ApiError, AnimagicError, StoreUnavailable) as error:
                answer = as_answer(error)
                code = answer.code if isinstance(error, ApiError) else "interaction_failed"
                about: dict[str, Any] = {"event_id": event} if isinstance(event, str) else {}
                await self._send(self.job, "error", code=code, message=answer.message, **about)

    async def _obey(self, given: dict[str, Any]) -> None:
        kind = given["type"]
        if kind == "session.ping":
            await self._send(self.job, "session.pong")
        elif kind == "session.stop":
            self.stopped = True
            await anyio.to_thread.run_sync(self.service.cancel, self.job.id)
        elif kind == "session.sound_end":
            await self._sound(np.zeros(0, np.float32), True)
        elif kind == "session.interaction":
            await self._interact(given.get("interaction"))
        else:
            raise ApiError(400, f"the message {kind[:60]} is unknown.", "invalid_message")

    async def _interact(self, interaction: Any) -> None:
        event = interaction.get("event") if isinstance(interaction, dict) else None
        text = event.get("prompt") if isinstance(event, dict) else None
        if not isinstance(event, dict) or not isinstance(text, str):
            raise ApiError(400, 'give {"interaction": {"event": {"prompt": ...}}}.', "invalid_message", "interaction")
        if event.keys() - {"prompt"} or interaction.get("transition_chunks") not in (None, 0):
            sentence = "only the prompt can change, at once; how prompts hand over is said by hand_over at the start."
            raise ApiError(400, sentence, "interaction_failed", "interaction")
        id = interaction.get("event_id") or uuid.uuid4().hex
        if not isinstance(id, str) or len(id) > 200:
            raise ApiError(400, "the event_id must be a text of at most 200 characters.", "invalid_message", "event_id")
        if id not in self.said:
            chunk = await anyio.to_thread.run_sync(partial(self.service.prompt, self.job.id, text))
            self.said[id] = (text, chunk)
        elif self.said[id][0] != text:
            raise ApiError(409, f"the event_id {id} was used for another prompt.", "event_id_conflict", "event_id")
        await self._send(self.job, "session.interaction.queued", event_id=id, chunk=self.said[id][1])

    async def _hear(self, data: bytes) -> None:
        try:
            if len(data) > MOST_SOUND or len(data) % 4:
                raise ApiError(
                    400, f"sound is float32 at 16 kHz, at most {MOST_SOUND} bytes a message.", "invalid_sound"
                )
            samples = np.frombuffer(data, "<f4")
            if not np.isfinite(samples).all():
                raise ApiError(400, "the sound holds values that are no numbers.", "invalid_sound")
            await self._sound(samples, False)
        except (ApiError, AnimagicError) as error:
            answer = as_answer(error)
            await self._send(self.job, "error", code=answer.code, message=answer.message)

    async def _sound(self, samples: np.ndarray, end: bool) -> None:
        await anyio.to_thread.run_sync(self.service.sound, self.job.id, samples, end)


@router.websocket("/v1/realtime/video")
async def realtime(socket: WebSocket) -> None:
    await socket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        await Session(socket, socket.app.state.service, socket.scope["state"]["caller"]).run()
