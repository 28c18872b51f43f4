"""Videos of people as training data: photo, clip and poses out of films and numbered pictures; poses found once."""

from __future__ import annotations

import os
import shutil
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from animagic.errors import InputError
from animagic.media import VideoWriter, write_image
from animagic.poses import LANDMARKS, PART_COLOURS, PARTS, Poses, to_json
from animagic.training import person_videos
from animagic.training.person_videos import PersonVideos, find_person_videos, mirrored_poses

HIGH, WIDE = 40, 64
SMALL = {"num_frames": 4, "height": 32, "width": 32, "batch_size": 2, "mirror": 0.0}


def body(x: float) -> np.ndarray:
    """A person who stands upright, seen from the front, (33, 3): their left is on the right."""
    places = {
        "shoulder": (3, 12),
        "elbow": (5, 17),
        "wrist": (6, 21),
        "hip": (2, 22),
        "knee": (2, 28),
        "ankle": (2, 34),
    }
    points = np.zeros((33, 3), np.float32)
    for i, name in enumerate(LANDMARKS):
        side = 1 if "left" in name else -1 if "right" in name else 0
        across, down = places.get(name.split("_")[-1], (6, 22) if "hand" in name else (1, 8))
        points[i] = (x + side * across, down, 0)
    return points


def found(frames, fps, on_frame=None) -> Poses:
    """In place of the network: a person stands where a frame's reddest column is; nobody in a frame without red."""
    columns = [int(f[..., 0].mean(0).argmax()) if f[..., 0].max() > 200 else None for f in frames]
    points = np.stack([body(0 if x is None else x) for x in columns])[:, None]
    seen = np.array([x is not None for x in columns], np.float32)
    return Poses(points, np.broadcast_to(seen[:, None, None], points.shape[:3]).copy(), HIGH, WIDE, fps)


class Finder:
    """Counts how often poses are looked for."""

    def __init__(self):
        self.calls = 0

    def __call__(self, frames, fps, on_frame=None) -> Poses:
        self.calls += 1
        return found(frames, fps)


@pytest.fixture
def finder(monkeypatch) -> Finder:
    made = Finder()
    monkeypatch.setattr(person_videos, "extract_poses", made)
    return made


def clip(count: int, shade: int = 0, nobody: range = range(0)) -> np.ndarray:
    """A red bar that goes right by a pixel in a frame; the frame's number is its blue, times 4."""
    frames = np.full((count, HIGH, WIDE, 3), shade, np.uint8)
    frames[..., 2] = (4 * np.arange(count) % 256)[:, None, None]
    for i in range(count):
        if i not in nobody:
            frames[i, 8:36, 24 + i % 20 : 27 + i % 20] = (255, 0, 4 * i % 256)
    return frames


def write(path: Path, frames: np.ndarray, fps: float = 24) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, fps) as writer:
        writer.write(frames)


def write_numbered(folder: Path, frames: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames, 1):
        write_image(folder / f"{i:04d}.png", frame)


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write(folder / "a.mp4", clip(20))
    write(folder / "deep" / "b.mp4", clip(16, 60))
    return folder


@pytest.fixture(scope="module")
def tiktok(tmp_path_factory) -> Path:
    """One video of the data set's layout, with body parts: the torso left, a left hand right of it."""
    folder = tmp_path_factory.mktemp("tiktok")
    parts = np.zeros((10, HIGH, WIDE), np.uint8)
    parts[:, 10:30, 20:30], parts[:, 10:20, 40:46] = PARTS.index("torso_front"), PARTS.index("left_hand")
    write_numbered(folder / "00001" / "images", clip(10))
    write_numbered(folder / "00001" / "masks", np.zeros((10, HIGH, WIDE, 3), np.uint8))
    write_numbered(folder / "00001" / "densepose", PART_COLOURS[parts])
    return folder


def batches(source, folder, **settings) -> PersonVideos:
    return PersonVideos(source, 7, settings.pop("steps", 20), folder=folder, **{**SMALL, **settings})


