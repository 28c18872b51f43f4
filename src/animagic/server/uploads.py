"""Files that are sent ahead, to be named by their ids."""

from __future__ import annotations

import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import anyio
from fastapi import APIRouter, Request

from ..jobs.service import Service
from ..jobs.store import Upload
from .answers import CallerOf, ServiceOf
from .bodies import Inbox, find_upload, inbox, measure, read_body, upload_folder
from .errors import ApiError, unusable
from .fields import only

router = APIRouter(prefix="/v1/files", tags=["files"])
_FORM = {
    "type": "object",
    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"type": "string"}},
    "required": ["file"],
}


def file_of(upload: Upload) -> dict[str, Any]:
    facts = {"bytes": upload.bytes, "created_at": int(upload.created_at), "filename": upload.name}
    return {"id": upload.id, "object": "file", **facts, "purpose": "vision", "status": "processed"}


@router.post("", openapi_extra={"requestBody": {"content": {"multipart/form-data": {"schema": _FORM}}}})
async def send(request: Request, service: ServiceOf, caller: CallerOf) -> dict[str, Any]:
    """Send a picture, a video or a sound that requests can name by its id."""
    with inbox(service, caller.sees) as box:
        given = await read_body(request, box)
        path = only(given.pop("file", None), "file")
        if not isinstance(path, Path):
            raise unusable("the file is missing: send it as multipart/form-data.", "file")
        return await anyio.to_thread.run_sync(_keep, service, caller.owner, path, box)


def _keep(service: Service, owner: str, path: Path, box: Inbox) -> dict[str, Any]:
    header, size = measure(path, service.settings.limits, "file"), path.stat().st_size
    lying = sum(upload.bytes for upload in service.store.uploads(owner))
    most = service.settings.limits.uploads
    if lying + size > most:
        message = f"the files of this key would take {lying + size} bytes; the most is {most}: delete some."
        raise ApiError(413, message, "uploads_full", "file")
    id = f"file_{uuid.uuid4().hex}"
    shutil.move(path, upload_folder(service) / f"{id}{header.suffix}")
    name = box.names.get(path.name, "") or f"file{header.suffix}"
    return file_of(service.store.add_upload(Upload(id, owner, name, size, time.time())))


@router.get("")
def list_files(service: ServiceOf, caller: CallerOf) -> dict[str, Any]:
    """The files of the key."""
    data = [file_of(upload) for upload in service.store.uploads(caller.sees)]
    return {"object": "list", "data": data, "has_more": False}


@router.get("/{id}")
def retrieve(id: str, service: ServiceOf, caller: CallerOf) -> dict[str, Any]:
    """What is known of a file."""
    find_upload(service, id, caller.sees)
    upload = service.store.get_upload(id)
    assert upload is not None
    return file_of(upload)


@router.delete("/{id}")
def delete(id: str, service: ServiceOf, caller: CallerOf) -> dict[str, Any]:
    """Delete a file; jobs that were handed in with it have a copy."""
    path = find_upload(service, id, caller.sees)
    service.store.delete_upload(id)
    path.unlink(missing_ok=True)
    return {"id": id, "deleted": True, "object": "file"}
