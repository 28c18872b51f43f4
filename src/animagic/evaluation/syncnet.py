"""SyncNet (Chung and Zisserman, "Out of time", ACCV 2016): how well lips fit a sound, by the network whose confidence
and distance talking heads are published with (LSE-C and LSE-D, or Sync-C and Sync-D).

Its weights may not come with this package: whoever has `syncnet_v2.model` gives the file. The architecture, the crop
and the sound's coefficients are those of its authors' public code (github.com/joonson/syncnet_python). That code finds
faces with another detector, so that values compare with published ones only roughly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.fft import dct
from scipy.signal import medfilt
from torch import Tensor, nn
from torch.nn import functional

from ..errors import CheckpointError, InputError
from ..weights.files import read_pickle
from ..weights.fit import check
from .speaking import Talk

FPS, RATE = 25, 16_000
"""Frames and samples per second that the network knows."""
SIDE = 224  # pixels of a face
CLIP = 5  # frames that are seen at once
COEFFICIENTS, HEARD = 13, 20  # mel-cepstral coefficients, and how many of these, 10 ms apart, are heard at once
REACH = 15  # frames: how far sound and lips are shifted against each other, as in published evaluations
TOGETHER = 20  # clips
SHORTEST = CLIP + 10  # frames

_MARGIN = 0.4  # of half a face, around it and above it; twice as much below
_GREY = 110  # 0 to 255, beside the frame
_SMOOTH = 13  # frames of the median by which a face's box is smoothed
_WINDOW, _STEP, _FFT, _FILTERS = 400, 160, 512, 26  # samples, samples, samples, mel filters
_EMPHASIS, _LIFTER = 0.97, 22


def _block(conv: nn.Module, norm: nn.Module, *pool: nn.Module) -> list[nn.Module]:
    return [conv, norm, nn.ReLU(), *pool]


class SyncNetwork(nn.Module):
    """Two towers: five frames of a face and 0.2 s of sound, each (batch, 1024). Names and shapes are the public
    file's."""

    def __init__(self) -> None:
        super().__init__()
        widths = (64, 192, 384, 256, 256)
        pools = {0: ((1, 1), (1, 1)), 1: ((3, 3), (1, 2)), 4: ((3, 3), (2, 2))}
        layers: list[nn.Module] = []
        for number, (before, width) in enumerate(zip((1, *widths), widths, strict=False)):
            pool = [nn.MaxPool2d(*pools[number])] if number in pools else []
            layers += _block(nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), *pool)
        self.netcnnaud = nn.Sequential(*layers, *_block(nn.Conv2d(256, 512, (5, 4)), nn.BatchNorm2d(512)))
        half = (1, 2, 2)
        flat = [_block(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(256)) for _ in range(3)]
        self.netcnnlip = nn.Sequential(
            *_block(
                nn.Conv3d(3, 96, (CLIP, 7, 7), stride=half), nn.BatchNorm3d(96), nn.MaxPool3d((1, 3, 3), stride=half)
            ),
            *_block(
                nn.Conv3d(96, 256, (1, 5, 5), padding=(0, 1, 1), stride=half),
                nn.BatchNorm3d(256),
                nn.MaxPool3d((1, 3, 3), padding=(0, 1, 1), stride=half),
            ),
            *(layer for block in flat for layer in block),
            nn.MaxPool3d((1, 3, 3), stride=half),
            *_block(nn.Conv3d(256, 512, (1, 6, 6)), nn.BatchNorm3d(512)),
        )
        self.netfcaud, self.netfclip = (
            nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024)) for _ in range(2)
        )

    def hear(self, sound: Tensor) -> Tensor:
        """sound: (batch, 1, 13, 20), coefficients every 10 ms."""
        return self.netfcaud(self.netcnnaud(sound).flatten(1))

    def see(self, faces: Tensor) -> Tensor:
        """faces: (batch, 3, 5, 224, 224), 0 to 255, blue before green before red."""
        return self.netfclip(self.netcnnlip(faces).flatten(1))


