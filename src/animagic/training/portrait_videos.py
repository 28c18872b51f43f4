"""Talking videos of one's own as training data: faces are found, and the sound is heard, once, and kept."""

from __future__ import annotations

import hashlib
import warnings
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch.utils.data import Dataset

from ..errors import InputError, MediaError
from ..faces import Face, face_mask, follow_faces, mouth_mask, smoothed
from ..media import Framing, atomic_path, iter_video, read_sound
from ..speech import SpeechEncoder, at_frames, features, normalised
from .portraits import CONTEXT, GROUP, Talk, Window, batch_of, check_batches, in_cells, random_window
from .videos import SUFFIXES
from .voices import RATE, speech_encoder

_AROUND = 0.45  # of the face's box, what is seen on every side of it


@dataclass(frozen=True)
class Found:
    """What is kept of a video. meshes: of the largest face, float32 (F, 468, 3); seen: bool (F,); speech: what is heard
    while each frame is shown, float16 (F, layers, channels); height, width: of the frames."""

    meshes: np.ndarray
    seen: np.ndarray
    speech: np.ndarray
    height: int
    width: int


@dataclass(eq=False)
class PortraitVideos(Dataset):
    """Clips cut out of talking videos around the largest face, each with another frame of its video as the photo; item
    `step` is a batch, as `PortraitBatches` gives it, with one speaker.

    Args:
        source: a folder of films with sound, with the folders inside it, or one film. Captions lie beside them,
            NAME.txt beside NAME.mp4; one without is "".
        batch_size, latents, height, width, begins: as in `PortraitBatches`.
        fps: frames per second of a clip: those nearest in time are taken.
        folder: where faces and speech are kept, a file for each video; to find them takes longer than a training step.
            Nothing is ever written beside the videos.
        mirror: share of the clips that are mirrored.
        encoder: None: the embedded speech encoder; or the folder of a wav2vec 2.0 model.

    A video that is too short, cannot be read, has no sound, or shows no face for so long is passed over, and the next
    one by name taken; a warning at the end says how many these were.
    Raises: InputError for a wrong source or number; when a batch is drawn, if no video at all can be used.
    """

    source: str | Path
    seed: int
    steps: int
    batch_size: int = 1
    latents: int = 8
    height: int = 512
    width: int = 512
    fps: float = 25
    begins: float = 0.3
    folder: str | Path = "runs/faces"
    mirror: float = 0.5
    encoder: str | None = None

    def __post_init__(self):
        check_batches(self)
        if not 1 <= self.fps <= 240:
            raise InputError(f"fps is {self.fps}; give 1 to 240 frames per second.")
        if not 0 <= self.mirror <= 1:
            raise InputError(f"mirror is {self.mirror}; give a share of the clips, 0 to 1.")
        root = Path(self.source)
        found = [root] if root.is_file() else sorted(root.rglob("*"))
        self.videos = [path for path in found if path.is_file() and path.suffix.lower() in SUFFIXES]
        if not self.videos:
            raise InputError(f"{root} holds no videos of people who speak; give video files ({', '.join(SUFFIXES)}).")
        # In memory that the loader's processes share: none of them tries a video twice, and the last one knows all.
        self._unusable = torch.zeros(len(self.videos), dtype=torch.bool).share_memory_()

    @cached_property
    def speech_encoder(self) -> SpeechEncoder:
        return speech_encoder(self.encoder)

    @property
    def skipped(self) -> list[str]:
        """The videos that turned out to be of no use so far."""
        return [str(self.videos[i]) for i in self._unusable.nonzero().flatten().tolist()]

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, step))
        talks, windows = zip(*(self._clip(rng) for _ in range(self.batch_size)), strict=True)
        if step == self.steps - 1 and (skipped := self.skipped):
            warnings.warn(
                f"{len(skipped)} of {len(self.videos)} videos were passed over: too short, unreadable, silent, or "
                f"without a face for so long; the first is {skipped[0]}.",
                stacklevel=2,
            )
        return batch_of(talks, windows, step)

    def _clip(self, rng: np.random.Generator) -> tuple[Talk, Window]:
        """A window of the first usable video from one at random on."""
        first, seed = int(rng.integers(len(self.videos))), int(rng.integers(2**63))
        error = MediaError(f"{self.source} was changed while it was read.")
        for i in range(first, first + len(self.videos)):
            index = i % len(self.videos)
            if self._unusable[index]:
                continue
            try:
                return self._cut(self.videos[index], np.random.default_rng(seed))
            except MediaError as found:
                self._unusable[index], error = True, found
        raise InputError(
            f"none of the {len(self.videos)} videos of {self.source} can be used; the last: {error}"
        ) from error

    def _cut(self, path: Path, rng: np.random.Generator) -> tuple[Talk, Window]:
        """Raises MediaError for a video that cannot be used."""
        found = self.found(path)
        count = GROUP * self.latents + 2 * CONTEXT
        starts = np.flatnonzero(np.convolve(found.seen, np.ones(count), "valid") > count - 0.5)
        if len(found.seen) < count or not len(starts):
            raise MediaError(f"{path} shows no face for {count} frames without a break: give other videos.")
        start = int(starts[int(rng.integers(len(starts)))])
        clip = np.arange(start, start + count)
        others = np.setdiff1d(np.flatnonzero(found.seen), clip)
        photo = int(rng.choice(others if len(others) else clip))
        frames = _read(path, self.fps, [*clip.tolist(), photo])
        meshes = found.meshes[[*clip, photo]]
        (left, top), (right, bottom) = meshes[..., :2].min((0, 1)), meshes[..., :2].max((0, 1))
        size = (self.height, self.width)
        try:
            framing = Framing.around((left, top, right, bottom), (found.height, found.width), size, _AROUND)
        except InputError as error:
            raise MediaError(f"{path} shows a face outside of the picture: {error}") from error
        pictures, placed = framing.into(frames), framing.map_points(meshes).astype(np.float32)
        faces = [Face(mesh, 1.0) for mesh in placed[:-1]]
        face, mouth = (_bytes([mask(one, *size) for one in faces]) for mask in (face_mask, mouth_mask))
        if rng.random() < self.mirror:
            pictures, face, mouth = pictures[:, :, ::-1], face[..., ::-1], mouth[..., ::-1]
        speech = found.speech[None, clip]
        text = path.with_suffix(".txt").read_text("utf-8").strip() if path.with_suffix(".txt").is_file() else ""
        talk = Talk(pictures[-1], pictures[:-1], speech, in_cells(face)[None], in_cells(mouth), text)
        return talk, random_window(talk, self.latents, self.begins, rng)

    def found(self, path: Path) -> Found:
        """The largest face of a video and its speech, from the folder; of several processes one looks, the others wait.

        Raises: MediaError for a video that cannot be read or has no sound.
        """
        facts = (str(path), path.stat().st_size, path.stat().st_mtime_ns, self.fps, self.encoder)
        kept = Path(self.folder) / f"{path.stem}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}.npz"
        if not kept.is_file():
            try:
                kept.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"faces cannot be kept in {self.folder} ({error.strerror}); name another.") from error
            lock = kept.with_suffix(".lock")
            with FileLock(lock):  # the system frees it when the process dies
                if not kept.is_file():
                    with atomic_path(kept) as temporary, temporary.open("wb") as file:
                        np.savez(file, **vars(self._look(path)))
                lock.unlink(missing_ok=True)
        return _kept(kept)

    def _look(self, path: Path) -> Found:
        try:
            faces = smoothed(follow_faces(iter_video(path, self.fps), self.fps))
        except InputError as error:  # frames of different sizes
            raise MediaError(f"{path}: {error}") from error
        if not faces.mesh.shape[1]:
            raise MediaError(f"{path} shows no face: give other videos.")
        count = len(faces.mesh)
        sound = normalised(read_sound(path, RATE).samples, RATE)
        sound = np.pad(sound, (0, max(0, int(count / self.fps * RATE) + 1 - len(sound))))
        heard = at_frames(features(self.speech_encoder, sound), self.fps, count).half().numpy()
        return Found(faces.mesh[:, 0], faces.confidence[:, 0] > 0, heard, faces.height, faces.width)


def _bytes(masks: list[np.ndarray]) -> np.ndarray:
    return np.rint(255 * np.stack(masks)).astype(np.uint8)


def _read(path: Path, fps: float, numbers: list[int]) -> np.ndarray:
    with closing(iter_video(path, fps)) as frames:  # type: ignore[type-var] # it is a generator
        found = {i: frame for i, frame in enumerate(islice(frames, max(numbers) + 1)) if i in numbers}
    if missing := sorted(set(numbers) - found.keys()):
        raise MediaError(f"{path} ends before frame {missing[0]}.")
    return np.stack([found[number] for number in numbers])


@lru_cache(maxsize=64)
def _kept(path: Path) -> Found:
    with np.load(path) as kept:
        fields: dict[str, Any] = dict(kept)
    return Found(**fields | {name: int(fields[name]) for name in ("height", "width")})
