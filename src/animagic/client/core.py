"""The calls of a server as steps that neither wait nor know of sockets; the two clients carry them out."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..errors import InputError, first_line
from .replies import RequestRefused, ServerError, Video, VideoFailed

URL = "http://127.0.0.1:8000"
URL_VARIABLE, KEY_VARIABLE = "ANIMAGIC_URL", "ANIMAGIC_KEY"
Variant = Literal["video", "thumbnail", "spritesheet"]
Watch = Callable[[Video], None]
Result = TypeVar("Result")

_BUSY = (429, 503)
_LONGEST_PAUSE = 60.0  # seconds
_AWAY = "start one with `animagic serve`, or give the address of another"


@dataclass(frozen=True)
class Call:
    """A request. file: (name, path or bytes) to upload; save: where the answer is written to."""

    method: str
    path: str
    body: Any = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    file: tuple[str, Path | bytes] | None = None
    save: Path | None = None

    @property
    def repeatable(self) -> bool:
        """Whether it does no harm if the server gets it twice."""
        return self.method == "GET" or "Idempotency-Key" in self.headers

    def arguments(self, open_files: ExitStack) -> dict[str, Any]:
        """For httpx; the file is opened for as long as `open_files`."""
        given: dict[str, Any] = {"params": dict(self.params), "headers": dict(self.headers)}
        if self.file is not None:
            name, content = self.file
            opened = open_files.enter_context(content.open("rb")) if isinstance(content, Path) else content
            given |= {"files": {"file": (name, opened)}, "data": {"purpose": "user_data"}}
        elif self.body is not None:
            given |= {"content": as_json(self.body)}
            given["headers"] |= {"Content-Type": "application/json"}
        return given


@dataclass(frozen=True)
class Pause:
    """Seconds to wait."""

    seconds: float


@dataclass(frozen=True)
class Answer:
    """What came back; status 0: nothing did, and `body` says why."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ServerError(f"the server answers with something that is no JSON ({self.body[:60]!r}).") from error


Steps = Generator[Call | Pause, Answer, Result]


def nothing(error: Exception) -> Answer:
    """The answer where the connection failed."""
    return Answer(0, body=first_line(error).encode())


def import_httpx() -> Any:
    try:
        import httpx
    except ModuleNotFoundError:
        raise InputError("the client needs httpx, which is not installed: pip install 'animagic[client]'.") from None
    return httpx


