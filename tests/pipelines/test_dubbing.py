"""A dubbed video keeps every pixel outside of the mouths, and no patch is seen where they were put in."""

from __future__ import annotations

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.media import VideoWriter, read_video
from animagic.pipelines.dubbing import Dub
from animagic.pipelines.regions import FaceRegion
from animagic.pipelines.speakers import Speaker

SIZE = (128, 192)
SOUND = np.zeros(1, np.float32)


def scene(frames: int) -> np.ndarray:
    """uint8 (frames, 128, 192, 3): smooth colours that move."""
    time, y, x = (
        np.arange(frames)[:, None, None] * 0.05,
        np.linspace(0, 3, SIZE[0])[:, None],
        np.linspace(0, 4, SIZE[1]),
    )
    waves = [np.sin(x + y + time), np.sin(x - y - time), np.cos(x * y / 4 + time)]
    return ((np.stack(np.broadcast_arrays(*waves), -1) + 1) * 60 + 60).astype(np.uint8)


@pytest.fixture
def dub(tmp_path, track):
    """Of a video in which faces of 40x50 pixels have their corners at the places, a tuple of places for each."""

    def dub(*people: list[tuple[float, float]], target=(128, 128)) -> tuple[Dub, np.ndarray]:
        path = tmp_path / "video.mp4"
        with VideoWriter(path, 25) as writer:
            writer.write(scene(len(people[0])))
        speakers = [Speaker(FaceRegion(track(*places)), SOUND) for places in people]
        return Dub(path, speakers, 25.0, *target), read_video(path).frames

    return dub


def mouth_of(dub: Dub, frames: range) -> np.ndarray:
    """float32 (F, 128, 192): of the whole picture."""
    return np.max([one.region.mouth(frames, *SIZE) for one in dub._given], 0)


def test_what_the_model_gives_back_unchanged_leaves_the_video_unchanged(dub):
    made, video = dub([(70 + i, 40) for i in range(9)])
    back = made.put_back(made.shown(range(9)), 0)
    mouth = mouth_of(made, range(9))
    assert (back == video)[mouth == 0].all()
    assert np.abs(back.astype(int) - video)[mouth > 0].max() <= 2


def test_only_mouths_change_and_their_edges_are_soft(dub):
    made, video = dub([(70, 40)] * 5)
    back = made.put_back(np.full((5, 128, 128, 3), (255, 0, 0), np.uint8), 0)
    mouth = mouth_of(made, range(5))
    assert (back == video)[mouth == 0].all()
    assert (back[mouth == 1] == (255, 0, 0)).all()
    changed = (back.astype(int) - video)[2, ..., 0]
    steps = max(np.abs(np.diff(changed, axis=axis)).max() for axis in (0, 1))
    assert steps < 0.4 * changed.max()  # over 5 pixels, a tenth of the face
    assert changed.max() > 100


def test_a_picture_in_another_tone_takes_on_the_colours_around(dub):
    made, video = dub([(70, 40)] * 3)
    toned = (made.shown(range(3)) * np.array([0.9, 1.0, 0.85]) + np.array([20, -8, 15])).astype(np.uint8)
    back, mouth = made.put_back(toned, 0), mouth_of(made, range(3))
    assert np.abs(back.astype(int) - video)[mouth > 0.5].mean() < 2
    plain = made._framing(0).unscaled(toned[0])
    rows, columns = made._framing(0).part
    assert np.abs(plain.astype(int) - video[0, rows, columns])[mouth[0, rows, columns] > 0.5].mean() > 8


def test_pieces_give_the_same_as_the_whole(dub):
    made, _ = dub([(70 + i, 40) for i in range(9)])
    frames = made.shown(range(9))[..., ::-1].copy()
    whole = made.put_back(frames, 0)
    pieces = np.concatenate([made.put_back(frames[:1], 0), made.put_back(frames[1:5], 1), made.put_back(frames[5:], 5)])
    assert (pieces == whole).all()


