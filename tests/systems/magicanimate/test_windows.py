"""Long videos of MagicAnimate: in windows that cover every frame, with nothing computed twice and nothing kept."""

import pytest
import torch
from models import given, tiny_pipeline

from animagic.pipelines.base import Call
from animagic.systems.magicanimate.denoiser import MagicAnimateDenoiser, returning_frames
from animagic.timeline.windows import uniform_windows


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


def make(pipe, frames: int, **settings) -> torch.Tensor:
    return pipe(
        generator=torch.Generator().manual_seed(1), **{"output_type": "latent", **given(frames), **settings}
    ).frames


@pytest.mark.parametrize("windows", ["published", "moving"])
@pytest.mark.parametrize("frames", [8, 16, 64, 200])
def test_videos_of_any_length(pipe, frames, windows):
    made = make(pipe, frames, windows=windows, num_inference_steps=1)
    assert made.shape == (1, 4, frames, 4, 4)
    assert torch.isfinite(made).all()
    for step in pipe.plan(frames, 3, windows=windows).steps():
        assert {frame for window in step.windows for frame in window.frames} == set(range(frames))


@pytest.mark.parametrize("frames", [9, 16, 20, 64, 200])
def test_published_windows_lie_as_published(pipe, frames):
    for step in pipe.plan(frames, 2, windows="published").steps():
        assert [list(w.frames) for w in step.windows] == uniform_windows(frames, 8, 1, 2)
        assert all(not w.weights for w in step.windows)


@pytest.mark.parametrize("windows", ["published", "moving"])
def test_the_controlnet_sees_every_frame_once_a_step(pipe, windows):
    seen = []
    hook = pipe.controlnet.register_forward_pre_hook(lambda network, given: seen.append(len(given[0])))
    try:
        make(pipe, 40, windows=windows, num_inference_steps=3)
    finally:
        hook.remove()
    assert sum(seen) == 3 * 40


def test_what_the_windows_share_changes_no_number(pipe, monkeypatch):
    shared = make(pipe, 20)
    predict = MagicAnimateDenoiser._predict

    def forgetful(self, *arguments, **named):
        self._seen = self._steered = None
        return predict(self, *arguments, **named)

    monkeypatch.setattr(MagicAnimateDenoiser, "_predict", forgetful)
    torch.testing.assert_close(make(pipe, 20), shared, atol=1e-5, rtol=1e-5)


def test_windows_in_any_order_give_the_same_numbers(pipe, monkeypatch):
    forward = make(pipe, 20)
    monkeypatch.setattr(pipe, "parallel_map", lambda f, items: [f(item) for item in items[::-1]][::-1])
    torch.testing.assert_close(make(pipe, 20), forward, atol=1e-5, rtol=1e-5)


def test_frames_that_return_are_those_round_the_end(pipe):
    plan = pipe.plan(20, 2, windows="published")
    first, *_, last = (set(w.frames) for w in next(iter(plan.steps())).windows)
    assert returning_frames(plan, 0) == first & last != set()
    assert not returning_frames(pipe.plan(40, 2, windows="moving"), 0)
    assert not returning_frames(pipe.plan(8, 2), 0)


def test_residuals_are_kept_of_two_windows_at_most(pipe, monkeypatch):
    held = []
    residuals = MagicAnimateDenoiser._residuals

    def watched(self, *arguments):
        made = residuals(self, *arguments)
        held.append(len(self._steered[2]))
        return made

    monkeypatch.setattr(MagicAnimateDenoiser, "_residuals", watched)
    make(pipe, 100, num_inference_steps=1)
    assert len(held) == len(uniform_windows(100, 8, 1, 2))
    assert max(held) <= 2 * 8


def test_frames_a_window_apart_begin_from_the_same_noise(pipe):
    def noise(repeat_noise: bool) -> torch.Tensor:
        call = Call(generator=torch.Generator().manual_seed(1))
        return pipe.prepare(call, **given(16), repeat_noise=repeat_noise).timeline.state(range(16))

    assert torch.equal(noise(True)[:, :, :8], noise(True)[:, :, 8:])
    assert not torch.equal(noise(False)[:, :, :8], noise(False)[:, :, 8:])
