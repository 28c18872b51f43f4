"""Crops show what lies in them; detectors' boxes become one for each face or person."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from animagic.tracking import Crop, anchors_of, cut, merged, to_frame
from animagic.tracking.networks import placed


@pytest.mark.parametrize("angle", [0, 0.7, np.pi / 2, -2])
def test_a_crop_shows_its_middle_upright_and_points_find_back(angle):
    crop = Crop(60, 50, 80, angle)
    picture = Image.new("RGB", (120, 100))
    point = to_frame(np.array([[0.75, 0.25, 0.1]]), crop)[0]
    x, y = point[:2].round()
    picture.paste((255, 255, 255), (int(x) - 2, int(y) - 2, int(x) + 3, int(y) + 3))
    shown = np.argwhere(cut(picture, crop, 160)[..., 0] > 0.5).mean(0)
    assert shown == pytest.approx((40, 120), abs=1.5)
    assert point[2] == pytest.approx(8)


def test_a_large_crop_does_not_alias():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    shown = cut(Image.fromarray(stripes), Crop(200, 200, 400, 0), 50)
    assert shown[10:40, 10:40] == pytest.approx(0.5, abs=0.12)


def test_anchors_are_the_middles_of_cells():
    anchors = anchors_of(16, ((8, 1), (16, 2)))
    assert anchors.tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75], [0.5, 0.5], [0.5, 0.5]]


def test_boxes_of_one_are_averaged_and_the_surest_comes_first():
    anchors = np.array([[0.25, 0.5], [0.25, 0.5], [0.75, 0.5], [0.5, 0.5]])
    raw = np.zeros((4, 12), np.float32)
    raw[:, 2:4] = 0.2 * 224
    raw[1, 0] = 0.02 * 224
    boxes, scores = placed(raw, np.array([2.0, 2.0, 4.0, -3.0], np.float32), anchors, 224)
    assert scores == pytest.approx([0.88, 0.88, 0.982], abs=1e-3)  # the fourth is nothing
    sure, other = merged(boxes, scores)
    assert (sure[0], other[0]) == pytest.approx((0.75, 0.26))
    assert sure[2:6] == pytest.approx((0.2, 0.2, 0.75, 0.5))  # points lie beside their anchor, sizes do not