@dataclass(frozen=True)
class SyncNet:
    """The network with a user's weights. Called, it is a `speaking.SyncScore`."""

    network: SyncNetwork

    @classmethod
    def load(cls, file: str | Path) -> SyncNet:
        """Raises: InputError for a file that is missing; CheckpointError for one of another network."""
        if not Path(file).is_file():
            raise InputError(f"there is no file {file}: give SyncNet's weights, syncnet_v2.model.")
        given = read_pickle(Path(file))
        if not isinstance(given, dict) or not all(isinstance(tensor, Tensor) for tensor in given.values()):
            raise CheckpointError(f"{file} holds something else than tensors by name.")
        # Counts of batches are only needed in training, and older files have none.
        given = {name: tensor for name, tensor in given.items() if not name.endswith("num_batches_tracked")}
        network = SyncNetwork().requires_grad_(False).eval()
        ours = {name: tensor for name, tensor in network.state_dict().items() if name in given or "num_b" not in name}
        check(ours, given, file, hint=": is it for another network than SyncNet?")
        network.load_state_dict(given, strict=False)
        return cls(network)

    @torch.no_grad()
    def __call__(self, talk: Talk) -> dict[str, float]:
        """How well a face fits a sound: "LSE-C", the confidence, more is better; "LSE-D", the distance, less is better;
        "LSE offset" in frames, positive where the lips come after the sound.

        Raises: InputError for another frame rate than 25, or too short a video or sound.
        """
        frames, boxes, samples, fps = talk.frames, talk.boxes, talk.heard.samples, talk.fps
        count = min(len(frames), len(samples) * FPS // RATE) - CLIP
        if fps != FPS or count + CLIP < SHORTEST:
            raise InputError(
                f"SyncNet judges {FPS} frames a second, at least {SHORTEST} with sound, not {count + CLIP} at {fps:g}."
            )
        faces = torch.from_numpy(face_crops(frames[: count + CLIP], boxes[: count + CLIP])).permute(3, 0, 1, 2).float()
        sound = torch.from_numpy(cepstrum(samples)).float().T[None]
        seen, heard = [], []
        for start in range(0, count, TOGETHER):
            some = range(start, min(count, start + TOGETHER))
            seen.append(self.network.see(torch.stack([faces[:, i : i + CLIP] for i in some])))
            heard.append(self.network.hear(torch.stack([sound[:, :, 4 * i : 4 * i + HEARD] for i in some])))
        # Shifts beyond the ends compare with zeros, as published evaluations do.
        padded = functional.pad(torch.cat(heard), (0, 0, REACH, REACH))
        shifts = [functional.pairwise_distance(torch.cat(seen), padded[i : i + count]) for i in range(2 * REACH + 1)]
        distances = torch.stack([distance.mean() for distance in shifts])
        best = int(distances.argmin())
        confidence = distances.median() - distances[best]
        return {"LSE-C": float(confidence), "LSE-D": float(distances[best]), "LSE offset": float(REACH - best)}


def face_crops(frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """What SyncNet sees of a face: uint8 (F, 224, 224, 3), blue, green, red. frames: uint8 (F, H, W, 3); boxes: (F, 4)
    in pixels."""
    half = medfilt(boxes[:, 2:].max(1) / 2, _SMOOTH)
    x, y = (medfilt(boxes[:, axis] + boxes[:, axis + 2] / 2, _SMOOTH) for axis in (0, 1))
    crops = []
    for frame, size, *middle in zip(frames, half, x, y, strict=True):
        wide = (1 + _MARGIN) * size
        edge = int((1 + 2 * _MARGIN) * max(size, 1)) + 1
        padded = np.pad(frame, ((edge, edge), (edge, edge), (0, 0)), constant_values=_GREY)
        left, top = middle[0] + edge - wide, middle[1] + edge - size
        shown = Image.fromarray(padded).resize(
            (SIDE, SIDE), Image.Resampling.BILINEAR, (left, top, left + 2 * wide, top + 2 * wide)
        )
        crops.append(np.asarray(shown)[..., ::-1])
    return np.stack(crops)


def cepstrum(samples: np.ndarray) -> np.ndarray:
    """Mel-frequency cepstral coefficients, (n, 13) every 10 ms, as the package python_speech_features defines them by
    default: the first is the logarithm of the energy. samples: float32 (n,), 16 kHz, -1 to 1."""
    sound = np.round(samples.astype(np.float64) * 2**15)
    sound = np.append(sound[0], sound[1:] - _EMPHASIS * sound[:-1])
    count = 1 + max(0, -(-(len(sound) - _WINDOW) // _STEP))
    sound = np.pad(sound, (0, max(0, (count - 1) * _STEP + _WINDOW - len(sound))))
    pieces = np.lib.stride_tricks.sliding_window_view(sound, _WINDOW)[::_STEP][:count]
    power = np.square(np.abs(np.fft.rfft(pieces, _FFT))) / _FFT
    least = np.finfo(float).eps
    bands = np.log(np.where(found := power @ _mel_filters().T, found, least))
    found = dct(bands, norm="ortho")[:, :COEFFICIENTS]
    found *= 1 + _LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / _LIFTER)
    energy = power.sum(1)
    found[:, 0] = np.log(np.where(energy, energy, least))
    return found


def _mel_filters() -> np.ndarray:
    """(26, 257): triangles, evenly spaced on the mel scale from 0 to 8000 Hz, with their corners at whole bins."""
    mels = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), _FILTERS + 2)
    corners = np.floor((_FFT + 1) * 700 * (10 ** (mels / 2595) - 1) / RATE)
    bins = np.arange(_FFT // 2 + 1)
    rising = (bins - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - bins) / np.diff(corners)[1:, None]
    return np.where(bins < corners[1:-1, None], rising, falling).clip(min=0)
