"""Who may ask for what: keys, pages of other sites, and a line in the log for every request."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import time
import traceback
import uuid
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..jobs.keys import Keys
from ..jobs.store import StoreUnavailable
from .errors import ApiError, as_answer, respond
from .metrics import Metrics

log = logging.getLogger("animagic.server")
COOKIE = "animagic_key"
OPEN = ("/healthz",)
"""Paths that need no key."""
LOCAL = ("localhost", "127.0.0.1", "::1")
_REQUEST_ID = re.compile(r"[\w.:-]{1,100}", re.ASCII)


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Args:
        owner: id of the key; "" where none is needed.
        name: of the key, for the log.
        queued: the most unfinished jobs; None: as the server's limits say.
    """

    owner: str = ""
    name: str = ""
    priority: int = 0
    queued: int | None = None

    @property
    def sees(self) -> str | None:
        """Whose jobs may be seen; None: everybody's."""
        return self.owner or None


class CutOff(Exception):
    """An answer that has begun cannot be ended as it should: the connection is closed, so that the client knows."""


class Guard:
    """Lets through who has a key, or asks from this machine where none is needed.

    Args:
        keys: None: no key is needed.
        hosts: names by which the server may be called; None: any. Else a page could have a name of its own lead here.
    """

    def __init__(self, app: ASGIApp, keys: Keys | None, hosts: tuple[str, ...] | None):
        self.app, self.keys, self.hosts = app, keys, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        try:
            self._check_site(scope, headers)
            if self.keys is not None and scope["path"] == "/" and (token := _query_key(scope)):
                await self._caller(token)
                return await _signed_in(scope, token)(scope, receive, send)
            needed = self.keys is not None and scope["path"] not in OPEN
            caller = await self._caller(_token(headers)) if needed else Caller()
        except (ApiError, StoreUnavailable) as error:
            if scope["type"] == "websocket":
                return await send({"type": "websocket.close", "code": 1008, "reason": str(error)[:100]})
            return await respond(as_answer(error))(scope, receive, send)
        scope.setdefault("state", {})["caller"] = caller
        return await self.app(scope, receive, send)

    def _check_site(self, scope: Scope, headers: Headers) -> None:
        """Raises ApiError for what another site makes a browser send."""
        host = _host(f"//{headers.get('host', '')}")
        if self.hosts is not None and host not in self.hosts:
            raise ApiError(403, f"this server is not called {host[:60]!r}; use http://{self.hosts[0]}.", "wrong_host")
        changes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD", "OPTIONS")
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit_netloc(origin) != headers.get("host", "").lower()
        if changes and (foreign or headers.get("sec-fetch-site") == "cross-site"):
            raise ApiError(403, "pages of other sites may not ask for anything here.", "cross_site")

    async def _caller(self, token: str) -> Caller:
        assert self.keys is not None
        key = await anyio.to_thread.run_sync(self.keys.check, token) if token else None
        if key is None:
            message = "the key is not known." if token else "a key is needed: Authorization: Bearer ak_..."
            raise ApiError(401, message, "invalid_api_key", WWW_Authenticate="Bearer")
        return Caller(key.id, key.name, key.priority, key.queued)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def urlsplit_netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def _token(headers: Headers) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie else ""


def _query_key(scope: Scope) -> str:
    return parse_qs(scope["query_string"].decode("latin-1")).get("key", [""])[0] if scope["type"] == "http" else ""


def _signed_in(scope: Scope, token: str) -> RedirectResponse:
    answer = RedirectResponse(scope.get("root_path", "") + "/", 303, {"Referrer-Policy": "no-referrer"})
    secure = scope.get("scheme") == "https"
    answer.set_cookie(COOKIE, token, max_age=30 * 86_400, httponly=True, samesite="strict", secure=secure)
    return answer


class Log:
    """Gives each request an id, and writes a line of JSON about it to the log when it is over."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id", "")
        id = given if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = id
        facts: dict[str, Any] = {"status": 0 if scope["type"] == "http" else 101, "bytes": 0, "whole": False}

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                facts["status"] = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = id
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            elif message["type"] == "http.response.body":
                facts["bytes"] += len(message.get("body", b""))
                facts["whole"] = not message.get("more_body", False)
            elif message["type"] == "websocket.close":
                facts["status"], facts["whole"] = message.get("code", 1000), True
            elif message["type"] == "websocket.send":
                facts["bytes"] += len(message.get("bytes") or b"") + len(message.get("text") or "")
            await send(message)

        began, fault = time.monotonic(), None
        try:
            await self.app(scope, receive, watched)
        except (ClientDisconnect, CutOff):
            facts["status"] = facts["status"] or 499
        except Exception as error:
            fault = "".join(traceback.format_exception(error))
            if scope["type"] == "websocket":
                with contextlib.suppress(Exception):  # it may be closed already
                    await watched({"type": "websocket.close", "code": 1011})
            elif not facts["status"]:
                answer = ApiError(500, f"a fault of ours; the server's log has it as {id}.", "internal_error")
                await respond(answer)(scope, receive, watched)
        finally:
            seconds = time.monotonic() - began
            self._write(scope, id, facts, seconds, fault)

    def _write(self, scope: Scope, id: str, facts: dict[str, Any], seconds: float, fault: str | None) -> None:
        method = scope.get("method", "WS")
        place = getattr(scope.get("route"), "path", "other")
        self.metrics.requests.labels(method, place, str(facts["status"])).observe(seconds)
        caller, client = scope.get("state", {}).get("caller"), scope.get("client")
        line = {
            "time": time.time(),
            "request_id": id,
            "method": method,
            "path": scope["path"],
            "status": facts["status"],
            "seconds": round(seconds, 6),
            "bytes": facts["bytes"],
            "key": caller.name if caller else None,
            "client": client[0] if client else None,
        }
        line |= {} if facts["whole"] else {"cut_off": True}
        line |= {"fault": fault} if fault else {}
        log.log(logging.ERROR if fault else logging.INFO, json.dumps(line))


def log_to_stderr() -> None:
    """Every line of the server's log goes to stderr as it is."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
