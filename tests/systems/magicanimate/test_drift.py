"""Drift is measured window by window: of the background pixel by pixel, of a person by colours wherever they are."""

import numpy as np
import pytest

from animagic.pipelines.drift import Drift, to_lab


def scene(left: int, colour=(200, 30, 30), wall=(120, 130, 140)) -> tuple[np.ndarray, np.ndarray]:
    """A person in two colours before a wall, and where they are."""
    picture, mask = np.empty((32, 48, 3), np.uint8), np.zeros((32, 48), bool)
    picture[:] = wall
    mask[8:28, left : left + 8] = True
    picture[8:18, left : left + 8], picture[18:28, left : left + 8] = colour, (20, 20, 90)
    return picture, mask


def test_colours_in_cielab():
    lab = to_lab(np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [119, 119, 119]], np.uint8))
    wanted = [[100, 0, 0], [0, 0, 0], [53.2, 80.1, 67.2], [50.0, 0, 0]]
    assert np.allclose(lab, wanted, atol=0.3)


def test_somebody_who_moves_does_not_drift():
    picture, person = scene(4)
    drift = Drift(picture, person, size=4)
    for left in range(8):
        frame, mask = scene(6 + 3 * left)
        drift.add(frame[None], mask[None])
    windows = drift.windows()
    assert [window["frames"] for window in windows] == [4, 8]
    assert all(window["background"] < 0.1 and window["person"] < 0.1 for window in windows)


@pytest.mark.parametrize(
    ("part", "changes"), [("person", {"colour": (30, 200, 30)}), ("background", {"wall": (90,) * 3})]
)
def test_what_changes_is_named(part, changes):
    picture, person = scene(4)
    drift = Drift(picture, person, size=2)
    for changed in ({}, {}, changes, changes, changes):
        frame, mask = scene(20, **changed)
        drift.add(frame[None], mask[None])
    windows, other = drift.windows(), {"person": "background", "background": "person"}[part]
    assert [window["frames"] for window in windows] == [2, 4, 5]
    assert windows[0][part] < 0.1 < 5 < windows[-1][part]
    assert windows[-1][other] < 0.1
    assert f"{part} 0.0 in the first window" in drift.lines()[0]


def test_nobody_known_in_the_picture():
    """Then the first window says what the person looks like."""
    picture, _ = scene(4)
    drift = Drift(picture, None, size=1)
    for colour in ((200, 30, 30), (200, 30, 30), (30, 200, 30)):
        frame, mask = scene(20, colour=colour)
        drift.add(frame[None], mask[None])
    assert [window["person"] > 1 for window in drift.windows()] == [False, False, True]


def test_a_face_that_becomes_another():
    """Where faces can be found, it is said whose they are."""
    astronaut = pytest.importorskip("skimage.data").astronaut()[:256, 90:346]
    nobody = np.full_like(astronaut, 128)
    drift = Drift(astronaut, None, size=1)
    for frame in (astronaut, nobody, astronaut // 2 + 60):
        drift.add(frame[None], np.ones((1, 256, 256), bool))
    windows = drift.windows()
    assert windows[0]["identity"] < 0.05
    assert "identity" not in windows[1]
    assert 0.05 < windows[2]["identity"] < 0.6
    assert "identity 0.00 in the first window" in drift.lines()[1]
