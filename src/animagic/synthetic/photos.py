"""Real textures: crops from the pictures that scikit-image carries in its wheel."""

from __future__ import annotations

from functools import cache

import numpy as np

from ..errors import InputError
from .scenes import PHOTOS


@cache
def _picture(name: str) -> np.ndarray:
    from skimage import data  # lazy: only photo scenes need it

    picture = getattr(data, name)()
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1)


def photo_background(rng: np.random.Generator, height: int, width: int, name: str | None = None) -> np.ndarray:
    """A random crop, uint8 (height, width, 3), from one of PHOTOS (from any where no name is given).

    The same generator state gives the same part of the picture at every size of one aspect ratio.
    """
    if height < 1 or width < 1:
        raise InputError(f"A picture of {height} x {width} pixels was asked for; both must be at least 1.")
    if name is None:
        name = PHOTOS[int(rng.integers(len(PHOTOS)))]
    elif name not in PHOTOS:
        raise InputError(f"There is no photo {name!r}; choose one of {', '.join(PHOTOS)}.")
    from skimage.transform import resize

    picture = _picture(name)
    full_height, full_width = picture.shape[:2]
    share, top, left = rng.uniform(0.55, 0.95), rng.uniform(), rng.uniform()
    scale = share * min(full_height / height, full_width / width)
    crop_height, crop_width = max(1, round(height * scale)), max(1, round(width * scale))
    y, x = round(top * (full_height - crop_height)), round(left * (full_width - crop_width))
    crop = picture[y : y + crop_height, x : x + crop_width]
    return np.rint(resize(crop, (height, width), preserve_range=True, anti_aliasing=True)).astype(np.uint8)
