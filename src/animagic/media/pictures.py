"""Pictures out: one, or a numbered row of them."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from animagic.errors import MediaError
from animagic.media.files import NUMBERED, StrPath, atomic_path, pack
from animagic.media.frames import check_frames

Write = Callable[[np.ndarray], None]
"""Takes one frame, uint8 (H, W, 3)."""

_LONGEST_JPEG_COMMENT = 65533


def write_image(path: StrPath, array: np.ndarray, metadata: dict[str, Any] | None = None) -> None:
    """Write one picture, uint8 (H, W, 3), as PNG or JPEG, by its suffix: whole or not at all.

    Args:
        metadata: what JSON can hold; `read_metadata` gives it back.
    Raises: InputError for a wrong array or metadata; MediaError if `path` cannot be written.
    """
    check_frames(array, (3,))
    note = pack(metadata, None, *array.shape[:2])
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise MediaError(f"{path} ends in {suffix!r}: a picture is written as .png or .jpg.")
    if suffix != ".png" and len(note) > _LONGEST_JPEG_COMMENT:
        raise MediaError(f"{path} is a JPEG, which cannot hold metadata over 64 KiB: write a .png.")
    with atomic_path(path) as temporary:
        save(temporary, array, note)


@contextmanager
def pictures(folder: Path, name: str, note: str) -> Iterator[Write]:
    folder.mkdir(exist_ok=True)
    numbers = count()

    def write(frame: np.ndarray) -> None:
        number = next(numbers)
        save(folder / NUMBERED.sub(lambda place: place[0] % number, name), frame, "" if number else note)

    yield write


def save(path: Path, array: np.ndarray, note: str) -> None:
    picture = Image.fromarray(array)
    # By way of memory: on a full disk Pillow, writing to a file, may lose the rest without a word.
    data = io.BytesIO()
    if path.suffix.lower() == ".png":
        chunks = PngInfo()
        if note:
            chunks.add_text("comment", note)
        picture.save(data, "PNG", pnginfo=chunks, compress_level=2)  # a tenth larger, five times faster than 6
    else:
        picture.save(data, "JPEG", quality=95, subsampling=0, comment=note.encode("ascii"))
    path.write_bytes(data.getvalue())
