"""How loud sound is: where somebody speaks, and sound brought to one loudness."""

from __future__ import annotations

import numpy as np

from animagic.errors import InputError

LOUDNESS = -20.0
"""The level of speech after `normalised`, dB below full scale, root mean square of what is voiced."""
HIGHEST_PEAK = -1.0
"""dB: the peaks stay below, also those between the samples."""
MOST_GAIN = 30.0
"""dB: silence is not made loud."""
FRAMES_PER_SECOND = 50

_SILENT = -60.0  # dB: never a voice
_BELOW_LOUD = 30.0  # dB below the loudest parts: not a voice
_ABOVE_NOISE = 6.0  # dB above the quietest parts, if those are far below the loudest: a voice
_CLEAR = 12.0
_LEAD, _HANGOVER = 2, 5  # frames that still count before and after


def frame_levels(samples: np.ndarray, rate: int) -> np.ndarray:
    """The level of every 20 ms, dB below full scale: (ceil(50 n / rate),); -120 for perfect silence."""
    _check(samples, rate)
    count = -(-len(samples) * FRAMES_PER_SECOND // rate)
    edges = (np.arange(count + 1) * rate / FRAMES_PER_SECOND).round().astype(int).clip(max=len(samples))
    filled = np.unique(edges[:-1])
    power = np.add.reduceat(samples.astype(np.float64) ** 2, filled[filled < len(samples)])
    power = np.pad(power, (0, count - len(power)), mode="edge") / np.diff(edges).clip(min=1)
    return 10 * np.log10(power.clip(min=1e-12))


def voiced(samples: np.ndarray, rate: int) -> np.ndarray:
    """Where somebody speaks: bool for every 20 ms, (ceil(50 n / rate),).

    By energy: louder than -60 dB, at most 30 dB below the loudest twentieth, and 6 dB above the quietest tenth where
    that is background noise. 40 ms before and 100 ms after count as well, so that soft ends of words are not lost.

    Args:
        samples: float32 (n,), -1 to 1.
        rate: samples per second.
    Raises: InputError for samples of another shape, or none.
    """
    return voiced_levels(frame_levels(samples, rate))


def voiced_levels(levels: np.ndarray) -> np.ndarray:
    """`voiced` by the levels of at least one 20 ms: (n,) -> bool (n,)."""
    loud, noise = np.percentile(levels, (95, 10))
    threshold = max(_SILENT, loud - _BELOW_LOUD, min(noise + _ABOVE_NOISE, loud - _CLEAR))
    reach = np.zeros(2 * _HANGOVER + 1)
    reach[_HANGOVER - _LEAD :] = 1
    return np.convolve(levels > threshold, reach)[_HANGOVER : _HANGOVER + len(levels)] > 0


def normalised(samples: np.ndarray, rate: int) -> np.ndarray:
    """The sound at one loudness: what is voiced at -20 dB, or less where a peak would pass -1 dB; at most 30 dB more
    than it was. Sound without a voice stays as it is. float32 (n,), a copy.

    Raises: InputError for samples of another shape, or none.
    """
    levels = frame_levels(samples, rate)[voiced(samples, rate)]
    if not len(levels):
        return samples.astype(np.float32)
    speech = 10 * np.log10(np.mean(10 ** (levels / 10)))
    gain = min(LOUDNESS - speech, HIGHEST_PEAK - 20 * np.log10(true_peak(samples)), MOST_GAIN)
    return (samples * 10 ** (gain / 20)).astype(np.float32)


def true_peak(samples: np.ndarray) -> float:
    """The highest peak of the sound, also between samples: at four times the rate, by a windowed sinc of 32 taps."""
    taps = np.arange(-16, 16)
    peak = float(np.abs(samples).max())
    for part in (0.25, 0.5, 0.75):
        kernel = np.sinc(taps + part) * np.hanning(34)[1:-1]
        peak = max(peak, float(np.abs(np.convolve(samples, kernel / kernel.sum())).max()))
    return peak


def _check(samples: np.ndarray, rate: int) -> None:
    floating = isinstance(samples, np.ndarray) and np.issubdtype(samples.dtype, np.floating)
    if not floating or samples.ndim != 1 or not len(samples):
        given = f"{samples.dtype} {samples.shape}" if isinstance(samples, np.ndarray) else type(samples).__name__
        raise InputError(f"samples are {given}: give floating-point numbers of the shape (n,), n > 0.")
    if not 1000 <= rate <= 384_000:
        raise InputError(f"rate is {rate}: give 1000 to 384000 samples per second.")
