"""Runs that are kept beside their output while they go on, and what they remember."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import AnimagicError, InputError
from ..pipelines.options import VideoOptions
from ..timeline.resume import NOTE, STATE, is_whole
from .request import from_metadata


def resume_folder(output: Path) -> Path:
    """Where an unfinished run of `output` is kept."""
    return output.with_name(output.name + ".resume")


def kept_seed(output: Path) -> int:
    """The seed of the unfinished run of `output`, or a new one."""
    note = resume_folder(output) / NOTE
    if _is_kept(note):
        try:
            return int(_read_note(note)["seed"])
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise InputError(f"{note} is damaged; delete {note.parent} and start again.") from error
    return secrets.randbelow(2**32)


def run_note(request: VideoOptions, fingerprints: dict[str, str], output: Path) -> dict[str, Any]:
    """The note of a kept run of `output`: the request and the fingerprints of its inputs.

    A run that an earlier version has kept is the same run if its request means the same; its note is given then.
    """
    note = resume_folder(output) / NOTE
    if _is_kept(note):
        earlier = _read_note(note)
        try:
            same = from_metadata({"request": earlier}, str(note)).stored() == request.stored()
        except AnimagicError:
            same = False
        if same and earlier.get("inputs") == fingerprints:
            return earlier
    return {**request.stored(), "inputs": fingerprints}


def enhance(request: VideoOptions, enhancer: Callable[[str], str], kept: str | Path | None = None) -> VideoOptions:
    """The request with its prompts as an enhancer writes them; the prompts given stay in it as `prompt_given`.

    kept: an output whose unfinished run is to go on; what these very prompts became then is taken again.
    """
    given = {"prompt_given": request.prompt, "prompts_at_given": request.prompts_at}
    note = resume_folder(Path(kept)) / NOTE if kept is not None else None
    if note is not None and _is_kept(note):
        earlier = from_metadata({"request": _read_note(note)}, str(note))
        if (earlier.prompt_given, earlier.prompts_at_given) == (request.prompt, request.prompts_at):
            return request.changed(prompt=earlier.prompt, prompts_at=earlier.prompts_at, **given)
    prompts_at = {start: enhancer(text) for start, text in request.prompts_at.items()}
    return request.changed(prompt=enhancer(request.prompt), prompts_at=prompts_at, **given)


def forget_unbegun(kept: Any, kind: Any, error: BaseException | None, trace: Any) -> None:
    """Remove the folder of a run that was refused before anything was made: a corrected one must be able to begin."""
    if isinstance(error, AnimagicError) and not (kept.folder / STATE).exists():
        kept.remove()


def _is_kept(note: Path) -> bool:
    """Whether there is a run to go on with. One that was killed while it wrote its note had made nothing."""
    return note.is_file() and (note.with_name(STATE).exists() or is_whole(note.read_bytes()))


def _read_note(note: Path) -> dict[str, Any]:
    """The request of a run that is kept, as it was stored."""
    try:
        fields = json.loads(note.read_text("utf-8"))
        if not isinstance(fields, dict):
            raise TypeError
        return fields
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{note} is damaged; delete {note.parent} and start again.") from error
