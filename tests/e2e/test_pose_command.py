"""`animagic pose`: from a video to its poses, drawn or as JSON, and back; wrong input; Ctrl-C."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from animagic.media import VideoWriter, probe, read_image, read_metadata, read_video, resize, write_image
from animagic.poses import LANDMARKS, from_json, is_pose_video

NOSE = LANDMARKS.index("nose")


@pytest.fixture(scope="module")
def someone() -> np.ndarray:
    """A photo of a person from the waist up, uint8 (192, 192, 3)."""
    data = pytest.importorskip("skimage.data")
    return resize(data.astronaut(), 192, 192)


@pytest.fixture
def video(someone, tmp_path) -> Path:
    """The person drifts to the left for a second; the frame is 160 high and 144 wide."""
    with VideoWriter(tmp_path / "person.mp4", 8) as writer:
        writer.write(np.stack([someone[:160, 2 * i : 2 * i + 144] for i in range(8)]))
    return tmp_path / "person.mp4"


@pytest.fixture
def empty(tmp_path) -> Path:
    with VideoWriter(tmp_path / "empty.mp4", 8) as writer:
        writer.write(np.full((8, 64, 96, 3), 120, np.uint8))
    return tmp_path / "empty.mp4"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_video_of_body_parts(run, video, tmp_path):
    ran = run("pose", video, "-o", "pose.mp4")
    assert (ran.code, ran.out, ran.err) == (0, "pose.mp4\n", "8 frames, 1 person\n")
    facts = probe("pose.mp4")
    assert (facts["height"], facts["width"], facts["frames"], facts["fps"]) == (160, 144, 8, 8)
    assert is_pose_video(read_video("pose.mp4").frames) == "parts"
    assert read_metadata("pose.mp4")["pose"] == {"source": "person.mp4", "look": "parts", "people": 1}
    assert names(tmp_path) == {"person.mp4", "pose.mp4"}


def test_a_skeleton_and_json_together_and_the_json_drawn(run, video, frames_of):
    ran = run("pose", video, "-o", "pose.mp4", "--skeleton", "--json", "pose.json", "-q")
    assert (ran.code, ran.out, ran.err) == (0, "pose.mp4\npose.json\n", "")
    poses = from_json(Path("pose.json").read_text("utf-8"))
    assert (poses.points.shape, poses.fps, poses.height, poses.width) == ((8, 1, 33, 3), 8, 160, 144)
    x = poses.points[:, 0, NOSE, 0]
    assert x[0] - x[-1] == pytest.approx(14, abs=4)
    assert run("pose", "pose.json", "-o", "again.mp4", "--skeleton").code == 0
    assert np.abs(frames_of("pose.mp4").astype(int) - frames_of("again.mp4")).mean() < 1


def test_json_alone(run, video):
    ran = run("pose", video, "-o", "pose.json")
    assert (ran.code, ran.out) == (0, "pose.json\n")
    assert json.loads(Path("pose.json").read_text("utf-8"))["version"] == 1


def test_shown_beside_the_video(run, video, someone):
    assert run("pose", video, "-o", "pose.mp4", "--show").code == 0
    frames = read_video("pose.mp4").frames
    assert frames.shape == (8, 160, 288, 3)
    far_from_the_body = np.s_[0, 4:30, 4:30]
    assert np.abs(frames[far_from_the_body].astype(int) - someone[4:30, 4:30]).mean() < 8
    assert is_pose_video(frames[:, :, 144:]) == "parts"


def test_fitted_to_a_photo(run, video, someone):
    write_image("photo.png", resize(someone, 100, 120, "pad"))
    assert run("pose", video, "-o", "pose.mp4", "--reference", "photo.png", "--json", "pose.json").code == 0
    poses = from_json(Path("pose.json").read_text("utf-8"))
    assert (probe("pose.mp4")["height"], probe("pose.mp4")["width"]) == (poses.height, poses.width) == (100, 120)
    scale = 100 / 192
    assert np.median(poses.points[:, 0, NOSE, 1]) == pytest.approx(scale * 48, abs=5)
    assert run("pose", video, "-o", "shown.mp4", "--reference", "photo.png", "--show").code == 0
    assert (probe("shown.mp4")["height"], probe("shown.mp4")["width"]) == (160, 144 + 192)


def test_a_photo(run, someone):
    write_image("photo.png", someone)
    ran = run("pose", "photo.png", "-o", "pose.png")
    assert (ran.code, ran.out, ran.err) == (0, "pose.png\n", "1 frame, 1 person\n")
    assert read_image("pose.png").shape == (192, 192, 3)


def test_two_people(run, someone):
    both = np.concatenate([someone, someone[:, ::-1]], 1)
    with VideoWriter("both.mp4", 8) as writer:
        writer.write(np.stack([both] * 3))
    assert run("pose", "both.mp4", "-o", "pose.mp4").err == "3 frames, 2 people\n"
    run("pose", "both.mp4", "-o", "other.mp4", "--people", 1).refused("both.mp4", "2 people", "--people 2")


def test_pictures_of_openpose(run, tmp_path):
    (tmp_path / "keypoints").mkdir()
    for i in range(3):
        points = [(40 + 8 * (j % 5) + i, 10 + 6 * j, 0.9) for j in range(18)]
        frame = {"people": [{"pose_keypoints_2d": [value for point in points for value in point]}]}
        (tmp_path / "keypoints" / f"{i:012}_keypoints.json").write_text(json.dumps(frame))
    ran = run("pose", "keypoints", "-o", "pose.mp4", "--skeleton")
    assert (ran.code, ran.err) == (0, "3 frames, 1 person\n")


def test_where_nobody_is_seen_is_said(run, someone):
    nobody = np.full((12, 192, 192, 3), 120, np.uint8)
    with VideoWriter("gone.mp4", 8) as writer:
        for frames in (np.stack([someone] * 4), nobody, np.stack([someone] * 4)):
            writer.write(frames)
    ran = run("pose", "gone.mp4", "-o", "pose.mp4")
    assert (ran.code, ran.out) == (0, "pose.mp4\n")
    assert "nobody is seen from 0.5 to 2.0 s" in ran.err


def test_a_long_video_without_anybody_is_not_searched_to_its_end(run, monkeypatch, empty, tmp_path):
    monkeypatch.setattr("animagic.pipelines.poses._LONGEST_WAIT", 0.5)
    run("pose", empty, "-o", "pose.mp4").refused("empty.mp4", "no person", "first")
    assert names(tmp_path) == {"empty.mp4"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["person.mp4", "-o", "x.mp4", "--parts", "--skeleton"], ["--parts", "--skeleton", "exclude"]),
        (["person.mp4", "-o", "x.mp4", "--people", "0"], ["--people is 0", "between 1 and 10"]),
        (["person.mp4", "-o", "x.mp4", "--people", "many"], ["--people", "integer"]),
        (["person.mp4", "-o", "x.json", "--show"], ["x.json", "--show"]),
        (["person.mp4", "-o", "x.json", "--skeleton"], ["x.json", "--skeleton"]),
        (["person.mp4", "-o", "x.json", "--json", "y.json"], ["x.json", "--json"]),
        (["person.mp4", "-o", "x.txt"], ["x.txt", ".mp4"]),
        (["person.mp4", "-o", "x.png"], ["x.png", "8 frames"]),
        (["person.mp4", "-o", "no/x.mp4"], ["no is not a folder"]),
        (["person.mp4", "-o", "x.mp4", "--json", "no/x.json"], ["no is not a folder"]),
        (["person.mp4", "-o", "x.mp4", "--reference", "empty.mp4"], ["empty.mp4", "no person"]),
        (["person.mp4", "-o", "x.mp4", "--reference", "missing.png"], ["missing.png", "does not exist"]),
        (["missing.mp4", "-o", "x.mp4"], ["missing.mp4", "does not exist"]),
        (["missing.json", "-o", "x.mp4"], ["missing.json", "does not exist"]),
        (["bad.json", "-o", "x.mp4"], ["bad.json", "no JSON"]),
        (["bytes.json", "-o", "x.mp4"], ["bytes.json", "cannot be read"]),
        (["other.json", "-o", "x.mp4"], ["other.json", "133 points"]),
        (["cut.mp4", "-o", "x.mp4"], ["cut.mp4"]),
        (["empty.mp4", "-o", "x.mp4"], ["empty.mp4", "no person in its 1.0 seconds"]),
        ([], ["Missing argument"]),
        (["person.mp4"], ["--output"]),
    ],
    ids=" ".join,
)
def test_wrong_input(run, video, empty, tmp_path, words, said):
    Path(tmp_path / "bad.json").write_text("no JSON")
    Path(tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    Path(tmp_path / "other.json").write_text(json.dumps({"people": [{"pose_keypoints_2d": [1.0] * 399}]}))
    Path(tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:200])
    before = names(tmp_path)
    run("pose", *words).refused(*said)
    assert names(tmp_path) == before


def test_a_pose_video_is_refused(run, video):
    assert run("pose", video, "-o", "pose.mp4").code == 0
    run("pose", "pose.mp4", "-o", "again.mp4").refused("pose.mp4", "a pose already", "body parts")


def test_json_has_no_pictures_to_show(run, video):
    assert run("pose", video, "-o", "pose.json").code == 0
    run("pose", "pose.json", "-o", "x.mp4", "--show").refused("pose.json", "--show")


def test_ctrl_c_leaves_nothing_half_written(interrupt, video, tmp_path, monkeypatch):
    from animagic.requests import poses as room

    seen = []
    draw = room._DRAW["parts"]
    monkeypatch.setattr(room, "_AT_ONCE", 1)
    monkeypatch.setitem(
        room._DRAW, "parts", lambda *given: (seen.append(1), __import__("time").sleep(0.1), draw(*given))[2]
    )
    ran = interrupt(lambda: len(seen) > 3, "pose", video, "-o", "pose.mp4", "--json", "pose.json")
    assert ran.code == 130
    assert names(tmp_path) == {"person.mp4"}
