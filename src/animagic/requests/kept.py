"""Runs that are kept beside their output while they go on, and what they remember."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import AnimagicError, InputError
from .request import Request


def resume_folder(output: Path) -> Path:
    """Where an unfinished run of `output` is kept."""
    return output.with_name(output.name + ".resume")


def kept_seed(output: Path) -> int:
    """The seed of the unfinished run of `output`, or a new one."""
    note = resume_folder(output) / "request.json"
    if note.exists():
        try:
            return int(_read_note(note)["seed"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{note} is damaged; delete {note.parent} and start again.") from error
    return secrets.randbelow(2**32)


def enhance(request: Request, enhancer: Callable[[str], str], kept: str | Path | None = None) -> Request:
    """The request with its prompts as an enhancer writes them; the words given stay in it as `prompt_given`.

    kept: an output whose unfinished run is to go on; what these very words became then is taken again.
    """
    as_given = replace(request, prompt_given=request.prompt, prompts_at_given=request.prompts_at)
    note = resume_folder(Path(kept)) / "request.json" if kept is not None else None
    if note is not None and note.exists():
        earlier = Request.from_metadata({"request": _read_note(note)}, str(note))
        if (earlier.prompt_given, earlier.prompts_at_given) == (request.prompt, request.prompts_at):
            return replace(as_given, prompt=earlier.prompt, prompts_at=earlier.prompts_at)
    prompts_at = {chunk: enhancer(text) for chunk, text in request.prompts_at.items()}
    return replace(as_given, prompt=enhancer(request.prompt), prompts_at=prompts_at)


def forget_unbegun(kept: Any, kind: Any, error: BaseException | None, trace: Any) -> None:
    """Remove the folder of a run that was refused before anything was made: a corrected one must be able to begin."""
    if isinstance(error, AnimagicError) and not (kept.folder / "state.safetensors").exists():
        kept.remove()


def _read_note(note: Path) -> dict[str, Any]:
    """What a run that is kept was asked for."""
    try:
        fields = json.loads(note.read_text("utf-8"))
        if not isinstance(fields, dict):
            raise TypeError
        return fields
    except (TypeError, ValueError) as error:
        raise InputError(f"{note} is damaged; delete {note.parent} and start again.") from error
