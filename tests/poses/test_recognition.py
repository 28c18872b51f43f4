"""Drawn poses are recognised, behind a codec as well; nothing else is."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from animagic.media import read_image, read_video
from animagic.poses import PART_COLOURS, Poses, draw_parts, draw_skeleton, is_pose_video, part_map


def through_h264(frames: np.ndarray, crf: int) -> np.ndarray:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf)})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture
def turning(stand) -> Poses:
    return stand(np.linspace(0, 5, 6))


@pytest.mark.parametrize("crf", [16, 33])
@pytest.mark.parametrize("size", [256, 512])
def test_what_we_draw(turning, size, crf):
    assert is_pose_video(through_h264(draw_parts(turning, size, size), crf)) == "parts"
    assert is_pose_video(through_h264(draw_skeleton(turning, size, size), crf)) == "skeleton"


def test_parts_in_other_colours_on_black(turning):
    import colorsys

    colours = [(0, 0, 0), *((255 * np.array(colorsys.hsv_to_rgb(i / 24, 1, 0.9))).astype(int) for i in range(24))]
    frames = np.array(colours, np.uint8)[part_map(turning, 256, 256)]
    assert is_pose_video(through_h264(frames, 23)) == "parts"


def test_frames_without_anybody_do_not_count(turning):
    drawn = draw_parts(turning, 128, 128)
    empty = np.tile(PART_COLOURS[0], (2, 128, 128, 1)).astype(np.uint8)
    assert is_pose_video([*empty, *drawn]) == "parts"
    assert is_pose_video(empty) is None


@pytest.mark.parametrize("crf", [16, 33])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dance_anny_parts.mp4", "parts"), ("dance_anny_skel.mp4", "skeleton"), ("dance_anny_rgb.mp4", None),
        ("talking_anny_256_25fps.mp4", None), ("video_bigbuckbunny_448.mp4", None),
    ],
)  # fmt: skip
def test_the_samples(samples, name, kind, crf):
    assert is_pose_video(through_h264(read_video(samples / name).frames[::12], crf)) == kind


def test_a_person_cut_out_on_the_background_of_a_pose(samples):
    frames = read_video(samples / "dance_anny_rgb.mp4").frames[::12]
    outside = read_video(samples / "dance_anny_parts.mp4").frames[::12].max(-1, keepdims=True) < 60
    for background in ((0, 0, 0), PART_COLOURS[0]):
        assert is_pose_video(np.where(outside, np.array(background, np.uint8), frames)) is None


def test_dark_footage(samples):
    frames = read_video(samples / "video_bigbuckbunny_448.mp4").frames[::20]
    for light in (0.3, 0.15, 0.05, 0):
        assert is_pose_video((frames * light).astype(np.uint8)) is None


def test_flat_shapes_on_black():
    """A title or a game: few colours."""
    frames = np.zeros((3, 128, 128, 3), np.uint8)
    frames[:, 20:60, 20:60], frames[:, 70:100, 50:120], frames[:, 10:30, 90:110] = (
        (255, 0, 0),
        (255, 255, 255),
        (0, 0, 255),
    )
    assert is_pose_video(frames) is None


def test_a_portrait(samples):
    assert is_pose_video([read_image(samples / "portrait_astronaut_256.png")]) is None


def test_no_frames():
    assert is_pose_video([]) is None
