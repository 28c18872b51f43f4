"""Plans: what is denoised when. No network takes part."""

import itertools

import pytest

from animagic.errors import InputError
from animagic.timeline import PlanSummary, Staircase, WholeClip

LOOK_BACKS = [(5, 4, 3, 2), (1,), (3,), (2, 3, 4, 5), (1, 6, 1), (2, 1, 8, 1), ()]


def levels_of_frames(plan, steps=None) -> dict[int, list[int]]:
    """Every frame's levels in the order of the steps."""
    seen: dict[int, list[int]] = {}
    for step in itertools.islice(plan.steps(), steps):
        for window in step.windows:
            assert len(window.levels) == len(window.frames)
            for frame, level in zip(window.frames, window.levels, strict=True):
                seen.setdefault(frame, []).append(level)
    return seen


# The whole clip


def test_whole_clip_takes_every_frame_down_together():
    plan = WholeClip(num_frames=5, num_steps=3)
    steps = list(plan.steps())
    assert len(steps) == plan.total_steps == 3
    assert [step.windows[0].levels for step in steps] == [(0,) * 5, (1,) * 5, (2,) * 5]
    assert all(step.windows[0].frames == range(5) and len(step.windows) == 1 for step in steps)
    assert [step.clean for step in steps] == [range(0), range(0), range(5)]
    assert plan.describe() == PlanSummary(steps=3, network_calls=3, calls_to_first_frame=3, peak_frames=5, frames=5)


# The staircase


