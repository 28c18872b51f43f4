"""What lies in a job's folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError


@dataclass(frozen=True)
class Piece:
    """A chunk of the stream: `size` bytes at `offset` show `frames` frames from number `start` on. The last one of a
    video with sound may hold the end of the sound alone."""

    start: int
    frames: int
    offset: int
    size: int


@dataclass(frozen=True)
class Head:
    """How a stream begins: with `size` bytes, behind which any of its chunks may come."""

    mime_type: str
    size: int
    fps: float
    height: int
    width: int


@dataclass(frozen=True)
class Folder:
    """A job's folder. The video is there when it is whole; the stream, chunk after chunk, from its first frame on."""

    root: Path

    @property
    def video(self) -> Path:
        return self.root / "video.mp4"

    @property
    def stream(self) -> Path:
        return self.root / "stream.mp4"

    @property
    def table(self) -> Path:
        """The head and the chunks of the stream, each a line of JSON."""
        return self.root / "stream.jsonl"

    @property
    def preview(self) -> Path:
        """What is being made, from time to time."""
        return self.root / "preview.jpg"

    @property
    def request(self) -> Path:
        """The request as it was when the job was handed in."""
        return self.root / "request.json"

    @property
    def prompts(self) -> Path:
        """The prompts that have been said since."""
        return self.root / "prompts.json"

    @property
    def inputs(self) -> Path:
        return self.root / "inputs"

    @property
    def latents(self) -> Path:
        """The clean latents, if the video can be continued."""
        return self.root / "latents"

    @property
    def cancelled(self) -> Path:
        """Is there when somebody wants the job to stop, so that this outlives a crash."""
        return self.root / "cancelled"

    @property
    def log(self) -> Path:
        return self.root / "log.txt"

    @property
    def head(self) -> Head | None:
        lines = self._lines()
        return Head(**lines[0]) if lines else None

    @property
    def chunks(self) -> list[Piece]:
        return [Piece(**line) for line in self._lines()[1:]]

    def _lines(self) -> list[dict[str, Any]]:
        try:
            text = self.table.read_text("utf-8")
        except FileNotFoundError:
            return []
        # A crash may have cut off the last line, which has no line feed then.
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def keep_table(self, head: Head, chunks: list[Piece]) -> None:
        """Write the table anew."""
        part = self.table.with_suffix(".part")
        lines = [asdict(head), *map(asdict, chunks)]
        part.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        part.replace(self.table)

    def add_chunk(self, chunk: Piece) -> None:
        """Append a chunk, which the stream must hold already, to the table."""
        with self.table.open("a", encoding="utf-8") as table:
            table.write(json.dumps(asdict(chunk)) + "\n")

    def thumbnail(self) -> Path:
        """A JPEG of a frame of the finished video. Raises InputError before it is finished."""
        path = self.root / "thumbnail.jpg"
        if not path.exists():
            self._draw(path, 1, 320)
        return path

    def spritesheet(self) -> Path:
        """A JPEG of twelve evenly spaced frames of the finished video. Raises InputError before it is finished."""
        path = self.root / "spritesheet.jpg"
        if not path.exists():
            self._draw(path, 12, 256)
        return path

    def _draw(self, path: Path, count: int, side: int) -> None:
        import numpy as np

        from ..media import contact_sheet, count_frames, iter_video, resize, write_image

        if not self.video.exists():
            raise InputError("the video is not finished yet: ask again when it is completed.")
        total = count_frames(self.video)
        # The first frame of a video that begins from noise says the least, so a single one is from the middle.
        wanted = {total // 2} if count == 1 else set(np.linspace(0, total - 1, count).round().astype(int).tolist())
        frames = np.stack([frame for i, frame in enumerate(iter_video(self.video)) if i in wanted])
        height, width = frames.shape[1:3]
        factor = min(1.0, side / max(height, width))
        frames = resize(frames, max(1, round(height * factor)), max(1, round(width * factor)), "stretch")
        write_image(path, frames[0] if count == 1 else contact_sheet(frames, columns=4))

    def size(self) -> int:
        """Bytes of all that is in it."""
        total = 0
        for file in self.root.rglob("*"):
            try:
                total += file.lstat().st_size
            except FileNotFoundError:  # gone meanwhile
                continue
        return total

    def tidy(self) -> None:
        """Remove what is of use only while the video is made."""
        for path in self.root.iterdir():
            name = path.name
            if (
                name.startswith(".")
                or name.endswith((".resume", ".part", ".f32", ".end"))
                or path in (self.preview, self.cancelled)
            ):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
