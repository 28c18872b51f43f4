"""The networks find what a sample is known to show; people keep their places."""

from __future__ import annotations

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.media import read_image, read_video
from animagic.poses import LANDMARKS, extract_poses, part_map

INDEX = {name: i for i, name in enumerate(LANDMARKS)}
# The colours of limbs in dance_anny_skel.mp4, from the body outwards.
LIMBS = {
    ("right_hip", "right_knee", "right_ankle"): ((0, 255, 120), (165, 0, 255)),
    ("left_hip", "left_knee", "left_ankle"): ((82, 255, 0), (255, 0, 205)),
    ("right_shoulder", "right_elbow", "right_wrist"): ((255, 200, 0), (0, 56, 255)),
    ("left_shoulder", "left_elbow", "left_wrist"): ((255, 80, 0), (0, 165, 255)),
}


@pytest.fixture(scope="module")
def dancer(samples) -> np.ndarray:
    return read_video(samples / "dance_anny_rgb.mp4").frames[::3]


@pytest.fixture(scope="module")
def found(dancer):
    return extract_poses(dancer, 5.0)


def ends(frame: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray | None:
    """The two ends (2, 2) of a line of this colour; None where hardly any of it is seen."""
    y, x = np.nonzero(np.abs(frame.astype(int) - colour).max(-1) < 70)
    if len(x) < 12:
        return None
    points = np.stack([x, y], -1).astype(float)
    along = np.linalg.svd(points - points.mean(0), full_matrices=False)[2][0]
    far = (points - points.mean(0)) @ along
    return points.mean(0) + along * np.array([[far.min() + 1.5], [far.max() - 1.5]])


def true_joints(frames: np.ndarray) -> np.ndarray:
    """(frames, 33, 2): the joints in the skeleton video; nan where they cannot be told."""
    joints = np.full((len(frames), 33, 2), np.nan)
    for number, frame in enumerate(frames):
        for names, colours in LIMBS.items():
            upper, lower = (ends(frame, colour) for colour in colours)
            if upper is None or lower is None:
                continue
            gaps = np.linalg.norm(upper[:, None] - lower[None], axis=-1)
            a, b = np.unravel_index(gaps.argmin(), (2, 2))
            if gaps.min() < 8:
                for name, place in zip(names, (upper[1 - a], (upper[a] + lower[b]) / 2, lower[1 - b]), strict=True):
                    joints[number, INDEX[name]] = place
    return joints


def test_joints_lie_where_they_are(samples, found):
    truth = true_joints(read_video(samples / "dance_anny_skel.mp4").frames[::3])
    error = np.linalg.norm(found.points[:, 0, :, :2] - truth, axis=-1)
    assert np.isfinite(error).sum() > 120
    assert np.nanmedian(error) < 4.5  # pixels; the body is 150 to 230 high
    assert np.nanpercentile(error, 90) < 12
    assert found.confidence[np.isfinite(error)[:, None]].mean() > 0.8


def test_the_body_is_as_deep_as_it_is(found):
    """The shoulders of someone who turns stay equally far apart only with the right depths."""
    across = found.points[:, 0, INDEX["left_shoulder"]] - found.points[:, 0, INDEX["right_shoulder"]]
    spine = found.points[:, 0, INDEX["left_shoulder"]] - found.points[:, 0, INDEX["left_hip"]]
    share = np.linalg.norm(across, axis=-1) / np.linalg.norm(spine, axis=-1)
    assert share.std() / share.mean() < 0.12


def test_what_is_drawn_covers_the_body(samples, found):
    truth = read_video(samples / "dance_anny_parts.mp4").frames[::3].max(-1) > 60
    drawn = part_map(found, 256, 256) > 0
    overlap = (drawn & truth).sum((1, 2)) / (drawn | truth).sum((1, 2))
    assert np.median(overlap) > 0.8


def test_two_people_keep_their_places(dancer):
    alone = dancer[:, :, 60:220]
    both = np.concatenate([alone, alone[::-1, :, ::-1]], 2)
    heard = []
    found = extract_poses(both, 5.0, lambda number, people: heard.append((number, people)))
    assert found.points.shape[:2] == (15, 2)
    sides = found.points[..., INDEX["nose"], 0] > 160
    assert (sides.all(0) | (~sides).all(0)).all()
    assert (found.confidence.max(-1) > 0.5).all()
    assert heard == [(number + 1, 2) for number in range(15)]


def test_who_comes_back_gets_the_same_place(dancer):
    broken = dancer.copy()
    broken[5:9] = 200
    found = extract_poses(broken, 5.0)
    assert found.points.shape[1] == 1
    assert ((found.confidence.max(-1) > 0.5)[:, 0] == ~np.isin(np.arange(15), range(5, 9))).all()


def test_a_portrait_that_shows_no_hips(samples):
    found = extract_poses(read_video(samples / "talking_anny_256_25fps.mp4").frames[:40:10], 2.5)
    assert (found.confidence[:, 0, INDEX["nose"]] > 0.9).all()
    assert found.confidence[:, 0, INDEX["left_knee"]].max() < 0.1


def test_large_pictures_and_turned_people(samples):
    photo = read_image(samples / "portrait_astronaut_512.jpg")
    large = photo.repeat(3, 0).repeat(3, 1)
    nose, same = (extract_poses([one], 1.0).points[0, 0, INDEX["nose"], :2] for one in (photo, large))
    assert nose == pytest.approx((217, 128), abs=8)
    assert same / 3 == pytest.approx(nose, abs=4)


def test_nobody():
    found = extract_poses(np.full((3, 64, 96, 3), 128, np.uint8), 25.0)
    assert (found.points.shape, found.height, found.width) == ((3, 0, 33, 3), 64, 96)


def test_no_frames():
    with pytest.raises(InputError, match="no frames"):
        extract_poses([], 25.0)


def test_frames_of_several_sizes():
    with pytest.raises(InputError, match="frame 2 is 64x32, the first 64x64"):
        extract_poses([np.zeros((64, 64, 3), np.uint8), np.zeros((64, 32, 3), np.uint8)], 25.0)
