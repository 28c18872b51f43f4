"""How like the frames of one video are to those of another: the measures of the paper's protocol, rightly computed and,
where the published code computes something else, also as published."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity

from .metrics import psnr
from .perceptual import lpips

WINDOW = 7  # pixels: the side of the window of SSIM


def l1(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference of uint8 pixels, 0 to 1."""
    return float(np.abs(a.astype(np.float64) - b).mean() / 255)


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two pictures, uint8 (H, W, 3), in grey (luma) and in a flat window of 7x7 pixels."""
    grey = [np.asarray(Image.fromarray(one).convert("L")) for one in (a, b)]
    return float(structural_similarity(*grey, win_size=WINDOW, data_range=255))


def published_l1(a: np.ndarray, b: np.ndarray) -> float:
    """What DisCo's code calls L1, and with it MagicAnimate: the mean difference, 0 to 255, over the number of pixels.
    It only compares between pictures of one size."""
    return l1(a, b) * 255 / (a.shape[0] * a.shape[1])


def published_psnr(a: np.ndarray, b: np.ndarray) -> float:
    """What DisCo's code calls PSNR, and with it MagicAnimate: differences and their squares wrap round at 256, so that
    unlike pictures come out at 28 to 30 dB."""
    wrapped = a - b
    error = (wrapped * wrapped).mean()
    return float(20 * np.log10(255 / np.sqrt(error))) if error else 100.0


_MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "L1": l1,
    "PSNR": psnr,
    "SSIM": ssim,
    "L1 as published": published_l1,
    "PSNR as published": published_psnr,
}


def likeness(frames: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Every measure of each frame against the true one, both uint8 (F, H, W, 3): name -> (F,).

    Raises: InputError for pictures smaller than 32x32.
    """
    measured = {
        name: np.array([measure(*pair) for pair in zip(frames, truth, strict=True)])
        for name, measure in _MEASURES.items()
    }
    return measured | {"LPIPS": lpips(frames, truth)}
