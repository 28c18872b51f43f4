"""Talking videos of one's own as training data: faces found and sound heard once, windows cut around the face."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from animagic.errors import InputError
from animagic.faces import Faces, face_in
from animagic.media import Sound, VideoWriter
from animagic.training import portrait_videos
from animagic.training.portrait_videos import PortraitVideos
from animagic.training.voices import RATE

HIGH, WIDE, FPS = 48, 64, 25


class Loudness:
    """In place of an encoder: how loud each frame is."""

    layers, channels, before, after = 2, 3, 0, 0

    def encode(self, sound: torch.Tensor, first: int) -> torch.Tensor:
        return sound.reshape(-1, 320).abs().mean(1)[:, None, None].expand(-1, 2, 3)


class Finder:
    """In place of the network: a face of 16 x 16 pixels at (x, 16), x is a frame's blue; nobody where that is 0."""

    calls = 0

    def __call__(self, frames, fps) -> Faces:
        self.calls += 1
        places = [float(np.median(frame[:4, :, 2])) for frame in frames]
        mesh = np.stack([face_in(x, 16, 16, 16).mesh for x in places])[:, None]
        return Faces(mesh, np.array([x > 8 for x in places], np.float32)[:, None], HIGH, WIDE, fps)


@pytest.fixture
def finder(monkeypatch) -> Finder:
    made = Finder()
    monkeypatch.setattr(portrait_videos, "follow_faces", made)
    monkeypatch.setattr(portrait_videos, "smoothed", lambda faces: faces)
    monkeypatch.setattr(portrait_videos, "speech_encoder", lambda folder: Loudness())
    return made


def film(path: Path, count: int = 40, nobody: range = range(0), sound: bool = True, x: int = 24) -> None:
    """A face stands at x, in a frame whose red is its number, times 4; a tone begins in the middle."""
    frames = np.zeros((count, HIGH, WIDE, 3), np.uint8)
    frames[..., 0] = (4 * np.arange(count))[:, None, None]
    frames[..., 2] = x
    frames[[i for i in range(count) if i in nobody], ..., 2] = 0
    tone = 0.2 * np.sin(np.arange(count * RATE // FPS) * 0.3).astype(np.float32)
    tone[: len(tone) // 2] = 0
    with VideoWriter(path, FPS, sound=Sound(tone, RATE) if sound else None) as writer:
        writer.write(frames)


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    film(folder / "a.mp4")
    (folder / "a.txt").write_text("somebody hums\n")
    return folder


def batches(source, folder, **settings) -> PortraitVideos:
    given = {"batch_size": 2, "latents": 2, "height": 32, "width": 32, "mirror": 0.0, "begins": 0.0}
    return PortraitVideos(source, 7, settings.pop("steps", 20), folder=folder, **{**given, **settings})


def test_items_are_those_of_the_studio(films, tmp_path, finder):
    found = batches(films, tmp_path)[3]
    assert found["photo"].shape == (2, 3, 32, 32)
    assert found["video"].shape == (2, 3, 8, 32, 32)
    assert found["speech"].shape == (2, 1, 2, 8, 2, 3)
    assert found["masks"].shape == (2, 1, 2, 4, 4)
    assert found["mouth"].shape == (2, 2, 4, 4)
    assert found["captions"] == ["somebody hums"] * 2
    assert found["index"] == 3


def test_speech_is_in_time_with_the_pictures(films, tmp_path, finder):
    for step in range(6):
        found = batches(films, tmp_path)[step]
        shown = (found["video"][:, 0].float().mean((-1, -2)) / 4).round()
        heard = found["speech"][:, 0, :, 2:-2, 0, 0].flatten(1) > 0.02
        clear = (shown - 19.5).abs() > 1  # a codec blurs the moment at which the tone begins
        assert torch.equal(heard[clear], (shown >= 20)[clear])


def test_a_face_fills_the_middle(films, tmp_path, finder):
    masks = batches(films, tmp_path)[0]["masks"]
    assert masks[..., 1:3, 1:3].min() > 0.5
    assert masks[..., 0, 0].max() < 0.2
    mouth = batches(films, tmp_path)[0]["mouth"]
    assert mouth[..., 2:, :].sum() > 2 * mouth[..., :2, :].sum()


def test_the_photo_is_another_frame(films, tmp_path, finder):
    for step in range(6):
        found = batches(films, tmp_path)[step]
        shown = (found["video"][:, 0].float().mean((-1, -2)) / 4).round()
        photo = (found["photo"][:, 0].float().mean((-1, -2)) / 4).round()
        assert not (shown == photo[:, None]).any()


def test_mirrored_masks_follow(tmp_path, finder):
    film(tmp_path / "a.mp4", x=10)  # near the border, so that it cannot be in the middle
    plain, mirrored = (batches(tmp_path, tmp_path / "kept", width=64, mirror=share)[0] for share in (0.0, 1.0))
    assert torch.equal(plain["masks"].flip(-1), mirrored["masks"])
    assert torch.equal(plain["video"].flip(-1), mirrored["video"])
    assert not torch.equal(plain["masks"], mirrored["masks"])


def test_faces_are_looked_for_once(films, tmp_path, finder):
    first = batches(films, tmp_path)[1]
    again = batches(films, tmp_path)[1]
    assert finder.calls == 1
    assert torch.equal(first["video"], again["video"])
    assert {path.suffix for path in films.iterdir()} == {".mp4", ".txt"}


def test_what_cannot_be_used_is_passed_over(tmp_path, finder):
    film(tmp_path / "a.mp4", sound=False)
    film(tmp_path / "b.mp4", count=6)
    film(tmp_path / "c.mp4", nobody=range(8, 12), count=20)
    film(tmp_path / "d.mp4")
    made = batches(tmp_path, tmp_path / "kept", steps=6)
    for step in range(5):
        assert made[step]["video"].shape == (2, 3, 8, 32, 32)
    with pytest.warns(UserWarning, match="of 4 videos were passed over: too short, unreadable, silent"):
        made[5]
    assert {Path(name).name for name in made.skipped} <= {"a.mp4", "b.mp4", "c.mp4"}


def test_nothing_that_can_be_used(tmp_path, finder):
    film(tmp_path / "a.mp4", sound=False)
    with pytest.raises(InputError, match=r"none of the 1 videos of .* can be used; the last"):
        batches(tmp_path, tmp_path / "kept")[0]
    with pytest.raises(InputError, match=r"none of the 1 videos of .* can be used; the last"):
        batches(tmp_path, tmp_path / "kept").__getitem__(19)


def test_a_face_that_is_not_always_there(tmp_path, finder):
    film(tmp_path / "a.mp4", nobody=range(20))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(5):
            shown = batches(tmp_path, tmp_path / "kept")[step]["video"][:, 0].float().mean((-1, -2)) / 4
            assert shown.min() > 21


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mirror": 2}, "mirror is 2; give a share of the clips, 0 to 1"),
        ({"fps": 0}, "fps is 0; give 1 to 240 frames per second"),
        ({"width": 30}, "width is 30; give a multiple of 8"),
    ],
)
def test_wrong_settings(films, tmp_path, settings, said):
    with pytest.raises(InputError, match=said):
        batches(films, tmp_path, **settings)


def test_a_folder_without_films(tmp_path):
    with pytest.raises(InputError, match="holds no videos of people who speak"):
        batches(tmp_path, tmp_path)
