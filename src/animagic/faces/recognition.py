"""Who a face is: dlib's residual network, as published with face-api, which makes 128 numbers of a face."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError
from ..tracking import Crop, cut
from .face import BELOW_NOSE, LEFT_EYE, RIGHT_EYE, Face

SAME_PERSON = 0.6
"""Faces nearer to each other than this are of one person."""

_WEIGHTS = Path(__file__).parent / "weights" / "identity.safetensors"
_CHIP = 150  # pixels, square
_MEAN = torch.tensor([122.782, 117.001, 104.298]).view(3, 1, 1)  # of the pictures that it was trained with
_LEVELS = ((32, 32, 3), (32, 64, 4), (64, 128, 3), (128, 256, 3), (256, 256, 1))  # channels in and out, blocks
# Where the network wants the eyes' corners and what lies below the nose, as shares of a chip without its margin.
_POINTS = (LEFT_EYE[0], LEFT_EYE[1], RIGHT_EYE[0], RIGHT_EYE[1], BELOW_NOSE)
_PLACES = (0.8596 + 0.2135j, 0.6461 + 0.2290j, 0.1206 + 0.2137j, 0.3341 + 0.2291j, 0.4901 + 0.6278j)
_MARGIN = 0.25


class IdentityNetwork(nn.Module):
    """29 convolutions; pictures (batch, 3, 150, 150), 0 to 255 -> (batch, 128)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, stride=2)
        self.blocks = nn.ModuleList(
            _Block(inner if first else out, out, smaller=first and level > 0)
            for level, (inner, out, count) in enumerate(_LEVELS)
            for first in [True] + [False] * (count - 1)
        )
        self.head = nn.Linear(256, 128, bias=False)

    def forward(self, pictures: Tensor) -> Tensor:
        x = functional.relu(self.stem((pictures - _MEAN) / 256))
        x = functional.max_pool2d(x, 3, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class _Block(nn.Module):
    def __init__(self, inner: int, out: int, smaller: bool) -> None:
        super().__init__()
        self._smaller = smaller
        self.conv1 = nn.Conv2d(inner, out, 3, stride=2, padding=0) if smaller else nn.Conv2d(inner, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(functional.relu(self.conv1(x)))
        if self._smaller:
            x = functional.avg_pool2d(x, 2)
            # One of the two may come out a pixel smaller, and the input has fewer channels: zeros fill them up.
            y = functional.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
            x = functional.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return functional.relu(x + y)


def identity(frame: np.ndarray, face: Face) -> np.ndarray:
    """float32 (128,): who this is, to be compared by `identity_distance`. frame: uint8 (height, width, 3).

    Raises: InputError for a frame of another kind.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise InputError(f"a frame must be uint8 (height, width, 3), not {frame.dtype} {frame.shape}.")
    chip = torch.from_numpy(cut(Image.fromarray(frame), chip_of(face), _CHIP)).permute(2, 0, 1)
    with torch.inference_mode():
        return _network()(chip[None] * 255)[0].numpy()


def identity_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(...): the distance of identities, (..., 128); below `SAME_PERSON`, 0.6, they are of one person."""
    return np.linalg.norm(a - b, axis=-1)


def chip_of(face: Face) -> Crop:
    """The square in which the face lies as the network knows it: the similarity that fits best."""
    places = (np.array(_PLACES) + _MARGIN * (1 + 1j)) / (1 + 2 * _MARGIN)
    points = face.mesh[list(_POINTS), 0] + 1j * face.mesh[list(_POINTS), 1]
    from_middle = places - places.mean()
    scale = np.vdot(from_middle, points - points.mean()) / np.vdot(from_middle, from_middle)
    middle = points.mean() + scale * (0.5 + 0.5j - places.mean())
    return Crop(middle.real, middle.imag, float(abs(scale)), float(np.angle(scale)))


@cache
def _network() -> IdentityNetwork:
    network = IdentityNetwork().requires_grad_(False).eval()
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(_WEIGHTS).items()})
    return network
