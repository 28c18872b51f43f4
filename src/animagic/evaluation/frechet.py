"""Frechet distances between two sets of videos, by the features of a network. Those that published FID-VID and FVD use
cannot come with this package: whoever has them gives their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, first_line
from ..media import resize

CLIP = 16  # frames of the clips that a backbone gets, as in the paper's protocol
SIDE = 224
_OF_I3D = ("rescale", "resize", "return_features")


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The squared Frechet distance between two normal distributions with the means and covariances of these features.

    Args:
        a, b: (samples, dimensions), each of at least two samples.
    Raises: InputError for too few samples, or other dimensions.
    """
    if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
        raise InputError(
            f"a Frechet distance needs at least two samples of as many dimensions on either side, not {a.shape} and "
            f"{b.shape}."
        )
    a, b = a.astype(np.float64), b.astype(np.float64)
    roots: list[Any] = [np.linalg.qr((x - x.mean(0)) / np.sqrt(len(x) - 1), mode="r") for x in (a, b)]
    # With covariances A'A and B'B, the trace of the root of their product is the sum of the singular values of AB'.
    shared = np.linalg.norm(roots[0] @ roots[1].T, "nuc")
    spread = sum(np.square(root).sum() for root in roots) - 2 * shared
    return float(max(0.0, np.square(a.mean(0) - b.mean(0)).sum() + spread))


@dataclass(frozen=True)
class Backbone:
    """A network of the user that turns clips into features: a TorchScript file.

    One whose `forward` knows `rescale`, `resize` and `return_features`, as the I3D file that most people use for FVD
    does, gets them, and float32 (clips, 3, 16, height, width) from 0 to 255. Any other gets float32
    (clips, 3, 16, 224, 224) from -1 to 1. It returns (clips, dimensions).
    """

    file: Path
    network: Any

    @classmethod
    def load(cls, file: str | Path) -> Backbone:
        """Raises: InputError for a file that is missing or no TorchScript."""
        if not Path(file).is_file():
            raise InputError(f"there is no backbone {file}: give a TorchScript file.")
        try:
            return cls(Path(file), torch.jit.load(str(file), map_location="cpu").eval())
        except RuntimeError as error:
            raise InputError(f"{file} is no TorchScript file: {first_line(error)}.") from error

    @torch.no_grad()
    def features(self, clips: np.ndarray) -> np.ndarray:
        """clips: uint8 (clips, 16, H, W, 3). Returns float32 (clips, dimensions). Raises InputError."""
        options = {argument.name for argument in self.network.forward.schema.arguments}
        as_i3d = options.issuperset(_OF_I3D)
        pixels = _channels_first(clips if as_i3d else resize(clips, SIDE, SIDE, "stretch"))
        try:
            found = self.network(pixels, True, True, True) if as_i3d else self.network(pixels / 127.5 - 1)
        except RuntimeError as error:
            raise InputError(
                f"the backbone {self.file} cannot read {list(pixels.shape)}: {_last_line(error)}."
            ) from error
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(clips):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"the backbone {self.file} must return (clips, dimensions), not {shape}.")
        return found.float().numpy()


def _channels_first(clips: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(clips)).permute(0, 4, 1, 2, 3).float()


def _last_line(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1].rstrip(".")
