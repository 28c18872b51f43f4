"""Speaking portraits of the studio as training data: a photo of somebody, and clips in which they speak."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..media import atomic_path
from ..speech import at_frames
from ..synthetic.portraits import (
    caption,
    render_photo,
    render_scene,
    sample_performance,
    sample_portrait,
    scene_caption,
)
from ..synthetic.portraits.identity import Kind
from .voices import VoicedBatches

GROUP = 4
"""Frames of a latent frame."""
CONTEXT = 2
"""Frames before and after those of a latent frame in which its speech is heard."""
CELL = 8
"""Pixels of a latent frame's height and width."""


@dataclass(frozen=True)
class Talk:
    """A clip of people who speak.

    photo: uint8 (H, W, 3). frames: uint8 (F, H, W, 3). speech: what is heard while each is shown, float16 (speakers, F,
    layers, channels). masks: each speaker's face in cells of 8 x 8 pixels, uint8 (speakers, F, H / 8, W / 8), 255: all
    of the cell; mouth: the same of all mouths, uint8 (F, H / 8, W / 8).
    """

    photo: np.ndarray
    frames: np.ndarray
    speech: np.ndarray
    masks: np.ndarray
    mouth: np.ndarray
    caption: str

    def window(self, start: int, latents: int, begins: bool) -> Window:
        """So many latent frames from a frame on. begins: the first of them is that frame alone, as at the beginning of
        a video; otherwise there must be two frames before it."""
        numbers = start + GROUP * np.arange(latents)[:, None] + np.arange(-CONTEXT, GROUP + CONTEXT)
        if begins:
            numbers = (numbers - GROUP + 1).clip(min=start)
        numbers = numbers.clip(max=len(self.frames) - 1)
        shown = numbers[:, CONTEXT:-CONTEXT]
        return Window(
            self.frames[shown.ravel()],
            self.speech[:, numbers].astype(np.float32),
            self.masks[:, shown].mean(2, dtype=np.float32) / 255,
            self.mouth[shown].mean(1, dtype=np.float32) / 255,
        )


@dataclass(frozen=True)
class Window:
    """Latent frames of a `Talk`.

    video: uint8 (4 latents, H, W, 3). speech: float32 (speakers, latents, 8, layers, channels). masks, mouth: float32
    (speakers, latents, H / 8, W / 8) and (latents, H / 8, W / 8), 0 to 1, means over four frames.
    """

    video: np.ndarray
    speech: np.ndarray
    masks: np.ndarray
    mouth: np.ndarray


def batch_of(talks: Sequence[Talk], windows: Sequence[Window], step: int) -> dict[str, Any]:
    """A batch of windows, each with the photo and caption of the clip that it comes from: see `PortraitBatches`."""

    def stacked(name: str, source: Sequence[Any]) -> Tensor:
        return torch.from_numpy(np.stack([getattr(one, name) for one in source]))

    return {
        "photo": stacked("photo", talks).permute(0, 3, 1, 2).contiguous(),
        "video": stacked("video", windows).permute(0, 4, 1, 2, 3).contiguous(),
        "captions": [talk.caption for talk in talks],
        "speech": stacked("speech", windows),
        "masks": stacked("masks", windows),
        "mouth": stacked("mouth", windows),
        "index": step,
    }


