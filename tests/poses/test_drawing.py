"""What is drawn where: parts, sides, who hides whom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from animagic.poses import LANDMARKS, PART_COLOURS, PARTS, draw_parts, draw_skeleton, overlay, part_map

INDEX = {name: i for i, name in enumerate(LANDMARKS)}


def shares(drawn: np.ndarray) -> dict[str, int]:
    """Pixels of each part that is there."""
    return {PARTS[number]: int((drawn == number).sum()) for number in np.unique(drawn) if number}


def at(drawn: np.ndarray, x: float, y: float) -> str:
    return PARTS[drawn[round(y), round(x)]]


def test_someone_who_faces_the_camera(stand):
    poses = stand()
    (drawn,) = part_map(poses, 256, 256)
    assert (drawn.dtype, drawn.shape) == (np.uint8, (256, 256))
    points = poses.points[0, 0]
    assert at(drawn, 128, 100) == "torso_front"
    for side in ("left", "right"):  # the person's own: the left one is on the right
        between = (points[INDEX[f"{side}_hip"]] + points[INDEX[f"{side}_knee"]]) / 2
        assert at(drawn, *between[:2]) == f"{side}_upper_leg_front"
        between = (points[INDEX[f"{side}_knee"]] + points[INDEX[f"{side}_ankle"]]) / 2
        assert at(drawn, *between[:2]) == f"{side}_lower_leg_front"
    assert (at(drawn, 122, 35), at(drawn, 134, 35)) == ("head_right", "head_left")


def test_someone_seen_from_behind(stand):
    (drawn,) = part_map(stand([np.pi]), 256, 256)
    found = shares(drawn)
    assert found["torso_back"] > 20 * found.get("torso_front", 0)
    assert not {"left_upper_leg_front", "right_lower_leg_front"} & set(found)
    assert (at(drawn, 122, 35), at(drawn, 134, 35)) == ("head_left", "head_right")


def test_a_profile_shows_front_and_back_of_a_leg_and_one_side_of_the_head(stand):
    found = shares(part_map(stand([np.pi / 2]), 256, 256)[0])
    shown = "right" if found.get("head_right", 0) > found.get("head_left", 0) else "left"
    front, back = found[f"{shown}_upper_leg_front"], found[f"{shown}_upper_leg_back"]
    assert 0.4 < front / back < 2.5  # arm and hand hide some of it
    assert {"head_left", "head_right"} & set(found) == {f"head_{shown}"}


def test_every_part_has_its_place(stand):
    found = shares(part_map(stand(np.linspace(0, 2 * np.pi, 12, endpoint=False)), 256, 256))
    assert set(found) == set(PARTS[1:])


@pytest.mark.parametrize(("nearer", "said"), [(-60, "hand"), (60, "torso")])
def test_a_nearer_limb_hides_what_is_behind_it(stand, nearer, said):
    poses = stand()
    for name in ("left_wrist", "left_index", "left_pinky", "left_thumb"):
        poses.points[0, 0, INDEX[name]] = (128, 110, nearer)
    (drawn,) = part_map(poses, 256, 256)
    assert said in at(drawn, 128, 110)


def test_of_two_people_the_one_who_stands_lower_is_nearer(stand, together):
    near, far = stand([np.pi], x=120, ground=250), stand(x=136, ground=230)
    for poses in (together(near, far), together(far, near)):
        assert at(part_map(poses, 256, 256)[0], 128, 110) == "torso_back"


def test_the_map_grows_with_the_picture(stand):
    poses = stand()
    small, large = part_map(poses, 128, 128)[0], part_map(poses, 512, 512)[0]
    assert np.mean(small == large[2::4, 2::4]) > 0.98


def test_nobody_is_background(stand):
    nobody = replace(stand(), confidence=np.zeros((1, 1, 33), np.float32))
    assert not part_map(nobody, 64, 64).any()
    assert not draw_skeleton(nobody, 64, 64).any()


def test_only_what_is_seen_is_drawn(stand):
    poses = stand()
    for name in ("left_elbow", "right_knee"):
        poses.confidence[0, 0, INDEX[name]] = 0
    found = shares(part_map(poses, 256, 256)[0])
    assert {name.split("_")[0] for name in found if "arm" in name} == {"right"}
    assert {name.split("_")[0] for name in found if "leg" in name} == {"left"}


def test_a_person_cut_by_the_frame_goes_on_to_its_edge(stand):
    poses = stand(ground=450, tall=440)
    hidden = [i for i, name in enumerate(LANDMARKS) if i > 22]
    poses.confidence[:, :, hidden] = 0
    (drawn,) = part_map(poses, 256, 256)
    assert at(drawn, 128, 200) == "torso_front"


def test_the_colours_of_densepose(stand):
    poses = stand()
    assert (draw_parts(poses, 64, 64) == PART_COLOURS[part_map(poses, 64, 64)]).all()


def test_a_skeleton_is_coloured_lines_on_black(stand):
    poses = stand()
    (drawn,) = draw_skeleton(poses, 256, 256)
    assert 0.005 < (drawn.max(-1) > 40).mean() < 0.05
    for name in ("left_wrist", "right_knee", "nose"):
        x, y = poses.points[0, 0, INDEX[name], :2].round().astype(int)
        assert drawn[y, x].max() > 200


def test_an_overlay_keeps_the_picture_elsewhere(stand):
    frames = np.full((1, 256, 256, 3), 90, np.uint8)
    drawn = overlay(frames, stand())
    changed = (drawn != 90).any(-1)
    assert 0.005 < changed.mean() < 0.06


def test_hands_that_hang_on_nothing_are_not_drawn(stand):
    poses = stand()
    for i, name in enumerate(LANDMARKS):
        if name in ("left_elbow", "right_elbow"):
            poses.confidence[..., i] = 0
        elif name.startswith("left_") and name.split("_")[1] in ("wrist", "pinky", "index", "thumb"):
            poses.confidence[..., i] = 0.3
    found = shares(part_map(poses, 256, 256))
    assert "right_hand" in found
    assert "left_hand" not in found
