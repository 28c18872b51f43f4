"""Sound to hear: speech-like noise, and the samples beside the repository."""

import os
import wave
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"


def make_syllables(seconds: float, seed: int = 0) -> np.ndarray:
    """Buzzing at 120 Hz, coloured anew every 0.15 s, with pauses: float32 (n,), 16 kHz."""
    draw, parts = np.random.default_rng(seed), []
    for start in range(0, int(16_000 * seconds), 2400):
        time = (start + np.arange(2400)) / 16_000
        tones = sum(draw.random() / k * np.sin(2 * np.pi * 120 * k * time) for k in range(1, 25))
        parts.append(tones * np.hanning(2400) * (draw.random() > 0.2) * 0.3)
    noise = 1e-3 * draw.standard_normal(len(parts) * 2400)
    return (np.concatenate(parts) + noise).astype(np.float32)[: int(16_000 * seconds)]


@pytest.fixture(scope="session")
def syllables():
    return make_syllables


@pytest.fixture
def sample():
    """A file of shared/samples, by its name: its path. Skips where ../shared is missing."""

    def path(name: str) -> Path:
        folder = Path(os.environ.get("ANIMAGIC_SAMPLES", SHARED / "samples"))
        if not folder.is_dir():
            pytest.skip(f"no samples: {folder} is missing")
        return folder / name

    return path


@pytest.fixture
def speech(sample):
    """A sample of speech, 16 kHz: float32 (n,)."""

    def read(name: str) -> np.ndarray:
        with wave.open(str(sample(name))) as file:
            return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 2**15

    return read