def test_where_nobody_is_seen_the_video_stays(dub):
    away = (np.nan, np.nan)
    made, video = dub([(70, 40)] * 5 + [away] * 5 + [(70, 40)] * 5)
    assert made.empty == [(0.2, 0.4)]
    back = made.put_back(np.full((15, 128, 128, 3), (255, 0, 0), np.uint8), 0)
    same = (back == video).all((1, 2, 3))
    assert same.tolist() == [False] * 5 + [True] * 5 + [False] * 5
    red = back[:, 80, 90, 0].astype(int) - video[:, 80, 90, 0]  # in the middle of the mouth
    shares = red / (255 - video[:, 80, 90, 0])
    fade = [1, 1, 0.75, 0.5, 0.25]
    assert shares == pytest.approx([*fade, *[0] * 5, *fade[::-1]], abs=0.02)


def test_nobody_at_all_is_refused(dub):
    with pytest.raises(InputError, match=r"video.mp4 shows nobody in its 0.2 seconds"):
        dub([(np.nan, np.nan)] * 5)


def test_the_box_stands_still_while_the_face_stays_near(dub):
    made, _ = dub([(70 + i, 40) for i in range(9)])
    assert len(made.framings) == 1
    left, top, right, bottom = made.framings[0].box
    assert left <= 60
    assert right >= 130
    assert (right - left, bottom - top) == pytest.approx((110, 110), abs=2)  # the face is 50 high


def test_the_box_goes_along_with_a_face_that_goes_far_and_keeps_its_size(dub):
    made, video = dub([(5 + 2.8 * i, 40) for i in range(51)], target=(64, 64))
    assert len(made.framings) == 51
    boxes = np.array([framing.box for framing in made.framings])
    assert np.ptp(boxes[:, 2] - boxes[:, 0]) == 0
    assert np.abs(np.diff(boxes[:, 0])).max() <= 4
    middles = (boxes[:, 0] + boxes[:, 2]) / 2
    assert middles[-1] - middles[0] > 40
    for number in (0, 25, 50):  # the face lies in it whole
        left, _, right, _ = made._given[0].region.boxes(range(number, number + 1))[0]
        box = made.framings[number].box
        assert box[0] <= left
        assert box[2] >= right
    back = made.put_back(made.shown(range(51)), 0)
    assert (back == video)[mouth_of(made, range(51)) == 0].all()
    assert made.speakers[0].masks(range(51), 64, 64)[:, 20:40].max((1, 2)).min() == 1


def test_several_are_dubbed_at_once(dub):
    made, video = dub([(10, 40)] * 3, [(130, 40)] * 3)
    assert made.framings[0].part == (slice(0, 128), slice(0, 192))
    back = made.put_back(np.full((3, 128, 128, 3), (255, 0, 0), np.uint8), 0)
    changed = (back != video).any(-1)[1]
    assert changed[:, :90].any()
    assert changed[:, 100:].any()
    assert not changed[:, 60:120].any()


def test_people_may_be_dubbed_one_by_one(dub, tmp_path):
    both, _ = dub([(10, 40)] * 3, [(130, 40)] * 3)
    first, second = (Dub(tmp_path / "video.mp4", [speaker], 25.0, 128, 128) for speaker in both._given)
    red = np.full((3, 128, 128, 3), (255, 0, 0), np.uint8)
    one = first.put_back(red, 0)
    kept = one.copy()
    assert (second.put_back(red, 0, one) == both.put_back(red, 0)).all()
    assert (one == kept).all()
    assert first.framings[0].box[2] < 120  # of 192


def test_cells_without_a_mouth_are_known(dub):
    made, _ = dub([(70 + 2 * i, 40) for i in range(9)])
    known = made.known(range(3))
    assert known.shape == (3, 16, 16)
    assert set(np.unique(known)) == {0.0, 1.0}
    assert 0.7 < known.mean() < 0.95
    mouths = made.speakers[0].region.mouth(range(9), 128, 128)
    assert not (mouths[5:9] * known[2].repeat(8, 0).repeat(8, 1) >= 0.01).any()
    assert (known[1] != known[2]).any()
