"""Pose pictures are drawn when they are asked for, and given ones know where people are."""

from dataclasses import replace

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.media import Framing, VideoWriter
from animagic.poses import PART_COLOURS, draw_parts, draw_skeleton, part_map, to_json
from animagic.systems.magicanimate.poses import DrawnPoses, GivenPoses, box_of, framed, read_driving


@pytest.fixture(scope="module")
def poses():
    from animagic.synthetic.people import render_person, sample_motion, sample_person, sample_view

    return render_person(sample_person(1), sample_motion(1), sample_view(3, "full"), 5, 64, 64, 10).poses


@pytest.mark.parametrize(("kind", "draw"), [("parts", draw_parts), ("skeleton", draw_skeleton)])
def test_drawn_poses(poses, kind, draw, monkeypatch):
    pictures = DrawnPoses(poses, kind)
    assert len(pictures) == 5
    whole = draw(poses, 64, 64)
    assert np.array_equal(pictures[[3, 1, 1]], whole[[3, 1, 1]])
    # What has been drawn is kept, in a twentieth of the memory.
    monkeypatch.setattr(f"animagic.systems.magicanimate.poses.{'part_map' if kind == 'parts' else draw.__name__}", None)
    assert np.array_equal(pictures[[1, 3]], whole[[1, 3]])
    assert sum(map(len, pictures._packed.values())) < 2 * 64 * 64 * 3 / 10


def test_where_people_are(poses):
    mask = part_map(poses, 64, 64) > 0
    assert np.array_equal(DrawnPoses(poses, "skeleton").masks(range(5)), mask)
    given = GivenPoses(draw_parts(poses, 64, 64))
    found = given.masks([0, 4])
    assert (found == mask[[0, 4]]).mean() > 0.98  # its second part is almost as dark as the background
    assert np.array_equal(given[[2]][0, 0, 0], PART_COLOURS[0])


def test_poses_in_the_frame_of_the_model(poses):
    framing = Framing.around(box_of([poses]), (64, 64), (32, 32))
    moved = framed(poses, framing)
    assert (moved.height, moved.width) == (32, 32)
    left, top, right, bottom = box_of([moved])
    assert left >= -1
    assert top >= -1
    assert right <= 33
    assert bottom <= 33
    assert (part_map(moved, 32, 32) > 0).mean() > (part_map(poses, 64, 64) > 0).mean()


def test_a_part_of_what_is_given(poses, tmp_path):
    (tmp_path / "poses.json").write_text(to_json(poses))
    with VideoWriter(tmp_path / "parts.mp4", 10) as writer:
        writer.write(draw_parts(poses, 256, 256))
    told: list[str] = []
    for file in ("poses.json", "parts.mp4"):
        assert len(read_driving(str(tmp_path / file), "parts", on_note=told.append)) == 5
        assert len(read_driving(str(tmp_path / file), "parts", offset=1, frames=2)) == 2
    assert len(told) == 1
    assert "used as it is" in told[0]
    with pytest.raises(InputError, match="10 frames per second; leave out --fps"):
        read_driving(str(tmp_path / "poses.json"), "parts", fps=25)
    assert read_driving(str(tmp_path / "parts.mp4"), "parts", fps=20).fps == 20


def test_seconds_without_anybody_are_told(poses, tmp_path):
    confidence = poses.confidence.copy()
    confidence[2:4] = 0
    (tmp_path / "poses.json").write_text(to_json(replace(poses, confidence=confidence)))
    told: list[str] = []
    read_driving(str(tmp_path / "poses.json"), "parts", on_note=told.append)
    assert told == [f"nobody is seen in {tmp_path}/poses.json from 0.2 to 0.4 s: the pose is empty there"]
