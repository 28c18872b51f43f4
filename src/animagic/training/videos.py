"""Videos of one's own as training data: from a table (CSV), a folder, or webdataset shards.

A batch is a function of (seed, step), so a resumed run sees exactly what it would have seen. Layouts: WebVid's CSV
(columns `videoid` and `name`); NAME.mp4 beside NAME.txt; tar files with KEY.mp4 beside KEY.txt or KEY.json.
"""

from __future__ import annotations

import csv
import glob
import json
import re
import tarfile
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ..errors import InputError, MediaError
from ..media import iter_video, probe, resize

SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".gif")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class CaptionedVideo:
    """Where a video lies and what it shows. name: by which it is sorted; offset, size: bytes inside a shard."""

    name: str
    caption: str
    path: Path
    offset: int | None = None
    size: int = 0

    def __str__(self) -> str:
        return str(self.path if self.offset is None else f"{self.path}:{self.name}")

    @contextmanager
    def file(self) -> Iterator[Path]:
        """A file that holds the video alone, for as long as the block runs."""
        if self.offset is None:
            yield self.path
            return
        with tempfile.NamedTemporaryFile(suffix=Path(self.name).suffix) as copy, self.path.open("rb") as shard:
            shard.seek(self.offset)
            copy.write(shard.read(self.size))
            copy.flush()
            yield Path(copy.name)


def find_videos(source: str | Path, folder: str | Path | None = None) -> list[CaptionedVideo]:
    """The captioned videos of a source, sorted by name. No video is opened yet.

    Args:
        source: one of
            a .csv file with the columns `videoid` and `name` (the caption); the videos are `folder`/VIDEOID.mp4;
            a folder, searched with the folders inside; a caption is in NAME.txt beside NAME.mp4, or else is the name;
            .tar files, as one name or a pattern ("shard-{000..009}.tar", "shards/*.tar"), whose members KEY.mp4 have
            their caption in KEY.txt, or under "caption" or "text" in KEY.json.
        folder: of the videos of a .csv file; without it, the one where that file lies.

    Raises: InputError if there is no such source, it holds no video, or a caption is missing.
    """
    text = str(source)
    if text.endswith(".csv"):
        found = _of_table(Path(source), Path(source).parent if folder is None else Path(folder))
    elif folder is not None:
        raise InputError(f"a folder of videos is given beside {text}; it goes only with a .csv file.")
    elif text.endswith(".tar"):
        found = [video for shard in _shards(text) for video in _of_shard(shard)]
    elif Path(source).is_dir():
        found = _of_folder(Path(source))
    else:
        raise InputError(f"{text} is no source of videos; give a .csv file, a folder, or .tar shards.")
    if not found:
        raise InputError(f"{text} holds no videos; known are {', '.join(SUFFIXES)}.")
    return sorted(found, key=lambda video: video.name)


def _of_table(path: Path, folder: Path) -> list[CaptionedVideo]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = {"videoid", "name"} - set(rows.fieldnames or ())
            if missing:
                raise InputError(f"{path} lacks the column {min(missing)}; it needs videoid and name (the caption).")
            return [
                CaptionedVideo(f"{row['videoid']}.mp4", row["name"] or "", folder / f"{row['videoid']}.mp4")
                for row in rows
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def _of_folder(folder: Path) -> list[CaptionedVideo]:
    found = []
    for path in folder.rglob("*"):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            beside = path.with_suffix(".txt")
            caption = read_caption(beside) if beside.is_file() else re.sub(r"[_-]+", " ", path.stem).strip()
            found.append(CaptionedVideo(path.relative_to(folder).as_posix(), caption, path))
    return found


def read_caption(path: Path) -> str:
    """The caption in a text file. Raises InputError."""
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the caption {path} cannot be read: {error}.") from error


def _shards(pattern: str) -> list[Path]:
    if match := _RANGE.search(pattern):
        numbers = range(int(match[1]), int(match[2]) + 1)
        return [path for n in numbers for path in _shards(_RANGE.sub(f"{n:0{len(match[1])}d}", pattern, count=1))]
    paths = sorted(map(Path, glob.glob(pattern))) or [Path(pattern)]
    if not paths[0].is_file():
        raise InputError(f"there is no shard {pattern}.")
    return paths


def _of_shard(path: Path) -> list[CaptionedVideo]:
    videos: dict[str, tarfile.TarInfo] = {}
    captions: dict[str, str] = {}
    try:
        with tarfile.open(path) as shard:
            for member in shard:
                # As webdataset has it: the key ends at the first dot of the file's own name.
                folder, _, file_name = member.name.rpartition("/")
                key, _, kind = file_name.partition(".")
                key = f"{folder}/{key}".lstrip("/")
                if not member.isfile():
                    continue
                if f".{kind.lower()}" in SUFFIXES:
                    videos[key] = member
                elif kind in ("txt", "json"):
                    file = shard.extractfile(member)
                    assert file is not None
                    captions[key] = _caption(file.read().decode("utf-8"), kind, f"{path}:{member.name}")
    except (OSError, tarfile.TarError, UnicodeDecodeError) as error:
        raise InputError(f"the shard {path} cannot be read: {error}.") from error
    silent = sorted(videos.keys() - captions.keys())
    if silent:
        raise InputError(f"{path} has no caption for {silent[0]}; put it into {silent[0]}.txt or {silent[0]}.json.")
    return [CaptionedVideo(v.name, captions[key], path, v.offset_data, v.size) for key, v in videos.items()]


def _caption(text: str, kind: str, where: str) -> str:
    if kind == "txt":
        return text.strip()
    try:
        fields = json.loads(text)
        return str(fields["caption"] if "caption" in fields else fields["text"]).strip()
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f'{where} has no caption; put it under "caption" or "text".') from error


