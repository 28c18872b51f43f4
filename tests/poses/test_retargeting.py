"""One body's motion on another: lengths, place, framing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.poses import LANDMARKS, Poses, retargeted

INDEX = {name: i for i, name in enumerate(LANDMARKS)}
TURNS = np.linspace(-0.8, 0.8, 20)
BONES = [("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("right_shoulder", "right_elbow"),
         ("right_elbow", "right_wrist"), ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip")]  # fmt: skip


def length(poses: Poses, bone: tuple[str, str]) -> np.ndarray:
    start, end = (poses.points[:, 0, INDEX[name]] for name in bone)
    return np.linalg.norm(start - end, axis=-1)


def lowest(poses: Poses) -> np.ndarray:
    return poses.points[:, 0, [INDEX["left_foot_index"], INDEX["right_foot_index"]], 1].max(-1)


@pytest.fixture
def dance(stand) -> Poses:
    """Someone who turns, sways to the sides and lifts an arm."""
    poses = stand(TURNS)
    poses.points[..., 0] += 20 * np.sin(np.arange(20) / 3)[:, None, None]
    elbow, wrist = poses.points[:, 0, INDEX["left_elbow"]], poses.points[:, 0, INDEX["left_wrist"]]
    lower_arm, angle = np.linalg.norm(wrist - elbow, axis=-1), np.linspace(0, 2, 20)
    lifted = np.stack([np.sin(angle), np.cos(angle), 0 * angle], -1) * lower_arm[:, None]
    hand = [INDEX[f"left_{name}"] for name in ("wrist", "pinky", "index", "thumb")]
    poses.points[:, 0, hand] += (elbow + lifted - wrist)[:, None]
    return poses


@pytest.fixture
def long_legs(stand) -> Poses:
    """A photo of somebody smaller, further left, with longer legs and broader shoulders."""
    poses = stand(x=70, ground=180, tall=120, size=200)
    points = poses.points[0, 0]
    legs = [i for i, name in enumerate(LANDMARKS) if i > 22]
    hips = points[INDEX["left_hip"], 1]
    points[:, 1] -= np.where(np.isin(np.arange(33), legs), 0, 0.4 * (180 - hips))
    points[legs, 1] = 180 - 1.4 * (180 - points[legs, 1])
    points[:, 0] = 70 + 1.3 * (points[:, 0] - 70)
    return poses


def test_bones_get_the_lengths_of_the_photo(dance, long_legs):
    found = retargeted(dance, long_legs)
    for bone in BONES:
        assert length(found, bone) / length(long_legs, bone) == pytest.approx(1, abs=0.05), bone


def test_directions_stay(dance, long_legs):
    found = retargeted(dance, long_legs)
    for start, end in BONES[:4]:
        before, after = (p.points[:, 0, INDEX[end]] - p.points[:, 0, INDEX[start]] for p in (dance, found))
        cosine = (before * after).sum(-1) / np.linalg.norm(before, axis=-1) / np.linalg.norm(after, axis=-1)
        assert cosine.min() > 0.999


def test_the_body_stands_where_the_photo_has_it(dance, long_legs):
    found = retargeted(dance, long_legs)
    assert (found.height, found.width, found.fps, len(found.points)) == (200, 200, 25.0, 20)
    assert np.median(lowest(found)[:8]) == pytest.approx(lowest(long_legs)[0], abs=1)
    hips = [INDEX["left_hip"], INDEX["right_hip"]]
    assert np.median(found.points[:8, 0, hips, 0].mean(1)) == pytest.approx(70, abs=1.5)


def test_a_jump_is_as_high_as_the_body_is_large(dance, stand):
    dance.points[8:12, ..., 1] -= 44  # a fifth of the body's height
    found = retargeted(dance, stand(tall=110, ground=120))
    assert lowest(found)[10] - np.median(lowest(found)) == pytest.approx(-22, abs=2)


def test_oneself_moves_as_before(dance, stand):
    photo = replace(dance, points=dance.points[:1], confidence=dance.confidence[:1])
    found = retargeted(dance, photo)
    moved = found.points[..., :2] - dance.points[..., :2]
    assert np.abs(moved - np.median(moved, axis=(0, 1, 2))).max() < 8


def test_half_a_body(dance, stand):
    photo = stand(ground=500, tall=440, size=256)
    photo.confidence[:, :, 23:] = 0  # cut above the hips
    found = retargeted(dance, photo)
    shoulders = [INDEX["left_shoulder"], INDEX["right_shoulder"]]
    assert np.median(found.points[:8, 0, shoulders, 1]) == pytest.approx(photo.points[0, 0, shoulders, 1].mean(), abs=6)
    assert length(found, BONES[2]) == pytest.approx(length(photo, BONES[2])[0], rel=0.05)
    assert length(found, BONES[0]) == pytest.approx(length(dance, BONES[0]) * 2, rel=0.05)


def test_the_trunk_does_not_leave_the_frame(dance, stand):
    dance.points[..., 0] += np.linspace(-40, 40, 20)[:, None, None]
    found = retargeted(dance, stand(x=60))
    shoulders = [INDEX["left_shoulder"], INDEX["right_shoulder"]]
    assert found.points[:, 0, shoulders, 0].min() > 0


def test_two_people_keep_their_sides(dance, stand, together):
    right = replace(dance, points=dance.points + np.float32([60, 0, 0]))
    photo = together(stand(x=190, tall=100), stand(x=60, tall=150))
    found = retargeted(together(right, dance), photo)
    x = found.points[..., 0].mean((0, 2))
    assert x[0] < x[1]
    assert np.ptp(found.points[0, 0, :, 1]) > np.ptp(found.points[0, 1, :, 1])


def test_one_photo_takes_the_first_of_two(dance, stand, together):
    assert retargeted(together(dance, dance), stand()).points.shape == (20, 1, 33, 3)


def test_unseen_points_stay_unseen(dance, long_legs):
    dance.confidence[5:9, 0, INDEX["left_elbow"]] = 0
    dance.points[5:9, 0, INDEX["left_elbow"]] = 0
    found = retargeted(dance, long_legs)
    assert (found.confidence == dance.confidence).all()
    wrist = found.points[:, 0, INDEX["left_wrist"]]
    assert np.linalg.norm(np.diff(wrist, axis=0), axis=-1).max() < 60


@pytest.mark.parametrize("which", ["the motion", "the reference"])
def test_nobody_is_refused(dance, long_legs, which):
    given = {"the motion": dance, "the reference": long_legs}
    given[which].confidence[:] = 0
    with pytest.raises(InputError, match=f"{which} shows no person"):
        retargeted(*given.values())