class Core:
    """Addresses, bodies, retries and errors of a server's calls.

    Args:
        url: of the server; None: what $ANIMAGIC_URL says, or this machine.
        key: that the server asks for; None: what $ANIMAGIC_KEY says.
        retries: how often a request is sent again if the server is busy or cannot be reached.
    """

    def __init__(self, url: str | None, key: str | None, retries: int):
        self.url = (url or os.environ.get(URL_VARIABLE) or URL).rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise InputError(f"the address {self.url} does not begin with http:// or https://; give it like {URL}.")
        key = key or os.environ.get(KEY_VARIABLE)
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.retries = retries

    # ------------------------------------------------------------ one call

    def reply(self, call: Call) -> Steps[Answer]:
        """The answer to a call that went well; what is only for now is tried again."""
        for attempt in range(self.retries + 1):
            answer = yield call
            if 200 <= answer.status < 300:
                return answer
            for_now = answer.status in _BUSY or (answer.status == 0 and call.repeatable)
            if not for_now or attempt == self.retries:
                break
            yield Pause(_pause(answer, attempt))
        raise self.error(answer)

    def error(self, answer: Answer) -> Exception:
        """What to raise for an answer that is none."""
        if not answer.status:
            return ServerError(f"the server {self.url} does not answer ({answer.body.decode()}); {_AWAY}.")
        try:
            said = json.loads(answer.body)["error"]
            message, code = str(said["message"]), said.get("code")
        except (ValueError, LookupError, TypeError, AttributeError):
            message, code = f"the server answers {answer.status}: {answer.body[:200].decode(errors='replace')}", None
        if answer.status >= 500:
            return ServerError(message)
        return RequestRefused(message, answer.status, code)

    # ------------------------------------------------------------ the calls

    def generate(
        self,
        prompt: str,
        model: str | None,
        wait: bool,
        on_progress: Watch | None,
        idempotency: str | None,
        options: Mapping[str, Any],
    ) -> Steps[Video]:
        body = {"prompt": prompt, **({} if model is None else {"model": model})}
        return (yield from self._make("/v1/videos", body, wait, on_progress, idempotency, options))

    def remix(
        self, video: Video | str, prompt: str, wait: bool, on_progress: Watch | None, options: Mapping[str, Any]
    ) -> Steps[Video]:
        path = f"{_path(video)}/remix"
        return (yield from self._make(path, {"prompt": prompt}, wait, on_progress, None, options))

    def extend(
        self, video: Video | str, prompt: str, wait: bool, on_progress: Watch | None, options: Mapping[str, Any]
    ) -> Steps[Video]:
        body = {"prompt": prompt, "video": {"id": _id(video)}}
        return (yield from self._make("/v1/videos/extensions", body, wait, on_progress, None, options))

    def _make(
        self,
        path: str,
        body: dict[str, Any],
        wait: bool,
        on_progress: Watch | None,
        idempotency: str | None,
        options: Mapping[str, Any],
    ) -> Steps[Video]:
        body |= yield from self.sent(options)
        # With a key of its own, a request whose answer was lost can be sent again.
        headers = {"Idempotency-Key": idempotency or secrets.token_hex(16)}
        answer = yield from self.reply(Call("POST", path, body, headers=headers))
        video = Video.read(answer.json)
        return (yield from self.wait(video, on_progress)) if wait else video

    def wait(self, video: Video | str, on_progress: Watch | None) -> Steps[Video]:
        """Until it is completed. Raises VideoFailed."""
        while True:
            answer = yield from self.reply(Call("GET", _path(video)))
            now = Video.read(answer.json)
            if on_progress is not None:
                on_progress(now)
            if now.status == "failed":
                raise VideoFailed(now)
            if now.finished:
                return now
            yield Pause(_number(answer.headers.get("openai-poll-after-ms"), 1000.0) / 1000)

    def video(self, method: str, video: Video | str, after: str = "", body: Any = None) -> Steps[Video]:
        """A call about one video, which answers with it."""
        answer = yield from self.reply(Call(method, _path(video) + after, body))
        return Video.read(answer.json)

    def listed(self, after: str | None, limit: int | None, order: str | None) -> Steps[list[Video]]:
        given = {"after": after, "limit": limit, "order": order}
        params = {name: value for name, value in given.items() if value is not None}
        answer = yield from self.reply(Call("GET", "/v1/videos", params=params))
        return [Video.read(one) for one in answer.json["data"]]

    def delete(self, video: Video | str) -> Steps[None]:
        yield from self.reply(Call("DELETE", _path(video)))

    def prompt(self, video: Video | str, prompt: str, chunk: int | None) -> Steps[int]:
        body = {"prompt": prompt, **({} if chunk is None else {"chunk": chunk})}
        answer = yield from self.reply(Call("POST", f"{_path(video)}/prompt", body))
        return int(answer.json["chunk"])

    def models(self) -> Steps[list[dict[str, Any]]]:
        return (yield from self.reply(Call("GET", "/v1/models"))).json["data"]

    def download(self, video: Video | str, path: Path, variant: Variant) -> Steps[Path]:
        call = Call("GET", f"{_path(video)}/content", params={"variant": variant}, save=path)
        yield from self.reply(call)
        return path

    def stream(self, video: Video | str, start: int) -> Call:
        return Call("GET", f"{_path(video)}/stream", params={"from": start} if start else {})

    def events(self, video: Video | str) -> Call:
        return Call("GET", f"{_path(video)}/events", headers={"Accept": "text/event-stream"})

    # ------------------------------------------------------------ files

    def sent(self, options: Mapping[str, Any]) -> Steps[dict[str, Any]]:
        """Options as the server takes them: what they hold of files (paths, bytes) is uploaded."""
        body: dict[str, Any] = {}
        for name, value in options.items():
            if isinstance(value, Mapping):
                held: Any = {}
                for key, one in value.items():
                    held[key] = yield from self._one(name, one)
            elif isinstance(value, (list, tuple)):
                held = []
                for one in value:
                    held.append((yield from self._one(name, one)))
            else:
                held = yield from self._one(name, value)
            body[name] = held
        return body

    def _one(self, option: str, value: Any) -> Steps[Any]:
        if not isinstance(value, (Path, bytes)):
            return value
        if isinstance(value, Path) and not value.is_file():
            raise InputError(f"{option} is {value}, which is no file; give one that is there.")
        name = value.name if isinstance(value, Path) else option
        answer = yield from self.reply(Call("POST", "/v1/files", file=(name, value)))
        return {"file_id": answer.json["id"]}


def _id(video: Video | str) -> str:
    name = video.id if isinstance(video, Video) else video
    if not name or not name.replace("_", "").replace("-", "").isalnum():
        raise InputError(f"{name!r} is not the id of a video; give what `generate` or `list` gave.")
    return name


def _path(video: Video | str) -> str:
    return f"/v1/videos/{_id(video)}"


def as_json(body: Any) -> bytes:
    """Raises InputError for what JSON cannot hold."""
    try:
        return json.dumps(body).encode()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"an option has a value that cannot be sent ({error}); give texts, numbers, and files as pathlib.Path."
        ) from error


def _number(text: str | None, default: float) -> float:
    try:
        return min(max(0.0, float(text or default)), 1000 * _LONGEST_PAUSE)
    except ValueError:
        return default


def _pause(answer: Answer, attempt: int) -> float:
    """Seconds until a request is sent again: as the server says, else longer each time."""
    return min(_number(answer.headers.get("retry-after"), 0.5 * 2**attempt), _LONGEST_PAUSE)
