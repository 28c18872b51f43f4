"""Masks lie where the face is, in every size and as a model sees it."""

from __future__ import annotations

import numpy as np
import pytest

from animagic.faces import face_in
from animagic.media import VideoWriter, write_image
from animagic.media.framing import Framing
from animagic.pipelines.regions import FaceRegion, ForwardFrames, MaskRegion


def middle(mask: np.ndarray) -> tuple[float, float]:
    """x and y of the middle of a mask, as shares of its sides."""
    y, x = np.indices(mask.shape) + 0.5
    return float((x * mask).sum() / mask.sum() / mask.shape[1]), float((y * mask).sum() / mask.sum() / mask.shape[0])


def test_a_still_face_is_where_its_box_is_and_its_mouth_below_the_middle():
    region = FaceRegion.still(
        face_in(
            60,
            20,
            40,
            60,
        ),
        100,
        200,
    )
    for height, width in ((100, 200), (50, 50)):
        face, mouth = (draw(range(3), height, width) for draw in (region.face, region.mouth))
        assert face.shape == (3, height, width)
        assert (face[0] == face[2]).all()
        assert middle(face[0]) == pytest.approx((0.4, 0.5), abs=0.02)
        assert middle(mouth[0])[1] > 0.6
        assert (mouth <= face + 0.5).all()
    assert region.boxes(range(1))[0] == pytest.approx([60, 20, 100, 80], abs=0.01)


def test_a_face_that_moves_takes_its_mask_with_it_and_one_out_of_sight_has_none(track):
    region = FaceRegion(track((20, 30), (np.nan, np.nan), (100, 30)))
    masks = region.face(range(5), 128, 192)
    assert [round(middle(masks[i])[0] * 192) for i in (0, 2, 4)] == pytest.approx([40, 120, 120], abs=2)
    assert not masks[1].any()
    assert region.seen(range(4)).tolist() == [True, False, True, True]
    assert np.isnan(region.boxes(range(2))).tolist() == [[False] * 4, [True] * 4]


def test_a_painted_mask_may_move(tmp_path):
    frames = np.zeros((6, 64, 64, 3), np.uint8)
    for i in range(6):
        frames[i, 16:48, 4 + 8 * i : 20 + 8 * i] = 255
    with VideoWriter(tmp_path / "mask.mp4", 25) as writer:
        writer.write(frames)
    region = MaskRegion(ForwardFrames(tmp_path / "mask.mp4", 25.0))
    masks = region.face(range(8), 32, 32)
    assert masks.dtype == np.float32
    assert [middle(mask)[0] * 64 for mask in masks] == pytest.approx([12, 20, 28, 36, 44, 52, 52, 52], abs=0.6)
    assert (region.face(range(1, 2), 32, 32) == masks[1]).all()  # back again
    assert region.boxes(range(2, 3))[0] == pytest.approx([20, 16, 36, 48], abs=1)


def test_masks_are_means_over_what_becomes_one_pixel(tmp_path):
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[:32, :20] = 255
    write_image(tmp_path / "mask.png", mask)
    cells = MaskRegion(ForwardFrames(tmp_path / "mask.png", 25.0)).face(range(1), 8, 8)[0]
    assert cells.mean() == pytest.approx((mask > 0).mean(), abs=0.01)
    assert (cells[0, 0], cells[0, 7]) == (1, 0)


@pytest.mark.parametrize("kind", ["face", "painted"])
def test_a_model_sees_the_mask_where_it_sees_the_face(tmp_path, kind):
    region = FaceRegion.still(face_in(100, 40, 40, 50), 128, 192)
    if kind == "painted":
        painted = (region.face(range(1), 128, 192)[0] * 255).astype(np.uint8)
        write_image(tmp_path / "mask.png", np.stack([painted] * 3, -1))
        region = MaskRegion(ForwardFrames(tmp_path / "mask.png", 25.0))
    framings = [Framing((128, 192), (x, 20, x + 96, 116), (64, 64)) for x in (50, 90)]
    masks = region.framed(framings).face(range(3), 64, 64)
    scale = 1 / 96
    places = [((120 - x) * scale, 45 * scale) for x in (50, 90, 90)]
    assert [middle(mask) for mask in masks] == [pytest.approx(place, abs=0.02) for place in places]


def test_frames_are_read_on_and_the_last_one_stays(tmp_path, monkeypatch):
    from animagic.pipelines import regions

    frames = np.arange(6, dtype=np.uint8)[:, None, None, None] * 40 + np.zeros((1, 32, 32, 3), np.uint8)
    opened = []
    monkeypatch.setattr(regions, "iter_video", lambda path, fps: opened.append(path) or iter(frames))
    video = ForwardFrames("a.mp4", 25.0)
    assert [int(frame[0, 0, 0]) // 40 for frame in video[range(3)]] == [0, 1, 2]
    assert [int(frame[0, 0, 0]) // 40 for frame in video[range(2, 9)]] == [2, 3, 4, 5, 5, 5, 5]
    assert len(opened) == 1
    assert int(video[range(1, 2)][0, 0, 0, 0]) == 40
    assert len(opened) == 2
