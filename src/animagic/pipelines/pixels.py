"""Pictures and videos as people have them, in the one form in which pipelines read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import InputError


def frames_of(image: Any, video: Any) -> np.ndarray | None:
    """The given image or video as pixels uint8 (frames, height, width, 3), or None.

    image: one (PIL, (H, W, 3) array, (3, H, W) tensor), also as a list of it. video: a list of such, an array
    (F, H, W, 3) or a tensor (F, 3, H, W). Floats lie in 0..1. Raises InputError for both, and for anything else.
    """
    if image is not None and video is not None:
        raise InputError("give an image or a video, not both.")
    given = image if video is None else video
    if given is None:
        return None
    pictures = list(given) if isinstance(given, list | tuple) else [given]
    frames = [frame for picture in pictures for frame in _pixels(picture)]
    if not frames:
        raise InputError("the video has no frames.")
    if video is None and len(frames) > 1:
        raise InputError(f"there are {len(frames)} pictures for one; give one image, or a video.")
    if len({frame.shape for frame in frames}) > 1:
        raise InputError("the frames of a video must be of one size.")
    return np.stack(frames)


def _pixels(given: Any) -> np.ndarray:
    """A picture, or several in one array or tensor, as uint8 (pictures, height, width, 3). Raises InputError."""
    if isinstance(given, Image.Image):
        return np.asarray(given.convert("RGB"))[None]
    channels_first = isinstance(given, torch.Tensor)
    array = given.detach().cpu().float().numpy() if channels_first else np.asarray(given)
    array = array[0] if array.ndim == 5 and len(array) == 1 else array  # a batch of one video
    array = array if array.ndim == 4 else array[None]
    array = array.transpose(0, 2, 3, 1) if channels_first and array.ndim == 4 else array
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype == object:
        kind = f"{type(given).__name__} of the shape {tuple(getattr(given, 'shape', ()))}"
        raise InputError(
            f"a picture is a PIL image, an array (height, width, 3) or a tensor (3, height, width), a video several of "
            f"them; this is a {kind}."
        )
    if array.dtype == np.uint8:
        return array
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if channels_first and not given.is_floating_point():
        low, high, array = low / 255, high / 255, array / 255
    if not 0 <= low <= high <= 1:
        raise InputError(f"pictures of floats have values from 0 to 1, these from {low:.3g} to {high:.3g}.")
    return (array * 255).round().astype(np.uint8)
