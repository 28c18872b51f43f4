"""Guidance: wrappers that ask the network more than once and mix the answers."""

import pytest
import torch

from animagic.errors import InputError
from animagic.timeline import ChunkGuidance, NestedGuidance, TextGuidance, Window, flow_levels

# The published scales of MAGI-1, and others in which no factor is zero and every pair differs.
PUBLISHED = ((0.0, 0.0217, 0.1, 0.3, 0.999), (1.5, 1.5, 1.5, 1.0, 1.0), (7.5, 7.5, 7.5, 0.0, 0.0))
UNEVEN = ((0.0, 0.05, 0.3), (1.5, 0.7, 2.0), (4.0, 3.0, 0.5))
WIDTH = 2


class Recorder:
    """A network whose answer tells its branch and its latents apart; it remembers how it was called."""

    def __init__(self):
        self.calls: list[tuple[dict, Window, int]] = []

    def __call__(self, latents, window, *, text=True, history=True, commit=True):
        self.calls.append(({"text": text, "history": history, "commit": commit}, window, latents.shape[2]))
        assert len(window.levels) == latents.shape[2]
        return self.velocity(latents, window.levels, text, history)

    @staticmethod
    def velocity(latents, levels, text: bool, history: bool):
        level = torch.tensor(levels, dtype=latents.dtype)[:, None, None]
        return torch.sin(latents * (1 + 2 * text)) + 0.1 * level + (0.5 * latents if history else 0)

    def branches(self) -> list[tuple[bool, bool]]:
        return [(call["text"], call["history"]) for call, _, _ in self.calls]

    def commits(self) -> int:
        """How often the cache is written to."""
        return sum(call["commit"] and call["history"] and len(window.commit) > 0 for call, window, _ in self.calls)


def window_at(*chunk_levels: int, commit: range = range(0)) -> tuple[torch.Tensor, Window]:
    levels = tuple(level for level in chunk_levels for _ in range(WIDTH))
    frames = range(4, 4 + len(levels))
    latents = torch.randn(2, 3, len(levels), 2, 2, generator=torch.Generator().manual_seed(0))
    return latents, Window(frames, levels, context=range(4), commit=commit)


def plain(latents, window, times, ranges, history_scales, text_scales):
    """The three-branch formula, frame after frame, with nothing left out."""
    frames = []
    for i, level in enumerate(window.levels):
        t = times[level].item()
        index = max(j for j, start in enumerate(ranges) if start <= t + 1e-7)
        p, s = history_scales[index], text_scales[index]
        x = latents[:, :, [i]]
        none, history, both = (
            Recorder.velocity(x, [level], text, seen) for text, seen in ((False, False), (False, True), (True, True))
        )
        frames.append((1 - p) * none + (p - s) * history + s * both)
    return torch.cat(frames, dim=2)


# By text


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0, 7.5])
def test_text_guidance_is_the_classifier_free_formula(scale):
    class Pair:
        """Both halves at once, as networks compute them."""

        calls = 0

        def pair(self, latents, window):
            self.calls += 1
            return tuple(Recorder.velocity(latents, window.levels, text, True) for text in (False, True))

    network, (latents, window) = Pair(), window_at(3, 1)
    unprompted, prompted = Pair().pair(latents, window)
    guided = TextGuidance(network, scale)(latents, window)
    torch.testing.assert_close(guided, unprompted + scale * (prompted - unprompted))
    assert network.calls == 1


# By the chunks before


@pytest.mark.parametrize("scales", [PUBLISHED, UNEVEN], ids=["published", "uneven"])
@pytest.mark.parametrize("levels", [(0,), (5,), (7,), (2, 0), (6, 4, 2, 0), (7, 5, 3, 1)], ids=str)
def test_chunk_guidance_is_the_three_branch_formula(levels, scales):
    times = flow_levels(8)
    network, (latents, window) = Recorder(), window_at(*levels)
    guided = ChunkGuidance(network, times, *scales)(latents, window)
    torch.testing.assert_close(guided, plain(latents, window, times, *scales), atol=1e-5, rtol=1e-5)


def test_scales_change_where_a_range_begins():
    """At three quarters of the steps t is 0.3 up to rounding: that counts as above 0.3, so there is no text."""
    times = flow_levels(8)
    assert abs(times[6].item() - 0.3) < 1e-6
    network, (latents, window) = Recorder(), window_at(6)
    ChunkGuidance(network, times, *PUBLISHED)(latents, window)
    assert network.branches() == [(False, True)]


def test_branches_whose_factor_is_zero_are_not_run():
    times = flow_levels(8)

    def branches(*levels, scales=PUBLISHED, commit=range(0)):
        network, (latents, window) = Recorder(), window_at(*levels, commit=commit)
        ChunkGuidance(network, times, *scales)(latents, window)
        return network.branches()

    text, history, alone = (True, True), (False, True), (False, False)
    assert branches(7) == [history]
    assert branches(0) == [text, history, alone]
    only_text = ((0.0,), (1.0,), (1.0,))
    assert branches(3, scales=only_text) == [text]
    assert branches(3, scales=((0.0,), (1.0,), (4.0,))) == [text, history]
    assert branches(3, scales=((0.0,), (0.0,), (0.0,))) == [alone]
    # ... but the cache must be filled, and the history branch is what fills it.
    assert branches(8, 3, scales=only_text, commit=range(4, 6)) == [text, history]


