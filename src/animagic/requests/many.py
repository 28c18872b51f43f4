"""Several videos in one folder, as original inference files ask for them, with a sheet that shows them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from ..errors import InputError, MediaError
from ..media import contact_sheet, iter_video, probe, read_metadata, resize, write_image
from ..media.keeping import check_ours
from ..pipelines.job import Video
from ..pipelines.options import VideoOptions
from .generation import generate, pipeline_for
from .kept import kept_seed
from .request import Report, Result, from_metadata, slug

Reporting = Callable[[int, int, VideoOptions], AbstractContextManager[Callable[[Report], None] | None]]
FORMATS = ("mp4", "webm", "gif")
SHEET = "sheet.png"
_SHEET_COLUMNS = 8
_SHEET_OF = "videos"  # in the metadata of the sheet


def generate_all(
    videos: Sequence[Video],
    folder: str | Path,
    *,
    format: str = "mp4",
    resume: bool = False,
    device: str | None = None,
    allow_pickle: bool = False,
    reporting: Callable[[int, int, VideoOptions], AbstractContextManager[Callable[[Report], None] | None]]
    | None = None,
) -> Iterator[Result]:
    """Make every video, `N-PROMPT.mp4` in a folder, and yield what came out of each; at the end, `sheet.png` shows
    them all, a row each.

    Args:
        format: of FORMATS.
        resume: keep what is in the making, go on with it, and leave as they are videos that are finished.
        device, allow_pickle: see `generate`.
        reporting: called with a video's number, how many there are, and its request, gives a context in which it is
            made, and `on_report` for it.
    Raises: as `generate`; InputError for videos that are there already, without `resume`.
    """
    folder = Path(folder)
    if format not in FORMATS:
        raise InputError(f"the format {format!r} is unknown; choose {', '.join(FORMATS)}.")
    if folder.exists() and not folder.is_dir():
        raise MediaError(f"{folder} is a file; give a folder for the videos.")
    paths = [folder / f"{i}-{slug(video.request.title)}.{format}" for i, video in enumerate(videos)]
    there = [path for path in paths if path.exists()]
    if there and not resume:
        raise InputError(
            f"{there[0]} is there already; choose another folder, or --resume to make only what is missing."
        )
    check_ours(folder / SHEET, lambda file: _SHEET_OF in read_metadata(file))
    finished = {path: _finished(video, path) for video, path in zip(videos, paths, strict=True) if path in there}
    pipe, loaded = None, None
    for number, (video, path) in enumerate(zip(videos, paths, strict=True)):
        if path in finished:
            yield finished[path]
            continue
        request = video.request
        if resume and video.open_seed:
            request = request.changed(seed=kept_seed(path))
        with reporting(number, len(videos), request) if reporting else nullcontext() as on_report:
            if pipe is None or video.weights != loaded:
                pipe = None  # before the next is read
                pipe, loaded = pipeline_for(request, device, allow_pickle=allow_pickle), video.weights
            folder.mkdir(parents=True, exist_ok=True)
            yield generate(
                request, path, pipe=pipe, device=device, resume=resume, allow_pickle=allow_pickle, on_report=on_report
            )
    write_image(folder / SHEET, _sheet(paths), {_SHEET_OF: len(paths)})


def _finished(video: Video, path: Path) -> Result:
    """The result of a video that is there already. Raises InputError if it was made from something else."""
    stored = from_metadata(read_metadata(path), str(path))
    wanted = video.request.changed(seed=stored.seed) if video.open_seed else video.request
    before, now = stored.stored(), wanted.stored()
    other = [name for name in now if before.get(name) != now[name]]
    if other:
        name = other[0].replace("_", " ")
        raise InputError(f"{path} is there already, made with another {name}; choose another folder.")
    facts = probe(path)
    size = (facts["height"], facts["width"])
    return Result(str(path), facts["frames"], *size, facts["fps"], stored.seed, 0.0)


def _sheet(paths: Sequence[Path]) -> np.ndarray:
    """Evenly spaced frames of every video, a row each, uint8 (height, width, 3)."""
    clips = [np.stack(list(iter_video(path))) for path in paths]
    columns = min(_SHEET_COLUMNS, *(len(clip) for clip in clips))
    height, width = clips[0].shape[1:3]
    factor = min(1.0, 256 / max(height, width))
    size = (round(height * factor), round(width * factor))
    rows = [clip[np.linspace(0, len(clip) - 1, columns).round().astype(int)] for clip in clips]
    return contact_sheet(np.concatenate([resize(row, *size, "pad") for row in rows]), columns, len(clips))
