"""What a report shows of a video."""

from __future__ import annotations

import numpy as np

SHOTS = 5  # frames


def in_a_row(video: np.ndarray) -> np.ndarray:
    """SHOTS frames of a video, uint8 (F, H, W, 3), side by side: (H, W, 3)."""
    shots = video[np.linspace(0, len(video) - 1, SHOTS).astype(int)]
    return np.concatenate(np.pad(shots, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=255), axis=1)
