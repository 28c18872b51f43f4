"""The stream that a worker writes, and the folder that it lies in."""

import json

import av
import numpy as np
import pytest

from animagic.errors import InputError
from animagic.jobs.folder import Folder
from animagic.jobs.streams import StreamWriter
from animagic.media import Sound, VideoWriter, read_sound

HUM = Sound((0.4 * np.sin(np.arange(48_000) * 0.06)).astype(np.float32), 16_000)


@pytest.fixture
def stream(make_moving_clip):
    """Writes frames of a clip into a folder's stream, some at a time; the chunks that it told of."""

    def stream(folder: Folder, counts, sound=None, finish=True, clip=make_moving_clip(64)):  # noqa: B008
        told, start = [], 0
        writer = StreamWriter(folder, 8, 32, 48, sound, 0.0, told.append)
        for count in counts:
            writer.write(clip[start : start + count])
            start += count
        if finish:
            writer.finish()
        writer.close()
        return told

    return stream


@pytest.mark.parametrize("sound", [None, HUM], ids=["silent", "sound"])
def test_one_that_goes_on_writes_the_same_bytes(tmp_path, stream, sound):
    whole, cut = Folder(tmp_path / "whole"), Folder(tmp_path / "cut")
    for folder in (whole, cut):
        folder.root.mkdir()
    told = stream(whole, [8, 8, 8], sound)
    assert told == whole.chunks
    stream(cut, [8, 8], sound, finish=False)
    with cut.stream.open("ab") as file:
        file.write(b"half a chunk")
    with cut.table.open("a") as table:
        table.write(json.dumps({"start": 16})[:-3])
    assert stream(cut, [8, 8, 8], sound) == told
    assert cut.stream.read_bytes() == whole.stream.read_bytes()
    assert cut.table.read_text() == whole.table.read_text()


def test_what_is_made_otherwise_takes_the_place_of_what_was(tmp_path, stream, make_moving_clip):
    folder = Folder(tmp_path)
    stream(folder, [8, 8, 8])
    told = stream(folder, [8, 8], clip=255 - make_moving_clip(16))
    assert folder.chunks == told
    assert folder.stream.stat().st_size == told[-1].offset + told[-1].size


def test_chunks_are_a_second_at_most_and_sound_is_in_time(tmp_path, stream):
    folder = Folder(tmp_path)
    told = stream(folder, [20, 3, 1], HUM)
    assert [(chunk.start, chunk.frames) for chunk in told[:5]] == [(0, 8), (8, 8), (16, 4), (20, 3), (23, 1)]
    assert folder.head.mime_type.endswith('mp4a.40.2"')
    with av.open(folder.stream) as film:
        assert len(list(film.decode(video=0))) == 24
    heard = read_sound(folder.stream).samples[2000:46_000]
    assert np.abs(heard - HUM.samples[2000:46_000]).mean() < 0.05


def test_sound_of_a_file_ends_in_silence(tmp_path, stream, make_moving_clip):
    with VideoWriter(tmp_path / "film.mp4", 8, sound=Sound(HUM.samples[:16_000], 16_000)) as writer:
        writer.write(make_moving_clip(8))
    folder = Folder(tmp_path)
    stream(folder, [16], str(tmp_path / "film.mp4"))
    heard = read_sound(folder.stream).samples
    assert np.abs(heard[4000:12_000]).max() > 0.3
    assert np.abs(heard[20_000:30_000]).max() < 0.01


def test_a_folder_draws_only_what_is_finished_and_keeps_what_matters(tmp_path):
    folder = Folder(tmp_path)
    assert (folder.head, folder.chunks) == (None, [])
    with pytest.raises(InputError, match="not finished"):
        folder.thumbnail()
    for name in ("request.json", ".video.part-12.mp4", "prompts.json.part", "preview.jpg", "voice.f32"):
        (tmp_path / name).write_text("12")
    (tmp_path / "video.mp4.resume").mkdir()
    assert folder.size() >= 10
    folder.tidy()
    assert [path.name for path in tmp_path.iterdir()] == ["request.json"]
