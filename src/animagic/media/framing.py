"""How a picture of any shape goes into a model's size, and what the model made of it back into the picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from animagic.errors import InputError
from animagic.media.frames import check_frames

_REACH = 0.02, 0.15  # of a blurred mask: where the generated picture begins to show, and where it alone is seen
_NEAR = 0.25  # of the shorter side: how far from the seam colours are compared and changed, where there is no mask
_LEAST_KNOWN = 0.03  # share of what is compared: less says nothing about its colours
_OTHER_THING = 48  # levels: what differs by more is not the same thing in another tone


@dataclass(frozen=True, slots=True)
class Framing:
    """A box of a picture that a model sees in its own size.

    source: (height, width) of the picture, in pixels. box: (left, top, right, bottom) in its pixels; what lies outside
    the picture repeats its border. target: (height, width) of what the model sees; the sides of the box are whole
    pixels, so the two scales may differ by a fraction of one.
    """

    source: tuple[int, int]
    box: tuple[int, int, int, int]
    target: tuple[int, int]

    @classmethod
    def crop(cls, source: tuple[int, int], target: tuple[int, int]) -> Framing:
        """The largest box of the target's aspect inside the picture, in its middle."""
        return cls._centred(source, target, min)

    @classmethod
    def pad(cls, source: tuple[int, int], target: tuple[int, int]) -> Framing:
        """The smallest box of the target's aspect that holds the whole picture, in its middle."""
        return cls._centred(source, target, max)

    @classmethod
    def around(
        cls,
        box: tuple[float, float, float, float],
        source: tuple[int, int],
        target: tuple[int, int],
        margin: float = 0.15,
    ) -> Framing:
        """The box of the target's aspect around another one, (left, top, right, bottom), such as that of a person.

        It lies inside the picture where it fits, moved if it must be, and leaves it only where it is larger.

        Args:
            margin: on every side, as a share of the longer side of `box`.
        Raises: InputError for a box without area or outside the picture, or a negative margin.
        """
        (height, width), (target_height, target_width) = _checked(source, "source"), _checked(target, "target")
        left, top = (max(float(side), 0.0) for side in box[:2])
        right, bottom = min(float(box[2]), width), min(float(box[3]), height)
        if not (left < right and top < bottom):
            raise InputError(f"the box {tuple(box)} is empty or outside the picture, {width}x{height}: give another.")
        if not 0 <= margin < 100:
            raise InputError(f"margin is {margin}: give a share of the box's longer side, 0 or more.")
        space = 2 * margin * max(right - left, bottom - top)
        tight = max((bottom - top) / target_height, (right - left) / target_width)
        wanted = max((bottom - top + space) / target_height, (right - left + space) / target_width)
        fitting = min(height / target_height, width / target_width)  # the margin alone must not leave the picture
        scale = min(wanted, max(tight, fitting))
        return cls._placed(source, target, scale, (left + right) / 2, (top + bottom) / 2)

    @classmethod
    def _centred(cls, source: tuple[int, int], target: tuple[int, int], choose: Callable[..., float]) -> Framing:
        (height, width), (target_height, target_width) = _checked(source, "source"), _checked(target, "target")
        scale = choose(height / target_height, width / target_width)
        return cls._placed(source, target, scale, width / 2, height / 2)

    @classmethod
    def _placed(cls, source: tuple[int, int], target: tuple[int, int], scale: float, x: float, y: float) -> Framing:
        """scale: pixels of the picture in one of the target; (x, y): the middle, if it is free."""
        (height, width), (target_height, target_width) = _checked(source, "source"), _checked(target, "target")
        left, right = _along(x, max(1, round(target_width * scale)), width)
        top, bottom = _along(y, max(1, round(target_height * scale)), height)
        return cls((height, width), (left, top, right, bottom), (target_height, target_width))

    @property
    def scale(self) -> tuple[float, float]:
        """(x, y): pixels of the model in one of the picture."""
        left, top, right, bottom = self.box
        return self.target[1] / (right - left), self.target[0] / (bottom - top)

    def map_points(self, points: np.ndarray) -> np.ndarray:
        """Points of the picture, (..., 2) as x and y or (..., 3) with a depth in pixels, in the model's pixels."""
        return (points - self._origin(points)) * self._scales(points)

    def unmap_points(self, points: np.ndarray) -> np.ndarray:
        """Points of what the model sees in the picture's pixels: `map_points` backwards."""
        return points / self._scales(points) + self._origin(points)

    def _origin(self, points: np.ndarray) -> np.ndarray:
        return np.array([*self.box[:2], 0][: points.shape[-1]], np.float32)

    def _scales(self, points: np.ndarray) -> np.ndarray:
        x, y = self.scale
        return np.array([x, y, (x * y) ** 0.5][: points.shape[-1]], np.float32)

    @property
    def part(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that the model sees."""
        left, top, right, bottom = self.box
        return slice(max(top, 0), min(bottom, self.source[0])), slice(max(left, 0), min(right, self.source[1]))

    @property
    def _shown(self) -> tuple[float, float, float, float]:
        """The box of the target that shows the picture, not what repeats its border."""
        (rows, columns), (x, y) = self.part, self.scale
        left, top = self.box[:2]
        # min: rounding must not carry it past the border
        right, bottom = min((columns.stop - left) * x, self.target[1]), min((rows.stop - top) * y, self.target[0])
        return (columns.start - left) * x, (rows.start - top) * y, right, bottom

    def unscaled(self, frame: np.ndarray) -> np.ndarray:
        """What a frame of the target, uint8 (height, width, 3), shows of the picture, in its pixels: `part` of it."""
        rows, columns = self.part
        size = (columns.stop - columns.start, rows.stop - rows.start)
        return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC, box=self._shown))

    def into(self, frames: np.ndarray) -> np.ndarray:
        """What the model sees of pictures, uint8 (..., H, W, 3): uint8 (..., height, width, 3) of the target."""
        check_frames(frames, range(3, 33))
        if frames.shape[-3:-1] != self.source:
            raise InputError(f"the pictures are {frames.shape[-3:-1]}, but this framing is for {self.source}.")
        height, width = self.target
        # The rows and columns of the target that show something of the picture; all others repeat the outermost.
        y0, y1, rows, pad_y = _covered(self.box[1], self.box[3], self.source[0], height)
        x0, x1, columns, pad_x = _covered(self.box[0], self.box[2], self.source[1], width)
        # Where the outermost are cut by the border, the filter needs what lies behind it.
        box = (columns[0] + pad_x[0], rows[0] + pad_y[0], columns[1] + pad_x[0], rows[1] + pad_y[0])
        result = np.empty((*frames.shape[:-3], height, width, 3), np.uint8)
        outside = ((y0, height - y1), (x0, width - x1), (0, 0))
        for index in np.ndindex(frames.shape[:-3]):
            seen = Image.fromarray(np.pad(frames[index], (pad_y, pad_x, (0, 0)), "edge"))
            seen = seen.resize((x1 - x0, y1 - y0), Image.Resampling.LANCZOS, box=box)
            result[index] = np.pad(np.asarray(seen), outside, "edge")
        return result

    def back(
        self,
        frames: np.ndarray,
        picture: np.ndarray,
        mask: np.ndarray | None = None,
        person: np.ndarray | None = None,
        feather: float = 0.04,
    ) -> np.ndarray:
        """Paste what a model made into the picture that it was made from.

        The seam is soft, and near it the frames take on the picture's colours. With a mask the picture's background
        stays, and the frames are seen only where the mask is and close to it; and where the person of the picture
        stood, or their ghost would stay behind.

        Args:
            frames: uint8 (F, height, width, 3) of the target.
            picture: uint8 (H, W, 3), or (F, H, W, 3) for a moving one.
            mask: of the people in the frames, bool (F, height, width) or 0 to 1.
            person: of the people in the picture as the model saw it, (height, width), or (F, height, width) if it
                moves; bool or 0 to 1.
            feather: width of a soft edge, as a share of the box's shorter side; 0: hard.
        Returns: uint8 (F, H, W, 3).
        Raises: InputError for arrays of other shapes.
        """
        check_frames(frames)
        check_frames(picture, (3, 4))
        self._check_back(frames, picture, mask, person, feather)
        left, top, right, bottom = self.box
        rows, columns = self.part
        size = (columns.stop - columns.start, rows.stop - rows.start)
        sides = (top > 0, bottom < self.source[0], left > 0, right < self.source[1])
        border = _border(*size[::-1], feather * min(right - left, bottom - top), sides)
        near = 1 - _border(*self.target, _NEAR * min(self.target), sides)
        seen = np.broadcast_to(self.into(picture), frames.shape)
        people = mask if mask is None or person is None else np.maximum(mask, person)
        result = np.broadcast_to(picture, (len(frames), *picture.shape[-3:])).copy()
        for i, frame in enumerate(frames):
            # What the model makes has seldom quite the picture's colours: near the seam it takes them on.
            share, known, changed = border, near, near
            if mask is not None and people is not None:
                soft = _soft(people[i], feather * min(self.target))
                share = border * np.asarray(soft.resize(size, Image.Resampling.BILINEAR, box=self._shown))
                known, changed = 1 - np.asarray(soft), 1 - mask[i].astype(np.float32)
            off = _tone(seen[i].astype(np.float32) - frame, known) * changed[..., None]
            frame = (frame + off).round().clip(0, 255).astype(np.uint8)
            made = self.unscaled(frame).astype(np.float32)
            part = result[i, rows, columns]
            part[:] = (part + (made - part) * share[..., None]).round()
        return result

    def _check_back(
        self,
        frames: np.ndarray,
        picture: np.ndarray,
        mask: np.ndarray | None,
        person: np.ndarray | None,
        feather: float,
    ) -> None:
        count = len(frames)
        if frames.shape[1:3] != self.target:
            raise InputError(f"the frames are {frames.shape[1:3]}, but this framing makes {self.target}.")
        if picture.shape[-3:-1] != self.source or (picture.ndim == 4 and len(picture) != count):
            raise InputError(f"the picture is {picture.shape}, but must be {(*self.source, 3)}, or one for each frame.")
        if mask is not None and mask.shape != (count, *self.target):
            raise InputError(f"the mask is {mask.shape}, but must be {(count, *self.target)}.")
        if person is not None and (mask is None or person.shape not in (self.target, (count, *self.target))):
            raise InputError(f"the person's mask is {person.shape}, but must be {self.target} and go with `mask`.")
        if not 0 <= feather < 0.5:
            raise InputError(f"feather is {feather}: give a share of the box's shorter side, 0 or more and under 0.5.")


def _border(height: int, width: int, feather: float, sides: tuple[bool, ...]) -> np.ndarray:
    """1 in the middle, falling towards some sides (top, bottom, left, right) on the last `feather` pixels."""
    ramps = []
    for length, begins, ends in ((height, *sides[:2]), (width, *sides[2:])):
        middles = np.arange(length) + 0.5
        near = np.minimum(middles if begins else np.inf, length - middles if ends else np.full(length, np.inf))
        ramps.append(_smooth(near / feather) if feather else np.ones(length))
    return np.outer(*ramps).astype(np.float32)


def _checked(size: tuple[int, int], name: str) -> tuple[int, int]:
    height, width = size
    if height < 1 or width < 1:
        raise InputError(f"{name} is {height}x{width}: give at least 1x1.")
    return int(height), int(width)


def _along(middle: float, length: int, whole: int) -> tuple[int, int]:
    """Where a stretch of this length lies: inside the whole, if that is long enough, else around it."""
    start = round((whole - length) / 2) if length > whole else min(max(round(middle - length / 2), 0), whole - length)
    return start, start + length


def _covered(start: int, stop: int, whole: int, cells: int) -> tuple[int, int, tuple[float, float], tuple[int, int]]:
    """Of `cells` that show start to stop of a side: the first and the last (exclusive) that meet the picture, where
    those begin and end in its pixels, and how many pixels that and their filter need beyond it, at both ends."""
    size = (stop - start) / cells
    first = int(np.floor((max(start, 0) - start) / size + 1e-9))
    last = int(np.ceil((min(stop, whole) - start) / size - 1e-9))
    begins, ends = start + first * size, start + last * size
    pad = int(np.ceil(size)) + 1
    return first, last, (begins, ends), (pad if begins < 0 else 0, pad if ends > whole else 0)


def _soft(mask: np.ndarray, blur: float) -> Image.Image:
    """A mask made larger, with a soft edge: "F", 0 to 1. It is 1 wherever the mask is, but in details under `blur`."""
    picture = Image.fromarray((np.clip(mask, 0, 1) * 255).astype(np.uint8))
    if not blur:
        return Image.fromarray(np.asarray(picture, np.float32) / 255)
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(blur)), np.float32) / 255
    low, high = _REACH
    return Image.fromarray(_smooth((blurred - low) / (high - low)).astype(np.float32))


def _tone(difference: np.ndarray, known: np.ndarray) -> np.ndarray:
    """A difference of colours, float32 (height, width, 3), made smooth, and carried on to where `known` is 0."""
    known = known * (np.abs(difference).max(-1) < _OTHER_THING)
    if known.mean() < _LEAST_KNOWN:
        return np.zeros_like(difference)
    weighted = np.dstack([difference * known[..., None], known])
    field = weighted[..., :3].mean((0, 1), keepdims=True) / known.mean()
    for cells in (2, 4, 8):  # from coarse to fine: where a cell knows little, the coarser one speaks
        sums = _scaled(weighted, cells, cells, Image.Resampling.BOX)
        field = (sums[..., :3] + 0.1 * _scaled(field, cells, cells)) / (sums[..., 3:] + 0.1)
    return _scaled(field, *known.shape)


def _scaled(
    planes: np.ndarray, height: int, width: int, how: Image.Resampling = Image.Resampling.BILINEAR
) -> np.ndarray:
    """Planes of float32 (height, width, n) in another size."""
    images = [Image.fromarray(np.ascontiguousarray(planes[..., i])) for i in range(planes.shape[-1])]
    return np.dstack([np.asarray(image.resize((width, height), how)) for image in images])


def _smooth(values: np.ndarray) -> np.ndarray:
    """0 up to 0, 1 from 1 on, and without a kink between them."""
    values = np.clip(values, 0, 1)
    return values * values * (3 - 2 * values)
