"""What a server answers, and what goes wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import AnimagicError, InputError


class RequestRefused(InputError):
    """The server refused a request; the message is its sentence.

    Attributes:
        status: of HTTP. code: the server's own word for the reason.
    """

    def __init__(self, message: str, status: int, code: str | None):
        super().__init__(message)
        self.status, self.code = status, code


class ServerError(AnimagicError):
    """The server does not answer, or cannot do what it should."""


class VideoFailed(AnimagicError):
    """A video was not made.

    Attributes:
        video: as the server knows it; video.error is (code, sentence), code "cancelled" if somebody stopped it.
    """

    def __init__(self, video: Video):
        code, sentence = video.error or ("unknown", "the server does not say why.")
        super().__init__(sentence if sentence.startswith("the video") else f"the video {video.id} failed: {sentence}")
        self.video, self.code = video, code


@dataclass(frozen=True)
class Video:
    """A video on the server, finished or not.

    Args:
        status: "queued", "in_progress", "completed" or "failed".
        progress: 0 to 100.
        created_at, completed_at, expires_at: seconds since 1970.
        error: (code, sentence) of one that failed.
        details: everything that the server says of it, under the server's names.
    """

    id: str
    status: str
    model: str = ""
    progress: int = 0
    created_at: float = 0.0
    completed_at: float | None = None
    expires_at: float | None = None
    error: tuple[str, str] | None = None
    prompt: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def finished(self) -> bool:
        return self.status in ("completed", "failed")

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Video:
        """From what the server says. Raises ServerError if that is no video."""
        try:
            error = answer.get("error")
            return cls(
                id=answer["id"],
                status=answer["status"],
                model=answer.get("model", ""),
                progress=answer.get("progress", 0),
                created_at=answer.get("created_at", 0.0),
                completed_at=answer.get("completed_at"),
                expires_at=answer.get("expires_at"),
                error=(error["code"], error["message"]) if error else None,
                prompt=answer.get("prompt"),
                details=answer,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ServerError(f"the server answers with something that is no video ({answer!r:.80}).") from error


Videos = list[Video]
Models = list[dict[str, Any]]


@dataclass(frozen=True)
class Event:
    """Something that happened to a video. kind: "status", "progress", "preview", "chunk" or "note"; data: of it."""

    kind: str
    data: dict[str, Any]


class EventReader:
    """Events from the lines of a stream of server-sent events."""

    def __init__(self) -> None:
        self._kind, self._data = "message", list[str]()

    def read(self, line: str) -> Event | None:
        """The event that ends with this line, if one does."""
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        elif not line and self._data:
            event = Event(self._kind, json.loads("\n".join(self._data)))
            self._kind, self._data = "message", []
            return event
        return None
