"""The camera moves: a cross that is drawn moves the way the camera's name says."""

import itertools

import numpy as np
import pytest

from animagic import InputError
from animagic.synthetic.cameras import CAMERA_MOVES, move_camera

FRAMES, SIDE, OUT = 7, 128, 64
CENTRE = (OUT - 1) / 2


@pytest.fixture
def cross() -> np.ndarray:
    """A still clip of a thin cross in the middle, its right arm red: uint8 (frames, side, side, 3)."""
    clip = np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8)
    middle, arm = slice(SIDE // 2 - 3, SIDE // 2 + 3), slice(SIDE // 2 - 24, SIDE // 2 + 24)
    clip[:, middle, arm] = 255
    clip[:, arm, middle] = 255
    clip[:, middle, SIDE // 2 + 6 : SIDE // 2 + 24] = (255, 0, 0)
    return clip


def centre(frame: np.ndarray) -> tuple[float, float]:
    """(x, y) of the middle of what is bright."""
    y, x = np.nonzero(frame[..., 0] > 127)
    return float(x.mean()), float(y.mean())


def spread(frame: np.ndarray) -> float:
    return float(np.ptp(np.nonzero(frame[..., 0] > 127)[1]) + 1)


def red_arm(frame: np.ndarray) -> float:
    """The angle of the red arm in degrees, clockwise from the right as a picture is seen."""
    y, x = np.nonzero((frame[..., 0] > 127) & (frame[..., 2] < 127))
    return float(np.degrees(np.arctan2(y.mean() - CENTRE, x.mean() - CENTRE)))


def falls(values: list[float]) -> bool:
    return bool((np.diff(values) < 0).all())


@pytest.mark.parametrize(("move", "axis", "backwards"), [
    ("pan-right", 0, True), ("pan-left", 0, False), ("pan-down", 1, True), ("pan-up", 1, False),
])  # fmt: skip
def test_a_pan_moves_things_the_other_way(cross, move, axis, backwards):
    seen = [centre(frame) for frame in move_camera(cross, move, OUT, OUT)]
    along, across = [point[axis] for point in seen], [point[1 - axis] for point in seen]
    assert falls(along if backwards else along[::-1])
    assert abs(along[0] - along[-1]) > OUT / 3
    assert np.ptp(across) < 1
    assert seen[FRAMES // 2] == pytest.approx((CENTRE, CENTRE), abs=1)  # half-way, it looks at the middle


def test_a_zoom_makes_things_larger_or_smaller(cross):
    nearer = [spread(frame) for frame in move_camera(cross, "zoom-in", OUT, OUT)]
    assert falls(nearer[::-1])
    assert nearer[-1] > 1.6 * nearer[0]
    farther = [spread(frame) for frame in move_camera(cross, "zoom-out", OUT, OUT)]
    assert farther == nearer[::-1]
    for frame in move_camera(cross, "zoom-in", OUT, OUT):
        assert centre(frame) == pytest.approx((CENTRE, CENTRE), abs=1)


def test_a_roll_turns_things_the_other_way(cross):
    angles = [red_arm(frame) for frame in move_camera(cross, "roll-clockwise", OUT, OUT)]
    assert falls(angles)
    assert angles[0] - angles[-1] == pytest.approx(40, abs=3)
    assert angles[FRAMES // 2] == pytest.approx(0, abs=2)
    back = [red_arm(frame) for frame in move_camera(cross, "roll-anticlockwise", OUT, OUT)]
    assert back == pytest.approx(angles[::-1], abs=0.1)


@pytest.mark.parametrize("move", CAMERA_MOVES)
def test_nothing_from_outside_the_clip_is_seen(move):
    white = np.full((FRAMES, SIDE, SIDE, 3), 255, np.uint8)
    for height, width in ((OUT, OUT), (48, 80), (80, 48)):
        seen = move_camera(white, move, height, width)
        assert (seen.shape, seen.dtype) == ((FRAMES, height, width, 3), np.uint8)
        assert seen.min() == 255


@pytest.mark.parametrize("move", CAMERA_MOVES)
@pytest.mark.parametrize(("height", "width"), [(48, 80), (80, 48)])
def test_things_keep_their_shape_whatever_the_size(move, height, width):
    """A disc stays round."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    disc = np.repeat(((x**2 + y**2 < 15**2) * 255).astype(np.uint8)[None, ..., None], FRAMES, 0).repeat(3, -1)
    rows, columns = np.nonzero(move_camera(disc, move, height, width)[FRAMES // 2, ..., 0] > 127)
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=1)


@pytest.mark.parametrize("move", CAMERA_MOVES)
def test_every_frame_is_of_its_own_time_and_the_clip_is_left_alone(cross, move):
    before = cross.copy()
    seen = move_camera(cross, move, OUT, OUT)
    assert all((a != b).any() for a, b in itertools.pairwise(seen))
    # Things move on while the camera does.
    cross[3] = 0
    assert not move_camera(cross, move, OUT, OUT)[3].any()
    cross[3] = before[3]
    assert np.array_equal(cross, before)


def test_a_single_frame(cross):
    assert move_camera(cross[:1], "pan-left", OUT, OUT).shape == (1, OUT, OUT, 3)


@pytest.mark.parametrize("move", ["pan", "pan-in", "tilt-left", "pan left", ""])
def test_an_unknown_move_is_named(cross, move):
    with pytest.raises(InputError, match=f"the camera move '{move}' is unknown; choose from pan-left, pan-right"):
        move_camera(cross, move, OUT, OUT)
