"""Plans as pictures."""

import pytest

from animagic.errors import InputError
from animagic.timeline import MovingFront, OverlappingWindows, ShiftingWindow, Staircase, WholeClip
from animagic.timeline.drawing import draw_plan

NOISE, CLEAN, OUTLINE, SHOWN = (58, 28, 96), (255, 214, 102), (235, 235, 245), (80, 200, 120)
LEFT, TOP, CELL, ROW = 56, 30, 16, 16  # of plans as small as these


def test_a_cell_is_a_frame_and_its_colour_the_noise():
    image = draw_plan(WholeClip(4, 2))
    middle = [(LEFT + CELL * 3 // 2, TOP + ROW * row + ROW // 2) for row in range(2)]
    assert image.getpixel(middle[0]) == NOISE
    assert image.getpixel(middle[1])[0] > NOISE[0]
    assert image.getpixel((LEFT, TOP + 5)) == OUTLINE
    assert image.getpixel((LEFT + 10, TOP + 2 * ROW - 1)) == SHOWN


def test_windows_that_overlap_lie_below_each_other():
    image = draw_plan(OverlappingWindows(12, 1, size=6, overlap=2))
    # 0-5, 4-9 and 6-11 in two lanes: the first and the last side by side.
    in_lane = [
        [frame for frame in range(12) if image.getpixel((LEFT + CELL * frame + 8, TOP + ROW * lane + 8)) == NOISE]
        for lane in range(2)
    ]
    assert in_lane == [list(range(12)), [4, 5, 6, 7, 8, 9]]


def test_every_stretch_of_a_window_that_runs_round_has_its_outline():
    image = draw_plan(OverlappingWindows(8, 2, size=8, closed_loop=True))
    plain = draw_plan(WholeClip(8, 2))
    assert image.size == plain.size  # the rotated window holds all frames: one stretch
    strided = draw_plan(OverlappingWindows(16, 1, size=4, overlap=0, stride=2))
    row = TOP + ROW + ROW // 2  # second lane: 0, 2, 4, 6 and on
    assert [strided.getpixel((LEFT + CELL * frame, row)) == OUTLINE for frame in range(4)] == [True, False, True, False]


def test_a_front_that_moves_and_windows_that_shift_are_drawn():
    image = draw_plan(MovingFront(6, 4, front=4, context=1))
    newest = [image.getpixel((LEFT + CELL * frame + 8, TOP + ROW * frame + 8)) for frame in range(6)]
    assert newest == [NOISE] * 6  # the diagonal: a frame enters at each call
    assert image.getpixel((LEFT + 8, TOP + ROW * 4 + 8)) == CLEAN  # read once more
    image = draw_plan(ShiftingWindow(12, 2, size=6, overlap=2, shift=1))
    assert image.size[1] > draw_plan(WholeClip(12, 2)).size[1]  # they overlap, so they lie below each other


def test_what_does_not_fit_a_picture_is_refused():
    with pytest.raises(InputError, match="endless"):
        draw_plan(Staircase(None, 8))
    with pytest.raises(InputError, match="at most 2000"):
        draw_plan(WholeClip(1, 2001))
