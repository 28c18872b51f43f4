"""A server of a few lines that speaks as ours does and makes videos of nothing, and clients of it: what a client does
when the server is busy, breaks off or fails is seen only with one that does so on purpose."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import threading
import time
from collections import Counter
from contextlib import suppress

import pytest

pytest.importorskip("httpx", reason="the clients need httpx: pip install -e '.[client]'")
pytest.importorskip("starlette", reason="a server needs starlette: pip install -e '.[serve]'")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


class StandIn:
    """What it was asked, and how it is to behave.

    Attributes:
        answers: replies to give first, before it does what it is asked: status -> how often is left.
        polls: how often a video is asked for until it is completed.
        fails: whether videos fail. breaks: whether streams break off.
    """

    def __init__(self):
        self.videos: dict[str, dict] = {}
        self.asked: dict[str, dict] = {}
        self.keys: dict[str, str] = {}
        self.files: dict[str, tuple[str, bytes]] = {}
        self.calls: Counter[str] = Counter()
        self.headers: dict[str, str] = {}
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.polls = 2
        self.fails = self.breaks = False
        self.said: list[dict] = []
        self.sound = b""
        routes = [
            Route("/v1/videos", self.create, methods=["POST"]),
            Route("/v1/videos", self.list),
            Route("/v1/videos/extensions", self.create, methods=["POST"]),
            Route("/v1/videos/{id}", self.get),
            Route("/v1/videos/{id}", self.delete, methods=["DELETE"]),
            Route("/v1/videos/{id}/remix", self.create, methods=["POST"]),
            Route("/v1/videos/{id}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/videos/{id}/prompt", self.prompt, methods=["POST"]),
            Route("/v1/videos/{id}/content", self.content),
            Route("/v1/videos/{id}/stream", self.stream),
            Route("/v1/videos/{id}/events", self.events),
            Route("/v1/files", self.upload, methods=["POST"]),
            Route("/v1/models", self.models),
            WebSocketRoute("/v1/realtime/video", self.live),
        ]
        self._app = Starlette(routes=routes)

    async def app(self, scope, receive, send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            self.calls[f"{request.method} {request.url.path.rpartition('/')[2]}"] += 1
            self.headers = dict(request.headers)
            if self.answers:
                status, headers = self.answers.pop(0)
                return await refusal(f"not now ({status}).", status, headers)(scope, receive, send)
        return await self._app(scope, receive, send)

    async def create(self, request: Request):
        key = request.headers["idempotency-key"]
        if key not in self.keys:
            self.keys[key] = f"video_{len(self.videos):02x}"
            asked = json.loads(await request.body())
            if not asked["prompt"].strip():
                return refusal("the prompt is empty; say what the video should show.")
            made = {"id": self.keys[key], "object": "video", "model": asked.get("model", "magi1-tiny"), "progress": 0}
            self.videos[self.keys[key]] = made | {"status": "queued", "created_at": 1, "prompt": asked["prompt"]}
            self.asked[self.keys[key]] = asked
        return JSONResponse(self.videos[self.keys[key]])

    async def get(self, request: Request):
        video = self.videos.get(request.path_params["id"])
        if video is None:
            return refusal("there is no such video.", 404)
        if self.fails:
            video |= {"status": "failed", "error": {"code": "invalid_input", "message": "the size is odd."}}
        elif video["status"] != "completed":
            video["progress"] += 100 // self.polls
            video["status"] = "completed" if video["progress"] == 100 else "in_progress"
        return JSONResponse(video, headers={"openai-poll-after-ms": "10"})

    async def list(self, request: Request):
        limit = int(request.query_params.get("limit", 20))
        data = list(self.videos.values())[::-1][:limit]
        return JSONResponse({"object": "list", "data": data, "has_more": False})

    async def delete(self, request: Request):
        del self.videos[request.path_params["id"]]
        return JSONResponse({"id": request.path_params["id"], "object": "video.deleted", "deleted": True})

    async def cancel(self, request: Request):
        error = {"code": "cancelled", "message": "the video was cancelled."}
        return JSONResponse(self.videos[request.path_params["id"]] | {"status": "failed", "error": error})

    async def prompt(self, request: Request):
        return JSONResponse({"chunk": json.loads(await request.body()).get("chunk", 3)})

    async def content(self, request: Request):
        what = request.query_params["variant"].encode()
        if not self.breaks:
            return Response(what * 1000, media_type="video/mp4")
        return StreamingResponse(self._broken(), headers={"content-length": "5000"})

    async def _broken(self):
        yield b"some"
        raise RuntimeError("on purpose")

    async def stream(self, request: Request):
        async def pieces():
            for chunk in range(int(request.query_params.get("from", 0)), 3):
                yield f"chunk {chunk};".encode()
                await asyncio.sleep(0.01)
                if self.breaks:
                    raise RuntimeError("on purpose")

        return StreamingResponse(pieces(), media_type="video/mp4")

    async def events(self, request: Request):
        async def lines():
            yield ": a comment\n\n"
            for kind, data in (
                ("status", {"status": "queued"}),
                ("progress", {"step": 1}),
                ("status", {"progress": 100}),
            ):
                yield f"event: {kind}\ndata: {json.dumps(data)}\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def upload(self, request: Request):
        async with request.form() as form:
            file = form["file"]
            name = f"file_{len(self.files)}"
            self.files[name] = (file.filename, await file.read())
        return JSONResponse({"id": name, "object": "file"})

    async def models(self, request: Request):
        return JSONResponse({"object": "list", "data": [{"id": "magi1-tiny"}]})

    async def live(self, socket: WebSocket):
        await socket.accept()
        start = await socket.receive_json()
        self.said.append(start)
        await socket.send_json({"type": "video.start", "id": "video_live", "mime_type": None})
        with suppress(WebSocketDisconnect):
            for chunk in range(start["chunks"]):
                about = {"type": "video.chunk_metadata", "mime_type": "video/mp4; codecs=x"}
                about |= {"generation_chunk_index": chunk, "start": 8 * chunk, "num_frames": 8}
                await socket.send_json(about)
                await socket.send_bytes(f"chunk {chunk}".encode())
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if message.get("bytes"):
                    self.sound += message["bytes"]
                    continue
                said = json.loads(message["text"])
                self.said.append(said)
                if said["type"] == "session.stop":
                    break
                if said["type"] == "session.interaction":
                    event = said["interaction"]["event_id"]
                    if not said["interaction"]["event"]["prompt"]:
                        await socket.send_json(
                            {"type": "error", "code": "interaction_failed", "message": "the prompt is empty."}
                        )
                    else:
                        queued = {"type": "session.interaction.queued", "event_id": event, "chunk": chunk + 2}
                        await socket.send_json(queued)
            await socket.send_json({"type": "session.done", "id": "video_live"})


def refusal(message: str, status: int = 400, headers: dict[str, str] | None = None) -> JSONResponse:
    error = {"message": message, "type": "invalid_request_error", "code": "invalid_input", "param": None}
    return JSONResponse({"error": error}, status, headers)


class Both:
    """Calls a client of either kind, and gives what it returns; of an iterator, a list."""

    def __init__(self, kind, url: str, loop: asyncio.AbstractEventLoop, **settings):
        self.client, self._loop = kind(url, "ak_secret", **settings), loop

    def __getattr__(self, name: str):
        def call(*arguments, **options):
            result = getattr(self.client, name)(*arguments, **options)
            if inspect.iscoroutine(result):
                return self._loop.run_until_complete(result)
            if hasattr(result, "__anext__"):
                return self._loop.run_until_complete(_listed(result))
            return list(result) if inspect.isgenerator(result) else result

        return call


async def _listed(iterator) -> list:
    return [one async for one in iterator]


@pytest.fixture
def server():
    """The stand-in, running; `url` is its address."""
    import uvicorn

    stand_in = StandIn()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(stand_in.app, interface="asgi3", log_level="critical", ws="websockets-sansio")
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, args=([listener],), daemon=True)
        thread.start()
        while not running.started:
            time.sleep(0.01)
        stand_in.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield stand_in
        running.should_exit = True
        thread.join()


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(params=["Client", "AsyncClient"])
def client(server, loop, request):
    """A client of the stand-in; the test sees no difference between the two."""
    import animagic

    both = Both(getattr(animagic, request.param), server.url, loop)
    yield both
    both.close()