@pytest.mark.parametrize("window_size", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("chunks", [1, 2, 3, 7])
def test_every_chunk_goes_through_every_level_once_in_order(chunks, window_size):
    plan = Staircase(chunks, num_steps=8, window_size=window_size, chunk_width=3)
    assert len(list(plan.steps())) == plan.total_steps
    seen = levels_of_frames(plan)
    assert sorted(seen) == list(range(3 * chunks))
    for frame, levels in seen.items():
        # ... and, all but the last ones, once more as clean.
        again = [8] if frame // 3 < chunks - 1 else []
        assert levels == [*range(8), *again]


@pytest.mark.parametrize("chunks", [1, 2, 5, 9])
def test_chunks_in_flight_are_one_stage_apart_and_at_most_window_size(chunks):
    plan = Staircase(chunks, num_steps=8, window_size=4, chunk_width=2)
    for step in plan.steps():
        levels = step.windows[0].levels[::2]
        denoised = [level for level in levels if level < 8]
        assert 1 <= len(denoised) <= 4
        assert all(older - newer == 2 for older, newer in itertools.pairwise(denoised))
        assert len(levels) - len(denoised) <= 1


@pytest.mark.parametrize("num_steps", [5, 6, 7, 50])
def test_stages_that_cannot_be_equal_differ_by_one_step(num_steps):
    for step in Staircase(6, num_steps=num_steps, window_size=4, chunk_width=1).steps():
        levels = [level for level in step.windows[0].levels if level < num_steps]
        apart = {older - newer for older, newer in itertools.pairwise(levels)}
        assert apart <= {num_steps // 4, -(-num_steps // 4)}


@pytest.mark.parametrize("prefix", [0, 1, 4, 6, 8, 12, 14])
def test_frames_become_clean_once_in_order_after_the_prefix(prefix):
    plan = Staircase(5, num_steps=8, prefix_frames=prefix)
    clean = [frame for step in plan.steps() for frame in step.clean]
    # A picture is shown again, given clips are not.
    assert clean == list(range(prefix if prefix > 1 else 0, 30))
    assert len(list(plan.steps())) == plan.total_steps


@pytest.mark.parametrize("prefix", [0, 1, 8, 13, 18])
def test_clean_chunks_enter_the_cache_once_in_order(prefix):
    plan = Staircase(6, num_steps=8, prefix_frames=prefix)
    committed = []
    for step in plan.steps():
        (window,) = step.windows
        committed += list(window.commit)
        for frame in window.commit:
            assert window.levels[frame - window.frames.start] == 8
    assert committed == list(range(5 * 6))  # the last chunk has none after it


def test_whole_chunks_of_the_prefix_are_read_once_clean_and_never_denoised():
    plan = Staircase(4, num_steps=8, prefix_frames=14)
    assert plan.whole_prefix_chunks == 2
    seen = levels_of_frames(plan)
    assert all(seen[frame] == [8] for frame in range(12))
    # The ragged rest lies in the first chunk that is made, at that chunk's own levels.
    assert seen[12] == seen[17] == [*range(8), 8]
    assert [step.clean for step in plan.steps() if len(step.clean)] == [range(14, 18), range(18, 24)]


def test_a_picture_lies_in_the_first_chunk_and_is_shown_again():
    plan = Staircase(2, num_steps=8, prefix_frames=1)
    assert plan.whole_prefix_chunks == 0
    assert [step.clean for step in plan.steps() if len(step.clean)] == [range(6), range(6, 12)]


def test_an_endless_staircase_begins_like_a_long_one():
    endless, long = Staircase(None, num_steps=8), Staircase(40, num_steps=8)
    assert endless.total_steps is None
    same = (40 - 4) * 2  # steps before the long one runs out of new chunks
    assert list(itertools.islice(endless.steps(), same)) == list(itertools.islice(long.steps(), same))
    with pytest.raises(InputError, match="endless"):
        endless.describe()


def test_steps_can_be_asked_for_again():
    plan = Staircase(3, num_steps=8)
    assert list(plan.steps()) == list(plan.steps())


def test_describe_counts_what_the_steps_do():
    # 3 chunks in 6 stages of 2 steps; the first is clean after 4 stages. The clean chunk rides along in the window.
    assert Staircase(3, num_steps=8).describe() == PlanSummary(12, 12, 8, 18, 18)
    # Four in flight and one clean.
    assert Staircase(9, num_steps=8).describe() == PlanSummary(24, 24, 8, 30, 54)
    # One call more for the whole chunk that is given, which is not counted as made.
    assert Staircase(4, num_steps=8, prefix_frames=6).describe() == PlanSummary(13, 13, 9, 18, 18)
    assert Staircase(1, num_steps=4, window_size=1).describe() == PlanSummary(4, 4, 4, 6, 6)


# Looking back


def reads(plan: Staircase, steps: int):
    """(step's window, chunk, the chunks that it sees)."""
    for step in itertools.islice(plan.steps(), steps):
        (window,) = step.windows
        first = window.frames.start // plan.chunk_width
        for i, level in enumerate(window.levels[:: plan.chunk_width]):
            yield window, first + i, plan.seen_by(first + i, level)


def missing_keys(plan: Staircase, steps: int = 100) -> str | None:
    """Play the plan with a cache that keeps just what windows ask for; tell of the first read that it cannot serve."""
    width, start, stop = plan.chunk_width, None, None
    for step in itertools.islice(plan.steps(), steps):
        (window,) = step.windows
        if start is None:
            start = stop = window.frames.start
        start = max(start, min(window.context.start, stop))  # forget
        if stop != window.frames.start:
            return f"the cache ends at frame {stop}, the window begins at {window.frames.start}"
        for i, level in enumerate(window.levels[::width]):
            chunk = window.frames.start // width + i
            seen = plan.seen_by(chunk, level)
            if seen.start * width < start or seen.stop * width > window.frames.stop:
                return f"chunk {chunk} at level {level} sees chunks {seen}, cache and window hold frames {start} on"
        if len(window.commit):
            assert window.commit.start == stop
            stop = window.commit.stop
    return None


@pytest.mark.parametrize("clean_look_back", [1, -1, 3, 7])
@pytest.mark.parametrize("look_back", LOOK_BACKS, ids=str)
def test_what_is_forgotten_is_never_needed_again(look_back, clean_look_back):
    for window_size, chunks, prefix in itertools.product((1, 2, 4), (1, 2, 3, 6, 11, None), (0, 1, 4, 6, 8, 11)):
        if chunks is not None and chunks <= prefix // 6:
            continue
        plan = Staircase(chunks, 8, window_size, 6, prefix, look_back, clean_look_back)
        assert missing_keys(plan) is None, plan


def test_several_given_chunks_are_kept_as_long_as_they_are_needed():
    for look_back, clean_look_back in itertools.product(LOOK_BACKS, (1, -1, 3, 7)):
        for window_size, chunks, prefix in itertools.product((1, 4), (4, 8, None), (12, 13, 18)):
            plan = Staircase(chunks, 8, window_size, 6, prefix, look_back, clean_look_back)
            assert missing_keys(plan) is None, plan


@pytest.mark.parametrize("look_back", [x for x in LOOK_BACKS if x], ids=str)
def test_no_more_is_kept_than_is_needed(look_back):
    """On an endless plan the context begins at the first chunk that this call or any later one reads."""
    plan = Staircase(None, 8, 4, 6, 0, look_back, 1)
    played = list(itertools.islice(plan.steps(), 60))
    starts = [
        min(plan.seen_by(chunk, level).start for chunk, level in enumerate(w.levels[::6], w.frames.start // 6))
        for w in (step.windows[0] for step in played)
    ]
    for i, step in enumerate(played[:30]):
        (window,) = step.windows
        needed = min(starts[i:])
        assert window.context.start == min(needed * 6, window.frames.start), i
        assert window.context.stop == window.frames.start


def test_look_back_shrinks_while_a_chunk_becomes_clean():
    plan = Staircase(9, num_steps=8, look_back=(5, 4, 3, 2), clean_look_back=1)
    assert [plan.look_back_at(level) for level in range(9)] == [5, 5, 4, 4, 3, 3, 2, 2, 1]
    assert plan.seen_by(7, 0) == range(3, 8)
    assert plan.seen_by(2, 0) == range(3)  # there is nothing before the beginning
    assert plan.seen_by(7, 8) == range(7, 8)


def test_a_clean_chunk_may_look_back_as_far_as_the_last_entry_says():
    assert Staircase(9, 8, look_back=(5, 3), clean_look_back=-1).look_back_at(8) == 3


def test_without_look_back_everything_is_seen():
    plan = Staircase(9, num_steps=8, look_back=())
    assert all(seen == range(chunk + 1) for _, chunk, seen in reads(plan, 100))
    assert all(step.windows[0].context.start == 0 for step in plan.steps())


# Wrong values


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WholeClip(0, 4), "num_frames must be at least 1"),
        (lambda: WholeClip(4, 0), "num_steps must be at least 1"),
        (lambda: Staircase(2, 0), "num_steps must be at least 1"),
        (lambda: Staircase(2, 8, window_size=0), "window_size must be at least 1"),
        (lambda: Staircase(2, 8, chunk_width=-6), "chunk_width must be at least 1"),
        (lambda: Staircase(2, 3), "at least 4, the chunks in flight, not 3"),
        (lambda: Staircase(0, 8), "leave nothing to make"),
        (lambda: Staircase(2, 8, prefix_frames=12), "leave nothing to make after 12 given frames"),
    ],
)
def test_wrong_values_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    "wrong", [{"look_back": (5, 0)}, {"look_back": (-1,)}, {"clean_look_back": 0}, {"prefix_frames": -1}], ids=str
)
def test_plans_that_would_show_a_chunk_nothing_are_refused(wrong):
    with pytest.raises(InputError):
        Staircase(3, 8, **wrong)