def in_cells(masks: np.ndarray) -> np.ndarray:
    """Masks, uint8 (..., H, W) -> their means over cells of 8 x 8 pixels, uint8 (..., H / 8, W / 8)."""
    *before, height, width = masks.shape
    cells = masks.reshape(*before, height // CELL, CELL, width // CELL, CELL).mean((-3, -1), dtype=np.float32)
    return np.rint(cells).astype(np.uint8)


@dataclass(eq=False)
class PortraitBatches(VoicedBatches):
    """Clips of speaking portraits that the studio draws; item `step` is a whole batch.

    Args:
        batch_size: windows. latents: latent frames of each, four frames of video. height, width: in pixels.
        windows: so many of a batch come from the same clip; it saves reading.
        alone_share: share of the batches that hold single latent frames, half as many of them as otherwise.
        own_photo: share of the windows whose photo is another frame of the clip, so that little has moved since; the
            others have one of the same person at another time.
        begins: share of the windows that are the beginning of a video, so that their first latent frame stands for one
            frame, shown four times.
        pairs: share of the clips that show two people, one or both of whom speak; if there can be any, every batch has
            two speakers: where there is one person, the other's mask is empty and their voice silent.
        drawn_share: of the clips whose people are drawn; the others are heads of a parametric model.
        held_out: people, sentences and voices that are never met in training.
        folder: where clips are kept, to be used again; drawing takes longer than reading. None: each is used once.
        kept: latent frames of a clip there, from which windows are cut.
        clips: of each kind, in the folder in the end. begin: at the first step; then one more every step.
        voices: the folder of a `VoiceBank`. recordings: how many there are in it.
        encoder: None: the embedded speech encoder; or the folder of a wav2vec 2.0 model.
        motion: what everybody's head does, of `animagic.synthetic.portraits.MOTIONS`; None: one of them each.
        close_up: height and width in pixels of a piece around the mouth, to which videos and photos of some batches are
            cut; these hold as many more windows as their pieces are smaller. close_up_share: how many.

    Items: {"photo": uint8 (windows, 3, height, width), "video": uint8 (windows, 3, 4 latents, height, width),
    "captions": list[str], "speech": float32 (windows, speakers, latents, 8, layers, channels), "masks": float32
    (windows, speakers, latents, height / 8, width / 8), "mouth": float32 (windows, latents, height / 8, width / 8),
    "index": int}.
    """

    seed: int
    steps: int
    batch_size: int = 4
    latents: int = 8
    height: int = 128
    width: int = 128
    fps: float = 25
    windows: int = 1
    alone_share: float = 0.0
    own_photo: float = 0.0
    begins: float = 0.3
    pairs: float = 0.1
    drawn_share: float = 0.5
    held_out: bool = False
    folder: str | None = None
    kept: int = 8
    clips: int = 2000
    begin: int = 400
    voices: str | None = None
    recordings: int = 300
    encoder: str | None = None
    motion: str | None = None
    close_up: int = 32
    close_up_share: float = 0.0

    def __post_init__(self):
        check_batches(self)
        if self.latents > self.kept:
            raise InputError(f"latents is {self.latents}; clips are kept with {self.kept}.")
        if self.windows < 1 or self.batch_size % self.windows:
            raise InputError(f"windows is {self.windows}; it must divide batch_size, which is {self.batch_size}.")

    def __getitem__(self, step: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, step))
        talks, windows = [], []
        latents, each = self.latents, self.windows
        if self.alone_share and rng.random() < self.alone_share:
            latents, each = 1, self.windows * self.latents // 2
        count, close = self.batch_size // self.windows, rng.random() < self.close_up_share
        if close:
            count *= self.height * self.width // self.close_up**2
        for i in range(count):
            talk = self._clip(step, i, rng)
            for _ in range(each):
                own = self.own_photo and rng.random() < self.own_photo
                talks.append(replace(talk, photo=talk.frames[rng.integers(len(talk.frames))]) if own else talk)
            windows += [random_window(talk, latents, self.begins, rng) for _ in range(each)]
        if close:
            pieces = [_around_mouth(*pair, self.close_up, rng) for pair in zip(talks, windows, strict=True)]
            talks, windows = map(list, zip(*pieces, strict=True))
        return batch_of(talks, windows, step)

    def _clip(self, step: int, i: int, rng: np.random.Generator) -> Talk:
        number = int(rng.integers(min(self.clips, self.begin + step)))
        kind: Kind = "drawn" if rng.random() < self.drawn_share else "head"
        people = 2 if rng.random() < self.pairs else 1
        if self.folder is None:
            talk = self._drawn(kind, people, (self.seed, step, i))
        else:
            talk = self.clip(number, kind, people)
        return self._with_listener(talk) if people == 1 and self.pairs > 0 else talk

    def clip(self, number: int, kind: Kind = "drawn", people: int = 1) -> Talk:
        """A clip of the folder, drawn if it is not there yet. kind: "drawn" or "head"."""
        size = f"{self.width}x{self.height}x{self.kept}-{self.fps:g}"
        heard = f"-{Path(self.encoder).name}" if self.encoder else ""
        moved = f"-{self.motion.replace(' ', '-')}" if self.motion else ""
        name = f"{kind}-{people}-{size}{heard}{moved}{'-held-out' if self.held_out else ''}"
        path = Path(str(self.folder)) / name / f"{number}.clip"
        if path.is_file():
            return _unpacked(path.read_bytes())
        made = self._drawn(kind, people, (number, people))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(_packed(made))
        return made

    def _drawn(self, kind: Kind, people: int, seed: tuple[int, ...]) -> Talk:
        rng = np.random.default_rng(seed)
        speaks = [True] if people == 1 else [[True, True], [True, False], [False, True]][int(rng.choice(3))]
        count, size = GROUP * self.kept + 2 * CONTEXT, (self.height, self.width)
        heard = [self._heard(one, count, rng) for one in speaks]
        shown = [sample_portrait(rng, self.held_out, kind) for _ in speaks]
        acted = [sample_performance(rng, mouth, self.fps, self.held_out, motion=self.motion) for mouth, _ in heard]
        photo = render_photo(shown, rng, *size).frames[0]
        scene = render_scene(shown, acted, *size)
        if people == 1:
            text = caption(shown[0], acted[0], rng)
        else:
            text = scene_caption((shown[0], shown[1]), (acted[0], acted[1]), rng)
        speech = np.stack([speech for _, speech in heard])
        masks = in_cells(scene.face).swapaxes(0, 1)
        return Talk(photo, scene.frames, speech, masks, in_cells(scene.mouth.max(1)), text)

    def _heard(self, speaks: bool, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The mouth and the speech of so many frames of a recording, or of silence."""
        if not speaks:
            mouth, features = np.zeros((count, 3), np.float32), self.bank.silence
            mouth[:, 1] = 0.5
        else:
            recording = self.bank[int(rng.integers(len(self.bank)))]
            mouth, features = recording.mouth(self.fps), recording.features
        start = int(rng.integers(len(mouth) - count + 1))
        speech = at_frames(features, self.fps, start + count)[start:]
        return mouth[start : start + count], speech.half().numpy()

    def _with_listener(self, talk: Talk) -> Talk:
        """The clip with a second speaker who is nowhere to be seen."""
        silence = at_frames(self.bank.silence, self.fps, len(talk.frames)).half().numpy()
        speech, masks = np.stack([talk.speech[0], silence]), np.stack([talk.masks[0], np.zeros_like(talk.masks[0])])
        return Talk(talk.photo, talk.frames, speech, masks, talk.mouth, talk.caption)


def check_batches(batches: Any) -> None:
    """Raise InputError for settings of portraits that cannot be."""
    for name in ("steps", "batch_size", "latents"):
        if getattr(batches, name) < 1:
            raise InputError(f"{name} must be at least 1, not {getattr(batches, name)}.")
    for name in ("height", "width"):
        if getattr(batches, name) < CELL or getattr(batches, name) % CELL:
            raise InputError(f"{name} is {getattr(batches, name)}; give a multiple of {CELL}.")
    if getattr(batches, "close_up_share", 0):
        side, most = batches.close_up, min(batches.height, batches.width)
        if not CELL <= side <= most or side % CELL:
            raise InputError(f"close_up is {side}; give a multiple of {CELL} up to {most}.")
    for name in ("begins", "pairs", "drawn_share", "close_up_share"):
        if not 0 <= getattr(batches, name, 0) <= 1:
            raise InputError(f"{name} is {getattr(batches, name)}; give a share, 0 to 1.")


def random_window(talk: Talk, latents: int, begins: float, rng: np.random.Generator) -> Window:
    """A window of a clip from anywhere in it. begins: the chance that it is the beginning of a video."""
    spare = len(talk.frames) - GROUP * latents - 2 * CONTEXT
    if rng.random() < begins:
        return talk.window(int(rng.integers(spare + GROUP + CONTEXT)), latents, True)
    return talk.window(CONTEXT + int(rng.integers(spare + 1)), latents, False)


def _around_mouth(talk: Talk, window: Window, side: int, rng: np.random.Generator) -> tuple[Talk, Window]:
    """A piece of photo and window that holds the middle of the mouth, or one from anywhere where none is seen."""
    cells, size = np.argwhere(window.mouth.max(0) > 0.1), np.array(window.mouth.shape[-2:])
    middle = cells.mean(0) if len(cells) else rng.uniform(0, size)
    corner = np.rint(middle - side / CELL * rng.uniform(0.3, 0.7, 2)).astype(int).clip(0, size - side // CELL)
    rows, columns = (slice(at, at + side // CELL) for at in corner)
    y, x = (slice(CELL * at, CELL * at + side) for at in corner)
    piece = replace(window, video=window.video[:, y, x], masks=window.masks[..., rows, columns])
    return replace(talk, photo=talk.photo[y, x]), replace(piece, mouth=window.mouth[:, rows, columns])


def _packed(talk: Talk) -> bytes:
    fields = vars(talk) | {
        "frames": np.diff(talk.frames, axis=0, prepend=np.uint8(0)),
        "caption": np.array(talk.caption),
    }
    into = io.BytesIO()
    np.savez(into, **fields)
    return zlib.compress(into.getvalue(), 1)


def _unpacked(packed: bytes) -> Talk:
    with np.load(io.BytesIO(zlib.decompress(packed))) as kept:
        fields = dict(kept)
    frames = np.cumsum(fields["frames"], 0, dtype=np.uint8)  # what does not move takes little space as differences
    return Talk(**fields | {"frames": frames, "caption": str(fields["caption"])})