def numbers(pictures: torch.Tensor) -> list[int]:
    """Of each picture, (3, ..., height, width), the number of the frame that it shows."""
    blue = pictures[2].float().flatten(-2).median(-1).values
    return (blue / 4).round().int().flatten().tolist()


def test_items_are_those_of_the_studio(films, tmp_path, finder):
    from animagic.training.people import PeopleBatches

    ours = batches(films, tmp_path)[3]
    theirs = PeopleBatches(0, 4, batch_size=2, num_frames=4, height=32, width=32)[3]
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if name != "index":
            assert ours[name].shape == value.shape
            assert ours[name].dtype == value.dtype
    assert ours["index"] == 3


def test_a_batch_depends_on_seed_and_item_alone(films, tmp_path, finder):
    first = batches(films, tmp_path / "a", mirror=0.5, steps=4)
    again = batches(films, tmp_path / "b", mirror=0.5, steps=99)
    loaded = list(DataLoader(first, batch_size=None, num_workers=0))
    for item in (3, 0, 2):
        assert all(torch.equal(again[item][name], loaded[item][name]) for name in ("photo", "video", "poses"))
    assert not torch.equal(first[0]["video"], first[1]["video"])


def test_the_photo_is_another_frame_of_the_same_video(films, tmp_path, finder):
    data = batches(films, tmp_path, sample_stride=2)
    for item in range(6):
        batch = data[item]
        for photo, video in zip(batch["photo"], batch["video"], strict=True):
            shown = numbers(video)
            steps = np.diff(shown)
            assert np.abs(steps - 2).max() <= 1  # a codec is not exact
            assert min(abs(numbers(photo)[0] - n) for n in shown) >= 1


def test_frames_per_second(tiktok, tmp_path):
    shown = numbers(batches(tiktok, tmp_path, fps=10, num_frames=3)[0]["video"][0])
    assert np.diff(shown).tolist() == [3, 3]  # of 30


def test_poses_lie_where_the_person_is(films, tmp_path, finder):
    for item in range(3):
        batch = batches(films, tmp_path, height=64, width=64)[item]
        for video, poses in zip(batch["video"], batch["poses"], strict=True):
            for t in range(4):
                red = (video[0, t].int() - video[1, t].int() > 90).float().mean(0)
                body = (poses[:, t].permute(1, 2, 0) != torch.from_numpy(PART_COLOURS[0])).any(-1).float().mean(0)
                centres = [float((line * torch.arange(64)).sum() / line.sum()) for line in (red, body)]
                assert centres[0] == pytest.approx(centres[1], abs=4)


def test_centre_crop(films, tmp_path, finder):
    around, middle = (batches(films, tmp_path, crop=crop)[0]["video"] for crop in ("person", "centre"))
    assert not torch.equal(around, middle)


def test_poses_are_found_once_and_kept(films, tmp_path, finder):
    data = batches(films, tmp_path / "poses")
    for item in range(8):
        data[item]
    person_videos._kept.cache_clear()
    batches(films, tmp_path / "poses")[0]
    assert finder.calls == 2
    assert len(list((tmp_path / "poses").iterdir())) == 2  # no lock, nothing half-written
    assert sorted(path.name for path in films.rglob("*") if path.is_file()) == ["a.mp4", "b.mp4"]


def test_a_changed_video_is_looked_at_again(films, tmp_path, finder):
    shutil.copytree(films, tmp_path / "films")
    data = batches(tmp_path / "films" / "a.mp4", tmp_path / "poses")
    data[0]
    os.utime(tmp_path / "films" / "a.mp4", (1, 1))
    data[1]
    assert finder.calls == 2


def test_killed_while_looking_nothing_half_done_stays(films, tmp_path, finder, monkeypatch):
    def killed(frames, fps):
        next(iter(frames))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(person_videos, "extract_poses", killed)
        with pytest.raises(KeyboardInterrupt):
            batches(films, tmp_path / "poses")[0]
    assert not list((tmp_path / "poses").glob("*.json"))
    batches(films, tmp_path / "poses")[0]


