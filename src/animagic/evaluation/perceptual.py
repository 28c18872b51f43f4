"""How different two pictures look: LPIPS 0.1 with AlexNet (arXiv 1801.03924), and the features of that network."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError

WEIGHTS = Path(__file__).parent / "weights" / "lpips_alex.safetensors"
SMALLEST = 32  # pixels: of less, nothing is left after the second pooling
TOGETHER = 16  # frames

_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
_SPREAD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class PerceptualNetwork(nn.Module):
    """The five convolutions of AlexNet, and a weight for each of their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 64, 11, stride=4, padding=2)
        self.conv1 = nn.Conv2d(64, 192, 5, padding=2)
        self.conv2 = nn.Conv2d(192, 384, 3, padding=1)
        self.conv3 = nn.Conv2d(384, 256, 3, padding=1)
        self.conv4 = nn.Conv2d(256, 256, 3, padding=1)
        for level, channels in enumerate((64, 192, 384, 256, 256)):
            setattr(self, f"lin{level}", nn.Conv2d(channels, 1, 1, bias=False))

    def features(self, pictures: Tensor) -> list[Tensor]:
        """What each convolution finds, (batch, channels, h, w), in pictures, (batch, 3, height, width), 0 to 1."""
        x, levels = (pictures - _MEAN) / _SPREAD, []
        for level in range(5):
            x = functional.max_pool2d(x, 3, 2) if level in (1, 2) else x
            x = functional.relu(getattr(self, f"conv{level}")(x))
            levels.append(x)
        return levels

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The distance of each picture of `a` from the one of `b`: (batch,)."""
        distance = torch.zeros(len(a))
        for level, pair in enumerate(zip(self.features(a), self.features(b), strict=True)):
            one, other = (x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in pair)
            distance = distance + getattr(self, f"lin{level}")((one - other).square()).mean((1, 2, 3))
        return distance


@cache
def perceptual_network() -> PerceptualNetwork:
    network = PerceptualNetwork().requires_grad_(False).eval()
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
    return network


def _pictures(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255


def _check_size(frames: np.ndarray) -> None:
    height, width = frames.shape[1:3]
    if min(height, width) < SMALLEST:
        raise InputError(f"LPIPS needs pictures of at least {SMALLEST}x{SMALLEST} pixels, not {width}x{height}.")


@torch.no_grad()
def lpips(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """LPIPS of each frame of `a` from the one of `b`, both uint8 (F, H, W, 3): (F,), 0 for the same picture.

    Raises: InputError for pictures smaller than 32x32.
    """
    _check_size(a)
    network, starts = perceptual_network(), range(0, len(a), TOGETHER)
    parts = [network(*(_pictures(x[start : start + TOGETHER]) for x in (a, b))) for start in starts]
    return torch.cat(parts).numpy()


@torch.no_grad()
def alexnet_features(frames: np.ndarray) -> np.ndarray:
    """What AlexNet finds in each frame: the means of its third and fifth convolution over the picture.

    Args:
        frames: uint8 (F, H, W, 3).
    Returns: float32 (F, 640).
    Raises: InputError for pictures smaller than 32x32.
    """
    _check_size(frames)
    parts = []
    for start in range(0, len(frames), TOGETHER):
        levels = perceptual_network().features(_pictures(frames[start : start + TOGETHER]))
        parts.append(torch.cat([levels[2].mean((2, 3)), levels[4].mean((2, 3))], 1))
    return torch.cat(parts).numpy()
