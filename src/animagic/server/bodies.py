"""What comes with a request: JSON or a form, with files that are measured before anything in them is decoded."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from fastapi import Request
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from ..errors import MediaError
from ..jobs.inputs import check_file
from ..jobs.service import Service
from ..jobs.settings import Limits
from ..media.headers import Header, read_header
from .errors import ApiError, unusable
from .fields import Form, Taken, parse_json

MOST_JSON = 32 * 2**20
"""Bytes of a body of JSON, which is held in memory several times over."""
MOST_TEXT = 2**20
"""Bytes of all texts of a form, and of one of them."""
MOST_PARTS = 64
PATIENCE = 30.0
"""Seconds that a client may be silent while it sends a body."""


@dataclass
class Inbox:
    """The files of one request, in a folder that goes when the request has been answered."""

    folder: Path
    service: Service
    owner: str | None
    count: int = 0
    names: dict[str, str] = field(default_factory=dict)
    """What its files were called where they came from, which is never a path here."""

    def take(self, value: Any, name: str) -> Taken:
        """The file that a value stands for. Raises ApiError."""
        if isinstance(value, Mapping) and len(value) == 1:
            ((key, value),) = value.items()
            if key not in ("file_id", "image_url"):
                raise unusable(f"{name} needs a file, its file_id, or a data URL as image_url.", name)
        if isinstance(value, Path):
            return self._measured(value, name)
        if not isinstance(value, str):
            raise unusable(f"{name} needs a file: send one, or give its id or a data URL.", name)
        if value.startswith("file_"):
            return self._uploaded(value, name)
        if value.startswith("data:"):
            return self._measured(self._decoded(value, name), name)
        if re.match(r"[a-z][a-z0-9+.-]*://", value, re.IGNORECASE):
            raise ApiError(400, f"{name} is a URL, and URLs are not fetched: send the file.", "url_not_fetched", name)
        raise unusable(f"{name} is no file of this server: send one, or give its id or a data URL.", name)

    def new(self) -> Path:
        self.count += 1
        return self.folder / f"{self.count}"

    def _decoded(self, url: str, name: str) -> Path:
        head, comma, data = url.partition(",")
        if not comma or not head.endswith(";base64"):
            raise unusable(f"{name} must be a data URL in base64: data:image/png;base64,...", name)
        try:
            content = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise unusable(f"{name} is no base64: {error}.", name) from error
        path = self.new()
        path.write_bytes(content)
        return path

    def _uploaded(self, id: str, name: str) -> Taken:
        path = find_upload(self.service, id, self.owner)
        return Taken(str(path), read_header(path).kind)

    def _measured(self, path: Path, name: str) -> Taken:
        header = measure(path, self.service.settings.limits, name)
        named = path.with_name(f"{path.name}{header.suffix}")
        path.rename(named)
        return Taken(str(named), header.kind)


def find_upload(service: Service, id: str, owner: str | None) -> Path:
    """Where a file lies that was sent ahead. Raises ApiError."""
    found = service.store.get_upload(id)
    if found is None or owner not in (None, found.owner):
        raise ApiError(404, f"there is no file {id[:60]}.", "file_not_found")
    path = next(upload_folder(service).glob(f"{found.id}.*"), None)
    if path is None:
        raise ApiError(404, f"the file {found.id} is gone; send it again.", "file_not_found")
    return path


def upload_folder(service: Service) -> Path:
    folder = service.settings.folder / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def measure(path: Path, limits: Limits, name: str) -> Header:
    """What a file is. Raises TooLarge, and ApiError for what is none of ours."""
    try:
        return check_file(path, name, limits)
    except MediaError as error:
        raise ApiError(400, str(error).replace(str(path), name), "invalid_file", name) from error


@contextlib.contextmanager
def inbox(service: Service, owner: str | None) -> Iterator[Inbox]:
    """A folder for the files of one request; a disk that is full is told in a sentence."""
    place = service.settings.folder / "incoming"
    place.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        yield Inbox(folder, service, owner)
    except OSError as error:
        if isinstance(error, MediaError) or error.errno not in (28, 122):  # ENOSPC, EDQUOT
            raise
        raise ApiError(507, "the server's disk is full; try again later.", "disk_full") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def read_body(request: Request, box: Inbox) -> dict[str, Any]:
    """The fields of a request: of JSON as they are; of a form `Form`s with texts and paths, names[in][brackets] put
    together. Raises ApiError: for a body that is too large while it arrives."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ApiError(415, "send the body as it is, without a Content-Encoding.", "unsupported_media_type")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_form(request, box)
    if kind and kind != "application/json":
        raise ApiError(415, f"send application/json or multipart/form-data, not {kind[:60]}.", "unsupported_media_type")
    body = b"".join([piece async for piece in _pieces(request, MOST_JSON)])
    value = parse_json(body) if body else {}
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be an object with fields.", "invalid_json")
    return value


async def _pieces(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    def too_large() -> ApiError:
        return ApiError(
            413, f"the body is larger than {most} bytes, which is the most.", "body_too_large", Connection="close"
        )

    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:20]) > most:
        raise too_large()
    count, stream = 0, request.stream()
    while True:
        try:
            with anyio.fail_after(PATIENCE):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise ApiError(408, "the body did not arrive in time.", "timeout", Connection="close") from None
        count += len(piece)
        if count > most:
            raise too_large()
        yield piece


async def _read_form(request: Request, box: Inbox) -> dict[str, Any]:
    limit = box.service.settings.limits.upload + MOST_TEXT
    limits = {"max_files": MOST_PARTS, "max_fields": 4 * MOST_PARTS, "max_part_size": MOST_TEXT}
    try:
        form = await MultiPartParser(request.headers, _pieces(request, limit), **limits).parse()
    except (MultiPartException, FormParserError) as error:
        message = str(getattr(error, "message", error)).rstrip(".").lower() or "it is cut off"
        raise ApiError(400, f"the form cannot be read: {message}.", "invalid_form") from error
    found: dict[str, Any] = {}
    try:
        for name, value in form.multi_items():
            _check(name, value if isinstance(value, str) else value.filename or "")
            if isinstance(value, UploadFile):
                path = box.new()
                box.names[path.name] = (value.filename or "")[:255]
                with path.open("wb") as file:
                    await anyio.to_thread.run_sync(shutil.copyfileobj, value.file, file)
                _add(found, name, path)
            else:
                _add(found, name, value)
    finally:
        await form.close()
    return found


def _check(name: str, text: str) -> None:
    """Raises ApiError for what databases do not keep; clients may name any encoding."""
    try:
        (name + text).encode()
    except UnicodeError as error:
        raise ApiError(400, "the form holds characters that are none; send it as UTF-8.", "invalid_form") from error
    if "\0" in name + text:
        raise ApiError(400, "the form holds the character U+0000; leave it out.", "invalid_form")


def _add(found: dict[str, Any], name: str, value: Any) -> None:
    base, key = name, None
    if match := re.fullmatch(r"([^\[\]]+)\[([^\[\]]*)\]", name):
        base, key = match.groups()
    if key:
        inside = found.setdefault(base, {})
        if isinstance(inside, dict) and key not in inside:
            inside[key] = value
            return
    else:
        values = found.setdefault(base, Form())
        if isinstance(values, Form):
            values.append(value)
            return
    raise ApiError(400, f"{base} is given in two ways; choose one.", "invalid_form", base)