def test_of_several_at_once_one_looks(films, tmp_path, finder):
    video = find_person_videos(films / "a.mp4")[0]
    threads = [threading.Thread(target=person_videos.poses_of, args=(video, tmp_path / "poses")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert finder.calls == 1


def test_pictures_of_body_parts_are_the_poses(tiktok, tmp_path, finder):
    batch = batches(tiktok, tmp_path / "poses", crop="centre", height=HIGH, width=WIDE, batch_size=1)[0]
    assert finder.calls == 0
    assert not (tmp_path / "poses").exists()
    part = batch["poses"][0, :, 0].permute(1, 2, 0).numpy()
    assert (part[15, 25] == PART_COLOURS[PARTS.index("torso_front")]).all()
    assert (part[15, 43] == PART_COLOURS[PARTS.index("left_hand")]).all()
    assert (part[2, 2] == PART_COLOURS[0]).all()


def test_mirrored_a_left_hand_is_a_right_one(tiktok, tmp_path):
    settings = {"crop": "centre", "height": HIGH, "width": WIDE, "batch_size": 1}
    plain, mirrored = (batches(tiktok, tmp_path, mirror=share, **settings)[0] for share in (0.0, 1.0))
    assert torch.equal(plain["video"].flip(-1), mirrored["video"])
    assert torch.equal(plain["photo"].flip(-1), mirrored["photo"])
    part = mirrored["poses"][0, :, 0].permute(1, 2, 0).numpy()
    assert (part[15, WIDE - 1 - 43] == PART_COLOURS[PARTS.index("right_hand")]).all()
    assert (part[15, WIDE - 1 - 25] == PART_COLOURS[PARTS.index("torso_front")]).all()


def test_mirrored_poses():
    poses = Poses(body(20)[None, None], np.linspace(0, 1, 33, dtype=np.float32)[None, None], HIGH, WIDE, 24.0)
    mirrored = mirrored_poses(poses)
    left, right = LANDMARKS.index("left_wrist"), LANDMARKS.index("right_wrist")
    assert mirrored.points[0, 0, right].tolist() == [WIDE - 26, 21, 0]  # the left one was at 26
    assert mirrored.confidence[0, 0, right] == poses.confidence[0, 0, left]
    twice = mirrored_poses(mirrored)
    assert np.array_equal(twice.points, poses.points)
    assert np.array_equal(twice.confidence, poses.confidence)


@pytest.mark.parametrize("pose", ["parts", "skeleton"])
def test_parts_in_other_colours_and_skeletons_are_found_anew(tiktok, tmp_path, finder, pose):
    shutil.copytree(tiktok, tmp_path / "tiktok")
    if pose == "parts":
        for path in (tmp_path / "tiktok" / "00001" / "densepose").iterdir():
            write_image(path, np.full((HIGH, WIDE, 3), (20, 80, 194), np.uint8))
    batch = batches(tmp_path / "tiktok", tmp_path / "poses", pose=pose)[0]
    assert finder.calls == 1
    background = [0, 0, 0] if pose == "skeleton" else PART_COLOURS[0].tolist()
    assert batch["poses"][0, :, 0, 0, 0].tolist() == background


def test_frames_without_their_parts_are_left_out(tiktok, tmp_path):
    shutil.copytree(tiktok, tmp_path / "tiktok")
    (tmp_path / "tiktok" / "00001" / "densepose" / "0003.png").unlink()
    (video,) = find_person_videos(tmp_path / "tiktok")
    assert [path.name for path in video.pictures] == [path.name for path in video.densepose]
    assert len(video.pictures) == 9


def test_what_is_found(films, tiktok, tmp_path):
    assert [video.name for video in find_person_videos(films)] == ["a.mp4", "deep/b.mp4"]
    assert [video.name for video in find_person_videos(tiktok)] == ["00001/images"]
    write_numbered(tmp_path / "other" / "walk", clip(3))
    (tmp_path / "other" / "notes.txt").touch()
    (video,) = find_person_videos(tmp_path / "other")
    assert (video.name, len(video.pictures), video.densepose) == ("walk", 3, ())


def test_only_where_the_person_is_seen(tmp_path, finder):
    write(tmp_path / "films" / "a.mp4", clip(30, nobody=range(20)))
    data = batches(tmp_path / "films", tmp_path / "poses")
    for item in range(5):
        assert min(numbers(data[item]["video"][0])) >= 19


def test_what_is_of_no_use_is_passed_over_and_reported(tmp_path, finder):
    films = tmp_path / "films"
    write(films / "good.mp4", clip(20))
    write(films / "short.mp4", clip(3))
    write(films / "empty.mp4", clip(20, nobody=range(20)))
    (films / "torn.mp4").write_bytes(b"no video")
    data = batches(films, tmp_path / "poses", steps=12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        items = [data[item] for item in range(11)]
    with pytest.warns(UserWarning, match="3 of 4 videos were passed over: too short, unreadable, or without a person"):
        data[11]
    assert [Path(name).name for name in data.skipped] == ["empty.mp4", "short.mp4", "torn.mp4"]
    assert all(float(item["video"][:, 0].float().std()) > 5 for item in items)


@pytest.mark.parametrize(
    ("frames", "said"),
    [(clip(3), "has 3 frames, but 4 are needed"), (clip(8, nobody=range(8)), "nobody is seen in")],
    ids=["short", "empty"],
)
def test_no_video_is_of_use(tmp_path, finder, frames, said):
    write(tmp_path / "films" / "a.mp4", frames)
    with pytest.raises(InputError, match=f"none of the 1 videos of .* can be used; the first: .*{said}"):
        batches(tmp_path / "films", tmp_path / "poses")[0]


def test_take(films, tmp_path, finder):
    batch = batches(films, tmp_path, num_frames=8, take=2)[0]
    assert batch["video"].shape[2] == batch["poses"].shape[2] == 2
    shown = numbers(batch["video"][0])
    assert shown == sorted(shown)


def test_damaged_poses_are_named(films, tmp_path, finder):
    video = find_person_videos(films / "a.mp4")[0]
    (tmp_path / f"a-{video.key()}.json").write_text("{")
    with pytest.raises(InputError, match=r"a-.*\.json is no JSON"):
        batches(films / "a.mp4", tmp_path)[0]


def test_only_the_largest_people_are_drawn(films, tmp_path):
    one = found(clip(20), 24.0)
    two = np.concatenate([one.points, one.points + np.array([14, 0, 0], np.float32)], 1)
    video = find_person_videos(films / "a.mp4")[0]
    text = to_json(Poses(two, np.concatenate([one.confidence] * 2, 1), HIGH, WIDE, 24.0))
    (tmp_path / f"a-{video.key()}.json").write_text(text)
    whole = {"crop": "centre", "height": HIGH, "width": WIDE}
    drawn = [batches(films / "a.mp4", tmp_path, people=n, **whole)[0]["poses"] for n in (1, 2)]
    background = torch.from_numpy(PART_COLOURS[0])[:, None, None, None]
    shares = [(poses != background).any(1).float().mean() for poses in drawn]
    assert shares[1] > 1.3 * shares[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pose": "lines"}, "pose is 'lines'; choose parts or skeleton"),
        ({"crop": "left"}, "crop is 'left'; choose person or centre"),
        ({"num_frames": 0}, "num_frames must be at least 1, not 0"),
        ({"take": 9}, "take is 9; clips have 4 frames"),
        ({"fps": 0}, "fps is 0; give frames per second"),
        ({"mirror": 2}, "mirror is 2; give a share"),
    ],
)
def test_wrong_settings(films, tmp_path, settings, said):
    with pytest.raises(InputError, match=said):
        batches(films, tmp_path, **settings)


def test_wrong_sources(tmp_path):
    with pytest.raises(InputError, match="nowhere is no source of videos of people; give a folder"):
        batches(tmp_path / "nowhere", tmp_path)
    with pytest.raises(InputError, match="holds no videos of people; give video files"):
        batches(tmp_path, tmp_path / "poses")


def test_a_folder_that_cannot_be_made(films, tmp_path, finder):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"poses cannot be kept in .*file/poses .*; name another folder"):
        batches(films, tmp_path / "file" / "poses")[0]
