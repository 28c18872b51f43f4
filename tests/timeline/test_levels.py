"""Noise levels: flow matching's time points, DDPM's alphas."""

import pytest
import torch

from animagic.errors import InputError
from animagic.timeline import flow_levels, shortcut_intervals


@pytest.mark.parametrize("num_steps", [1, 4, 12, 64])
def test_time_runs_from_noise_to_clean(num_steps):
    times = flow_levels(num_steps)
    assert times.shape == (num_steps + 1,)
    assert (times[0], times[-1]) == (0, 1)
    assert (times.diff() > 0).all()


def test_the_shift_spends_more_steps_near_noise():
    torch.testing.assert_close(flow_levels(4, shift=1), torch.tensor([0, 1, 4, 9, 16]) / 16)
    assert (flow_levels(8)[1:-1] < flow_levels(8, shift=1)[1:-1]).all()


@pytest.mark.parametrize("shortcut", ["8,16,16", "16,16,8"])
def test_shortcut_intervals_make_sixteen_base_steps(shortcut):
    intervals = shortcut_intervals(12, shortcut)
    assert intervals.sum() == 16
    # The time points are those of 16 steps, at the places where the intervals begin.
    starts = torch.cat([torch.zeros(1), intervals.cumsum(0)]).long()
    torch.testing.assert_close(flow_levels(12, shortcut), flow_levels(16)[starts])


def test_wrong_schedules_are_refused():
    with pytest.raises(InputError, match="at least 1"):
        flow_levels(0)
    for call in (flow_levels, shortcut_intervals):
        with pytest.raises(InputError, match="8,16,16"):
            call(12, "4,4,4")
