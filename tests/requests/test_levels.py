"""How far each latent frame has come, as reports tell it."""

from animagic.requests.generation import levels_after
from animagic.timeline import OverlappingWindows, Staircase, WholeClip


def test_levels_rise_by_one_at_each_step():
    levels = [levels_after(step, 3) for step in WholeClip(2, 3).steps()]
    assert levels == [(1, 1), (2, 2), (3, 3)]


def test_chunks_in_flight_stand_at_stages_and_given_ones_are_clean():
    plan = Staircase(num_chunks=3, num_steps=4, window_size=2, chunk_width=2, prefix_frames=2)
    steps = list(plan.steps())
    assert levels_after(steps[0], 4) == (4, 4)
    found = [levels_after(step, 4) for step in steps[1:]]
    assert found[0] == (1, 1)
    assert (3, 3, 1, 1) in found
    assert found[-1][-2:] == (4, 4)


def test_windows_that_overlap_tell_of_every_frame():
    plan = OverlappingWindows(num_frames=12, num_steps=2, size=8, overlap=4)
    assert [levels_after(step, 2) for step in plan.steps()] == [(1,) * 12, (2,) * 12]
