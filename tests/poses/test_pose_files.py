"""JSON out and in: ours, OpenPose's, COCO's; what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.poses import LANDMARKS, from_json, part_map, to_json
from animagic.poses.files import COCO, OPENPOSE

INDEX = {name: i for i, name in enumerate(LANDMARKS)}


def flat(poses, names) -> list[float]:
    """x, y and confidence of these points of the first person in the first frame."""
    points = poses.points[0, 0]
    places = {name: points[INDEX[name], :2] for name in names if name in INDEX}
    places["neck"] = (points[INDEX["left_shoulder"], :2] + points[INDEX["right_shoulder"], :2]) / 2
    return [float(value) for name in names for value in (*places.get(name, (0, 0)), 0.9)]


def test_there_and_back(stand, together):
    poses = together(stand([0, 0.5, 1]), stand([2, 1, 0], x=60))
    poses.confidence[1, 1] = 0
    poses.confidence[0, 0, 5] = 0.123
    found = from_json(to_json(poses))
    assert (found.height, found.width, found.fps) == (256, 256, 25.0)
    seen = poses.confidence > 0
    assert np.abs(found.points - poses.points)[seen].max() <= 0.051
    assert np.abs(found.confidence - poses.confidence).max() <= 0.0051
    assert to_json(found) == to_json(poses)


def test_the_file_says_what_it_is(stand):
    value = json.loads(to_json(stand([0, 0])))
    assert {name: value[name] for name in value if name not in ("frames", "landmarks")} == {
        "format": "animagic poses", "version": 1, "skeleton": "blazepose-33", "height": 256, "width": 256, "fps": 25.0,
    }  # fmt: skip
    assert tuple(value["landmarks"]) == LANDMARKS
    assert np.shape(value["frames"]) == (2, 1, 33 * 4)


def test_nobody_in_a_video(stand):
    poses = stand([0, 0])
    nobody = type(poses)(poses.points[:, :0], poses.confidence[:, :0], 256, 256, 25.0)
    assert from_json(to_json(nobody)).points.shape == (2, 0, 33, 3)


def test_openpose_frames(stand):
    person = {"pose_keypoints_2d": flat(stand(), OPENPOSE)}
    frames = [
        {"people": [person], "canvas_height": 256, "canvas_width": 300},
        {"people": []},
        {"people": [person, person]},
    ]
    found = from_json(json.dumps(frames))
    assert (found.points.shape, found.height, found.width) == ((3, 2, 33, 3), 256, 300)
    assert found.points[2, 1, INDEX["left_knee"], :2] == pytest.approx(stand().points[0, 0, INDEX["left_knee"], :2])
    assert (found.confidence.max(-1) > 0).tolist() == [[True, False], [False, False], [True, True]]
    assert found.confidence[0, 0, INDEX["left_heel"]] == 0


def test_one_frame_of_25_openpose_points(stand):
    names = (
        *OPENPOSE[:8],
        "mid_hip",
        *OPENPOSE[8:],
        "left_foot_index",
        "",
        "left_heel",
        "right_foot_index",
        "",
        "right_heel",
    )
    found = from_json(
        json.dumps({"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": flat(stand(), names)}]})
    )
    for name in ("right_hip", "left_heel", "right_foot_index"):
        assert found.points[0, 0, INDEX[name], :2] == pytest.approx(stand().points[0, 0, INDEX[name], :2])
    assert found.height % 8 == found.width % 8 == 0
    assert 240 < found.height <= 248


@pytest.mark.parametrize("sure", [0.8, 2])
def test_coco(stand, sure):
    points = flat(stand(), COCO)
    points[2::3] = [sure] * 17
    people = [{"image_id": image, "category_id": 1, "keypoints": points} for image in (7, 3, 3)]
    found = from_json(json.dumps(people))
    assert found.points.shape == (2, 2, 33, 3)
    assert found.confidence[0, 0, INDEX["nose"]] == pytest.approx(min(sure, 1))
    annotated = {"images": [{"height": 300, "width": 400}], "annotations": people}
    assert (from_json(json.dumps(annotated)).height, from_json(json.dumps(annotated)).width) == (300, 400)


def test_another_skeleton_can_be_drawn(stand):
    found = from_json(json.dumps([{"people": [{"pose_keypoints_2d": flat(stand(), OPENPOSE)}], "canvas_height": 256,
                                   "canvas_width": 256}]))  # fmt: skip
    ours, theirs = part_map(stand(), 256, 256) > 0, part_map(found, 256, 256) > 0
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.8


def changed(**fields):
    """Changes fields of our JSON; a function takes the old value."""
    return lambda value: {**value, **{k: v(value[k]) if callable(v) else v for k, v in fields.items()}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed(version=2), "version 2"),
        (changed(format="something"), "something"),
        (changed(landmarks=lambda names: [f"joint {i}" for i in range(33)]), "another skeleton"),
        (changed(landmarks=lambda names: names[:20]), "20 names|another skeleton"),
        (changed(landmarks=lambda names: [*names[:-1], names[0]]), "twice"),
        (changed(height=0), "height 0"),
        (changed(width=10**6), "width 1000000"),
        (changed(fps=0), "fps 0"),
        (changed(fps="fast"), "fps fast"),
        (changed(frames=[]), "0 frames"),
        (changed(frames=lambda frames: [frames[0] * 11]), "11 people"),
        (changed(frames=lambda frames: [[[1.0] * 40]]), "10 points"),
        (changed(frames=lambda frames: [[[1.0] * 41]]), "can be read"),
        (changed(frames=lambda frames: [[["x"] * 132]]), "can be read"),
        (changed(frames=lambda frames: [[[float("nan")] * 132]]), "no numbers"),
        (changed(frames=lambda frames: [[[7.0] * 132]]), "confidence"),
        (changed(frames=3), "can be read"),
        (lambda value: [], "no frames"),
        (lambda value: 3, "can be read"),
        (lambda value: {"people": [{"pose_keypoints_2d": [1.0] * 30}]}, "10 points"),
        (lambda value: [{"image_id": 1, "keypoints": [1.0] * 133 * 3}], "133 points"),
        (lambda value: {"hello": "world"}, "can be read"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(stand, change, said):
    text = json.dumps(change(json.loads(to_json(stand()))))
    with pytest.raises(InputError, match=said) as caught:
        from_json(text, "p.json")
    assert str(caught.value).startswith("p.json ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "no JSON", "[" * 100_000, '{"format": "animagic poses"'])
def test_what_is_no_json(text):
    with pytest.raises(InputError, match="is no JSON"):
        from_json(text)
