"""Errors as OpenAI's clients expect them: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import AnimagicError, MediaError
from ..jobs.errors import NoSuchJob, OutOfSpace, TooLarge, TooMany
from ..jobs.store import IdempotencyConflict, StoreUnavailable

RETRY_AFTER = {429: "10", 503: "5"}
"""Seconds after which it is worth asking again."""
_TYPES = {429: "rate_limit_error", 401: "authentication_error", 403: "permission_error"}


class ApiError(Exception):
    """An answer that is an error.

    Args:
        message: one sentence. code: for programs. param: the field that is wrong.
    """

    def __init__(self, status: int, message: str, code: str, param: str | None = None, **headers: str):
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = headers


def unusable(message: str, param: str | None = None) -> ApiError:
    """The answer to a value that cannot be used."""
    return ApiError(400, message, "invalid_value", param)


def as_answer(error: Exception) -> ApiError:
    """What a client is told about an error that was raised for it."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, NoSuchJob):
        return ApiError(404, str(error), "not_found")
    if isinstance(error, TooMany):
        return ApiError(429, str(error), "too_many_jobs")
    if isinstance(error, TooLarge):
        return ApiError(413, str(error), "file_too_large")
    if isinstance(error, OutOfSpace):
        return ApiError(507, str(error), "disk_full")
    if isinstance(error, IdempotencyConflict):
        return ApiError(422, str(error), "idempotency_key_reused")  # 409 would make OpenAI's client try again
    if isinstance(error, StoreUnavailable):
        return ApiError(503, str(error), "store_unavailable")
    if isinstance(error, MediaError):
        return ApiError(400, str(error), "invalid_file")
    if isinstance(error, AnimagicError):
        return unusable(str(error))
    raise error


def body_of(answer: ApiError) -> dict[str, Any]:
    kind = _TYPES.get(answer.status, "invalid_request_error" if answer.status < 500 else "server_error")
    return {"error": {"message": answer.message, "type": kind, "param": answer.param, "code": answer.code}}


def respond(answer: ApiError) -> JSONResponse:
    headers = {name.replace("_", "-"): value for name, value in answer.headers.items()}
    if answer.status in RETRY_AFTER:
        headers.setdefault("Retry-After", RETRY_AFTER[answer.status])
    return JSONResponse(body_of(answer), answer.status, headers)


def add_handlers(app: FastAPI) -> None:
    async def known(request: Request, error: Exception) -> JSONResponse:
        return respond(as_answer(error))

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        name = str(first["loc"][-1])
        return respond(unusable(f"{name} cannot be used: {first['msg'].lower()}.", name))

    async def of_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        where = f"{request.method} {request.url.path}"
        message = {404: f"there is nothing at {where}.", 405: f"{where} is not possible here."}
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
        answer = ApiError(error.status_code, message.get(error.status_code, str(error.detail)), code)
        answer.headers = dict(error.headers or {})
        return respond(answer)

    for kind in (ApiError, AnimagicError, StoreUnavailable):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, of_http)