@dataclass(eq=False)
class VideoBatches(Dataset):
    """Clips cut out of videos; item `step` is a whole batch.

    Args:
        source, folder: see `find_videos`.
        clips_per_batch: videos of a batch, drawn at random.
        num_frames: frames of a clip; 1 gives single images, for the image stage.
        sample_stride: every how many-th frame of the video is taken, from a random start.
        height, width: pixels; the video is brought to size, and its middle is cut out.

    Items: {"video": uint8 (clips, 3, frames, height, width), "captions": list[str], "index": int}.

    A video that is too short or cannot be read is passed over, and the next one by name taken; a warning at the end
    says how many these were.
    Raises: InputError for a wrong source or number; when a batch is drawn, if no video at all can be used.
    """

    source: str | Path
    seed: int
    steps: int
    folder: str | Path | None = None
    clips_per_batch: int = 4
    num_frames: int = 16
    sample_stride: int = 4
    height: int = 256
    width: int = 256

    def __post_init__(self):
        for name in ("steps", "clips_per_batch", "num_frames", "sample_stride", "height", "width"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}.")
        self.videos = find_videos(self.source, self.folder)
        # In memory that the loader's processes share: none of them tries a video twice, and the last one knows all.
        self._unusable = torch.zeros(len(self.videos), dtype=torch.bool).share_memory_()

    @property
    def skipped(self) -> list[str]:
        """The videos that turned out to be too short or unreadable so far."""
        return [str(self.videos[i]) for i in self._unusable.nonzero().flatten().tolist()]

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict:
        rng = np.random.default_rng((self.seed, step))
        drawn = [(int(rng.integers(len(self.videos))), float(rng.random())) for _ in range(self.clips_per_batch)]
        clips, captions = zip(*(self._clip(first, start) for first, start in drawn), strict=True)
        if step == self.steps - 1 and (skipped := self.skipped):
            warnings.warn(
                f"{len(skipped)} of {len(self.videos)} videos were passed over, too short or unreadable; "
                f"the first is {skipped[0]}.",
                stacklevel=2,
            )
        video = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).contiguous()
        return {"video": video, "captions": list(captions), "index": step}

    def _clip(self, first: int, start: float) -> tuple[np.ndarray, str]:
        """A clip of the first usable video from number `first` on; start: 0..1, where on it."""
        for i in range(first, first + len(self.videos)):
            index = i % len(self.videos)
            if self._unusable[index]:
                continue
            try:
                return self._cut(self.videos[index], start), self.videos[index].caption
            except MediaError:
                self._unusable[index] = True
        try:
            return self._cut(self.videos[0], start), self.videos[0].caption
        except MediaError as error:
            raise InputError(
                f"none of the {len(self.videos)} videos of {self.source} can be used; the first: {error}"
            ) from error

    def _cut(self, video: CaptionedVideo, start: float) -> np.ndarray:
        """uint8 (num_frames, height, width, 3). Raises MediaError for a video that cannot be used."""
        span = (self.num_frames - 1) * self.sample_stride + 1
        with video.file() as path:
            try:
                spare = probe(path)["frames"] - span
                begin = int(start * (spare + 1))
                with closing(iter_video(path)) as frames:  # type: ignore[type-var] # it is a generator
                    chosen = list(islice(frames, begin, begin + span, self.sample_stride)) if spare >= 0 else []
            except MediaError as error:
                raise MediaError(str(error).replace(str(path), str(video))) from error
        if len(chosen) < self.num_frames:
            raise MediaError(f"{video} has {spare + span} frames, but {span} are needed: give longer videos.")
        return resize(np.stack(chosen), self.height, self.width)
