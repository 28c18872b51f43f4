"""Videos as training data: three ways to keep them, one stream of batches; what cannot be used is passed over."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from animagic.errors import InputError
from animagic.media import VideoWriter
from animagic.training.videos import VideoBatches, find_videos

CAPTIONS = {"a": "a red ball rolls", "b": "a blue cat\nsits, still", "c": 'waves, "green"'}
SMALL = {"clips_per_batch": 3, "num_frames": 4, "sample_stride": 2, "height": 16, "width": 16}


def write_video(path: Path, frames: int, shade: int = 0) -> None:
    """Each frame is one grey, shade + 4 times its number, with a bright right third: the middle is what is cut out."""
    clip = np.full((frames, 24, 48, 3), shade, np.uint8) + (4 * np.arange(frames, dtype=np.uint8))[:, None, None, None]
    clip[:, :, 36:] = 250
    with VideoWriter(path, 24) as writer:
        writer.write(clip)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Three videos of 24 frames, their captions beside them."""
    folder = tmp_path_factory.mktemp("videos")
    for i, (name, caption) in enumerate(CAPTIONS.items()):
        write_video(folder / f"{name}.mp4", 24, 20 * i)
        (folder / f"{name}.txt").write_text(caption + "\n", "utf-8")
    return folder


@pytest.fixture(scope="session")
def table(folder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("table") / "webvid.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["page", "name", "videoid"])
        rows.writerows([1, CAPTIONS[name], name] for name in ("c", "a", "b"))
    return path


def add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    shard.addfile(member, io.BytesIO(data))


@pytest.fixture(scope="session")
def shards(folder, tmp_path_factory) -> Path:
    """Two shards: one with .txt captions, one with .json."""
    place = tmp_path_factory.mktemp("shards")
    with tarfile.open(place / "shard-000.tar", "w") as shard:
        for name in ("b", "a"):
            add(shard, f"{name}.txt", CAPTIONS[name].encode())
            add(shard, f"{name}.mp4", (folder / f"{name}.mp4").read_bytes())
    with tarfile.open(place / "shard-001.tar", "w") as shard:
        add(shard, "c.mp4", (folder / "c.mp4").read_bytes())
        add(shard, "c.json", json.dumps({"caption": CAPTIONS["c"], "fps": 24}).encode())
    return place


def batches(source, *, seed=7, steps=20, **settings) -> VideoBatches:
    return VideoBatches(source, seed=seed, steps=steps, **{**SMALL, **settings})


def assert_same(a: dict, b: dict) -> None:
    assert torch.equal(a["video"], b["video"])
    assert a["captions"] == b["captions"]


# The batch


def test_every_source_gives_the_same_batch(folder, table, shards):
    for step in (0, 3):
        expected = batches(folder)[step]
        assert expected["index"] == step
        assert (expected["video"].dtype, tuple(expected["video"].shape)) == (torch.uint8, (3, 3, 4, 16, 16))
        assert set(expected["captions"]) <= set(CAPTIONS.values())
        assert_same(batches(table, folder=folder)[step], expected)
        for pattern in ("shard-{000..001}.tar", "shard-*.tar", "shard-00{0..1}.tar"):
            assert_same(batches(str(shards / pattern))[step], expected)


def test_batches_depend_on_seed_and_step_alone(folder):
    one, other = batches(folder), batches(folder)
    other[5], other[1]
    assert_same(one[3], other[3])
    assert not torch.equal(one[3]["video"], one[4]["video"])
    assert not torch.equal(one[3]["video"], batches(folder, seed=8)[3]["video"])


def test_a_clip_is_the_middle_of_every_second_frame_from_a_random_start(folder):
    shades, captions = [], set()
    for batch in DataLoader(batches(folder, num_frames=11), batch_size=None):
        video = batch["video"].float()
        assert float(video.std(dim=(1, 3, 4)).max()) < 3  # the bright part is cut off
        steps = video.mean(dim=(1, 3, 4)).diff(dim=1)
        torch.testing.assert_close(steps, torch.full_like(steps, 8.0), atol=2.0, rtol=0)
        shades += [round(float(s)) for s in video.mean(dim=(1, 3, 4))[:, 0]]
        captions |= set(batch["captions"])
    assert captions == set(CAPTIONS.values())
    assert min(shades) <= 2  # the first frame of the first ...
    assert max(shades) >= 40 + 4 * 3 - 2  # ... and the last possible start of the last: 21 of 24 frames are needed


def test_single_frames(folder):
    batch = batches(folder, num_frames=1)[0]
    assert tuple(batch["video"].shape) == (3, 3, 1, 16, 16)


def test_processes_of_the_loader_give_the_same(folder):
    source = batches(folder, steps=3)
    for one, other in zip(source, DataLoader(source, batch_size=None, num_workers=2), strict=False):
        assert_same(one, other)


def test_captions_come_from_the_name_where_there_is_no_text(tmp_path):
    (tmp_path / "inside").mkdir()
    write_video(tmp_path / "inside" / "a_red-ball.mp4", 2)
    assert [(v.name, v.caption) for v in find_videos(tmp_path)] == [("inside/a_red-ball.mp4", "a red ball")]


# What cannot be used


@pytest.fixture
def mixed(folder, tmp_path) -> Path:
    """One good video among one too short, one damaged and one empty."""
    (tmp_path / "good.mp4").write_bytes((folder / "b.mp4").read_bytes())
    write_video(tmp_path / "brief.mp4", 6)
    (tmp_path / "cut.mp4").write_bytes((folder / "a.mp4").read_bytes()[:900])
    (tmp_path / "empty.mp4").write_bytes(b"")
    return tmp_path


def test_unusable_videos_are_passed_over_and_counted_at_the_end(mixed):
    source = batches(mixed, steps=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {caption for step in range(3) for caption in source[step]["captions"]} == {"good"}
    with pytest.warns(UserWarning, match=r"3 of 4 videos were passed over.*brief\.mp4"):
        last = source[3]
    assert [Path(name).name for name in source.skipped] == ["brief.mp4", "cut.mp4", "empty.mp4"]
    with pytest.warns(
        UserWarning, match="passed over"
    ):  # a batch is the same, whether or not it is known already what is of no use
        assert_same(batches(mixed, steps=4)[3], last)


def test_what_a_process_of_the_loader_passes_over_is_known_to_all(mixed):
    source = batches(mixed, steps=6)
    for _ in DataLoader(source, batch_size=None, num_workers=2):
        pass
    assert len(source.skipped) == 3


def test_where_nothing_can_be_used_the_first_is_named(mixed):
    with pytest.raises(InputError, match=r"none of the 4 videos.*brief\.mp4 has 6 frames, but 61 are needed"):
        batches(mixed, num_frames=31)[0]


def test_a_damaged_video_of_a_shard_is_named_by_its_shard(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as shard:
        add(shard, "k.mp4", b"no video")
        add(shard, "k.txt", b"words")
    with pytest.raises(InputError, match=r"none of the 1 videos.*x\.tar:k\.mp4"):
        batches(tmp_path / "x.tar")[0]


def test_a_table_whose_videos_are_elsewhere(table):
    with pytest.raises(InputError, match=r"none of the 3 videos.*a\.mp4 does not exist"):
        batches(table)[0]


def test_wrong_sources(tmp_path, table, folder):
    (tmp_path / "wrong.csv").write_text("videoid,caption\n1,words\n")
    (tmp_path / "no.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "no.tar").write_text("no tar")
    with tarfile.open(tmp_path / "silent.tar", "w") as shard:
        add(shard, "k.mp4", b"video")
    with tarfile.open(tmp_path / "odd.tar", "w") as shard:
        add(shard, "k.mp4", b"video")
        add(shard, "k.json", b'{"title": "words"}')
    (tmp_path / "nothing").mkdir()
    for source, said in {
        "wrong.csv": "lacks the column name",
        "no.csv": "cannot be read",
        "absent.csv": "cannot be read",
        "no.tar": "shard .* cannot be read",
        "absent-*.tar": "no shard",
        "silent.tar": "no caption for k",
        "odd.tar": "k.json has no caption",
        "nothing": "holds no videos",
        "absent": "no source of videos",
    }.items():
        with pytest.raises(InputError, match=said):
            find_videos(tmp_path / source)
    with pytest.raises(InputError, match=r"only with a \.csv"):
        find_videos(folder, folder)


@pytest.mark.parametrize("name", ["steps", "clips_per_batch", "num_frames", "sample_stride", "height", "width"])
def test_wrong_numbers(folder, name):
    with pytest.raises(InputError, match=f"{name} must be at least 1, not 0"):
        VideoBatches(folder, **{"seed": 0, "steps": 1, **SMALL, name: 0})
