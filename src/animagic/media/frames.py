"""Frames in memory: resized, and laid out on a sheet."""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from animagic.errors import InputError

_LEGIBLE = 128  # pixels: a person sees little in a picture smaller than this
_MOST_ROWS = 6
_GAP = 2  # pixels


def check_frames(frames: np.ndarray, dimensions: Iterable[int] = (4,)) -> None:
    """Raise InputError unless `frames` is uint8 and RGB, with one of these numbers of dimensions."""
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        raise InputError(f"frames must be a NumPy array of uint8, not {getattr(frames, 'dtype', type(frames))}.")
    if frames.ndim not in dimensions or frames.shape[-1] != 3 or 0 in frames.shape[-3:]:
        raise InputError(f"frames must have the shape (frames, height, width, 3), not {frames.shape}.")


def resize(frames: np.ndarray, height: int, width: int, mode: Literal["crop", "stretch", "pad"] = "crop") -> np.ndarray:
    """Resize pictures with antialiasing (Lanczos).

    Args:
        frames: uint8 (..., H, W, 3).
        mode: "crop" cuts the middle out to the new aspect first, "stretch" changes the aspect, "pad" fits the
            whole picture inside and leaves the rest black.
    Returns: uint8 (..., height, width, 3); `frames` itself where it has that size already.
    Raises: InputError for a wrong array, size or mode.
    """
    check_frames(frames, range(3, 33))
    if height < 1 or width < 1 or mode not in ("crop", "stretch", "pad"):
        raise InputError(
            f"cannot resize to {height}x{width}, mode {mode!r}: use crop, stretch or pad, and at least 1x1."
        )
    old_height, old_width = frames.shape[-3:-1]
    if (old_height, old_width) == (height, width):
        return frames
    box = (0.0, 0.0, float(old_width), float(old_height))
    inner_height, inner_width = height, width
    if mode == "crop":
        scale = max(height / old_height, width / old_width)
        left, top = (old_width - width / scale) / 2, (old_height - height / scale) / 2
        # max and min: rounding must not carry the box past the border
        box = (max(left, 0.0), max(top, 0.0), min(old_width - left, old_width), min(old_height - top, old_height))
    elif mode == "pad":
        scale = min(height / old_height, width / old_width)
        inner_height, inner_width = max(1, round(old_height * scale)), max(1, round(old_width * scale))
    y, x = (height - inner_height) // 2, (width - inner_width) // 2
    result = np.zeros((*frames.shape[:-3], height, width, 3), np.uint8)
    for index in np.ndindex(frames.shape[:-3]):
        picture = Image.fromarray(frames[index])
        small = picture.resize((inner_width, inner_height), Image.Resampling.LANCZOS, box=box)
        result[index][y : y + inner_height, x : x + inner_width] = small
    return result


def size_like(source: tuple[int, int], target: tuple[int, int], unit: int) -> tuple[int, int]:
    """(height, width) with the aspect of one size and about the area of another, in multiples of `unit` pixels."""
    scale = (target[0] * target[1] / (source[0] * source[1])) ** 0.5
    height, width = (max(unit, round(scale * side / unit) * unit) for side in source)
    return height, width


def beside(*clips: np.ndarray, labels: Sequence[str] = ()) -> np.ndarray:
    """Put clips side by side, so that a person can compare them.

    Args:
        clips: uint8 (F, H, W, 3), brought to the height of the highest; a shorter one holds its last frame. Or
            pictures, uint8 (H, W, 3), which stay.
        labels: written over the clips, one each; none: nothing is.
    Returns: uint8 (most frames, height, width, 3), its sides even.
    Raises: InputError for wrong arrays, no clips, one without frames, or another number of labels.
    """
    for clip in clips:
        check_frames(clip, (3, 4))
    if not clips or not all(map(len, clips)) or (labels and len(labels) != len(clips)):
        raise InputError(f"{len(clips)} clips and {len(labels)} labels: give clips that have frames, and a label each.")
    height, count = max(clip.shape[-3] for clip in clips), max(len(clip) if clip.ndim == 4 else 1 for clip in clips)
    sized = [resize(clip, height, max(1, round(clip.shape[-2] * height / clip.shape[-3])), "stretch") for clip in clips]
    strip = max(14, height // 12) if labels else 0
    width = sum(clip.shape[-2] for clip in sized) + _GAP * (len(clips) - 1)
    result = np.full((count, *(side + side % 2 for side in (strip + height, width)), 3), 255, np.uint8)
    top = Image.fromarray(result[0, :strip]) if strip else None
    x = 0
    for i, clip in enumerate(sized):
        shown = clip if clip.ndim == 3 else clip[np.minimum(np.arange(count), len(clip) - 1)]
        result[:, strip : strip + height, x : x + clip.shape[-2]] = shown
        if top:
            room = Image.new("RGB", (clip.shape[-2], strip), "white")  # a long label ends with its clip
            ImageDraw.Draw(room).text((2, strip // 2), labels[i], "black", font_size=strip * 0.7, anchor="lm")
            top.paste(room, (x, 0))
        x += clip.shape[-2] + _GAP
    if top:
        result[:, :strip] = np.asarray(top)
    return result


def contact_sheet(frames: np.ndarray, columns: int = 6, rows: int | None = None, labels: bool = False) -> np.ndarray:
    """Lay evenly chosen frames out in a grid, row after row, so that a person can look at a clip.

    Args:
        frames: uint8 (F, H, W, 3), at least one; tiny ones are enlarged by a whole factor, without smoothing.
        columns, rows: of the grid, at most; None takes as many rows as the frames fill, up to 6.
        labels: write each frame's number into its corner.
    Returns: uint8 (height, width, 3).
    Raises: InputError for a wrong array, no frames, or a grid without cells.
    """
    check_frames(frames)
    if not len(frames) or columns < 1 or (rows is not None and rows < 1):
        raise InputError(f"a contact sheet needs a frame, a column and a row, not {len(frames)}, {columns}, {rows}.")
    columns = min(columns, len(frames))
    rows = min(rows or _MOST_ROWS, -(-len(frames) // columns))
    chosen = np.linspace(0, len(frames) - 1, min(rows * columns, len(frames))).round().astype(int)
    factor = max(1, -(-_LEGIBLE // max(frames.shape[1:3])))
    height, width = frames.shape[1] * factor, frames.shape[2] * factor
    sheet = Image.new("RGB", (columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for cell, number in enumerate(chosen):
        x, y = cell % columns * (width + _GAP), cell // columns * (height + _GAP)
        sheet.paste(Image.fromarray(frames[number].repeat(factor, 0).repeat(factor, 1)), (x, y))
        if labels:
            draw.text((x + 4, y + 4), str(number), "white", stroke_width=1, stroke_fill="black")
    return np.array(sheet)