def test_the_alone_branch_gets_only_the_chunks_that_need_it():
    network, (latents, window) = Recorder(), window_at(8, 7, 2, 0, commit=range(4, 6))
    ChunkGuidance(network, flow_levels(8), *PUBLISHED)(latents, window)
    (call,) = [call for call in network.calls if not call[0]["history"]]
    flags, part, frames = call
    assert flags == {"text": False, "history": False, "commit": False}
    assert part.levels == (2, 2, 0, 0)
    assert frames == 4
    assert len(part.commit) == len(part.context) == 0


def test_clean_chunks_do_not_disturb_the_others():
    times = flow_levels(8)
    latents, window = window_at(8, 6, 4, 2, 0, commit=range(4, 6))
    guided = ChunkGuidance(Recorder(), times, *UNEVEN)(latents, window)
    expected = plain(latents, window, times, *UNEVEN)
    torch.testing.assert_close(guided[:, :, WIDTH:], expected[:, :, WIDTH:], atol=1e-5, rtol=1e-5)
    assert guided.isfinite().all()


@pytest.mark.parametrize("levels", [(8,), (8, 0), (8, 6, 4, 2, 0), (8, 7)], ids=str)
def test_the_cache_is_written_once_by_the_history_branch_and_after_the_text_branch(levels):
    network, (latents, window) = Recorder(), window_at(*levels, commit=range(4, 6))
    ChunkGuidance(network, flow_levels(8), *PUBLISHED)(latents, window)
    assert network.commits() == 1
    writing = [call["commit"] and call["history"] for call, _, _ in network.calls]
    branch = network.branches()[writing.index(True)]
    assert branch == (False, True)
    if (True, True) in network.branches():
        assert network.branches().index((True, True)) < writing.index(True)


def test_guidance_keeps_the_dtype_of_the_latents():
    latents, window = window_at(2, 0)
    assert ChunkGuidance(Recorder(), flow_levels(8), *UNEVEN)(latents.half(), window).dtype == torch.float16


# By conditions in an order


class Nested:
    """A network of three conditions; it remembers which branches were asked for."""

    def __init__(self):
        self.asked: list[list[int]] = []

    def branches(self, latents, window, counts):
        self.asked.append(list(counts))
        return [self.velocity(latents, count) for count in counts]

    @staticmethod
    def velocity(latents, count: int):
        return torch.sin(latents * (1 + count)) + 0.5 * count


def nested(scales, levels=(3, 3, 3), **settings):
    network, (latents, window) = Nested(), window_at(*levels)
    return NestedGuidance(network, scales, **settings)(latents, window), network.asked, latents


@pytest.mark.parametrize("scales", [(2.0, 3.0, 4.0), (1.0, 1.0, 2.5), (1.5,), (0.0, 2.0, 0.0), (-1.0, 1.0)], ids=str)
def test_nested_guidance_adds_one_condition_after_the_other(scales):
    guided, asked, latents = nested(scales)
    branches = [Nested.velocity(latents, count) for count in range(len(scales) + 1)]
    expected = branches[0]
    for scale, before, after in zip(scales, branches[:-1], branches[1:], strict=True):
        expected = expected + scale * (after - before)
    torch.testing.assert_close(guided, expected, atol=1e-5, rtol=1e-5)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("scales", "needed"),
    [
        ((1, 1, 1), [3]),
        ((0, 0, 0), [0]),
        ((1, 1, 0), [2]),
        ((1, 1, 3), [2, 3]),
        ((2, 2, 2), [0, 3]),
        ((1, 2, 2), [1, 3]),
        ((2, 3, 4), [0, 1, 2, 3]),
    ],
)
def test_nested_guidance_runs_only_what_counts_and_that_at_once(scales, needed):
    assert nested(scales)[1] == [needed]


def test_one_branch_of_weight_one_is_what_the_network_says():
    guided, _, latents = nested((1, 1, 1))
    assert torch.equal(guided, Nested.velocity(latents, 3))


def test_outside_the_interval_a_frame_has_all_conditions_and_no_guidance():
    times, scales = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]), (2.0, 3.0, 4.0)
    guided, asked, latents = nested(scales, (4, 3, 2, 1, 0), times=times, interval=(0.25, 0.75))
    inside = nested(scales, (4, 3, 2, 1, 0))[0]
    plain = Nested.velocity(latents, 3)
    for chunk, within in enumerate((False, False, True, True, False)):
        rows = slice(chunk * WIDTH, (chunk + 1) * WIDTH)
        torch.testing.assert_close(guided[:, :, rows], (inside if within else plain)[:, :, rows])
    assert asked == [[0, 1, 2, 3]]
    # Where no frame is guided, one branch is run.
    assert nested(scales, (3, 0), times=times, interval=(0.25, 0.75))[1] == [[3]]


@pytest.mark.parametrize("settings", [{"interval": (0.1, 0.9)}, {"interval": (0.5, 0.5), "times": torch.ones(3)}])
def test_an_interval_that_cannot_be_is_refused(settings):
    with pytest.raises(InputError, match="needs a schedule, and a first time below the last"):
        NestedGuidance(Nested(), (1, 1), **settings)


def test_nested_guidance_keeps_the_dtype_and_the_state_inside():
    class Cached(Nested):
        def state_dict(self):
            return {"kept": torch.ones(2)}

    latents, window = window_at(2, 0)
    guidance = NestedGuidance(Cached(), (2, 3))
    assert guidance(latents.half(), window).dtype == torch.float16
    assert guidance.state_dict().keys() == {"kept"}
