"""A smooth clip that compresses well, so that a poor figure is the code's fault."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from animagic.media import VideoWriter


def make_clip(frames: int = 24, height: int = 64, width: int = 96) -> np.ndarray:
    t = np.arange(frames)[:, None, None] * 0.1
    y, x = np.linspace(0, 3, height)[:, None], np.linspace(0, 4, width)
    waves = [np.sin(x + y + t), np.sin(x - y - t), np.cos(x * y / 4 + t)]
    return ((np.stack(waves, -1) + 1) * 127).astype(np.uint8)


@pytest.fixture(scope="session")
def smooth():
    return make_clip


@pytest.fixture(scope="session")
def clip() -> np.ndarray:
    """uint8 (24, 64, 96, 3); no two frames are equal."""
    return make_clip()


@pytest.fixture
def write(clip, tmp_path, monkeypatch):
    """Write a clip to a name in the test's own folder, which is the current one, and give its path."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, frames: np.ndarray = clip, fps: float = 24, **options) -> Path:
        with VideoWriter(name, fps, **options) as writer:
            writer.write(frames)
        return Path(name)

    return write


@pytest.fixture(scope="session")
def psnr():
    """The likeness of two clips in dB."""

    def psnr(a: np.ndarray, b: np.ndarray) -> float:
        assert a.shape == b.shape
        error = np.mean((a.astype(float) - b) ** 2)
        return float(10 * np.log10(255**2 / error)) if error else np.inf

    return psnr


@pytest.fixture(scope="session")
def samples() -> Path:
    folder = Path(__file__).parents[3] / "shared" / "samples"
    if not folder.is_dir():
        pytest.skip("the sample files are not here")
    return folder


def save_sound(
    path: Path, samples: np.ndarray, codec: str, rate: int = 48_000, sound_at: float = 0, film_at: float | None = None
) -> Path:
    """Samples (n,) or (channels, n), and, if `film_at` is given, a film of 2 s that begins then."""
    samples = np.ascontiguousarray(np.atleast_2d(samples))
    with av.open(str(path), "w") as container:
        packets = []
        stream = container.add_stream(codec, rate=rate)
        stream.layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
        if film_at is not None:
            film = container.add_stream("libx264", rate=24)
            film.width, film.height, film.pix_fmt = 32, 32, "yuv420p"
            for i in range(48):
                picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), i, np.uint8), format="rgb24")
                picture.pts, picture.time_base = i + round(film_at * 24), Fraction(1, 24)
                packets += film.encode(picture)
            packets += film.encode(None)
        frame = av.AudioFrame.from_ndarray(samples, "fltp", stream.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = rate, round(sound_at * rate), Fraction(1, rate)
        packets += [*stream.encode(frame), *stream.encode(None)]
        container.mux(sorted(packets, key=lambda packet: packet.dts * packet.time_base))
    return path


@pytest.fixture(scope="session")
def sound_file():
    return save_sound
