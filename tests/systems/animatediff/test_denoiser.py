"""The settings of a call, and the UNet as the engine's denoiser."""

from types import SimpleNamespace

import pytest
import torch

from animagic import InputError
from animagic.systems.animatediff.denoiser import AnimateDiffDenoiser, AnimateDiffSampling
from animagic.systems.animatediff.prompts import PromptEmbeds
from animagic.timeline import OverlappingWindows, SchedulerSolver, WholeClip, Window, build_scheduler

STEPS = 4

# Settings


def test_what_is_given_wins_over_the_models_own():
    settings = AnimateDiffSampling.from_config({"num_frames": 8, "fps": 12})
    assert (settings.num_frames, settings.fps, settings.num_inference_steps) == (8, 12, 25)
    changed = settings.changed(num_frames=None, num_inference_steps=3, guidance_scale=0)
    assert (changed.num_frames, changed.num_inference_steps, changed.guidance_scale) == (8, 3, 0)
    assert AnimateDiffSampling.from_config(None) == AnimateDiffSampling()


def test_an_unknown_setting_is_named():
    with pytest.raises(InputError, match=r"'frames' is unknown; known are context_frames, .*, num_frames"):
        AnimateDiffSampling.from_config({"frames": 8})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_frames": 0}, "num_frames must be at least 1, not 0"),
        ({"num_inference_steps": -1}, "num_inference_steps must be at least 1, not -1"),
        ({"context_frames": 0}, "context_frames must be at least 1, not 0"),
        ({"guidance_scale": -1}, "between 0 and 100, not -1"),
        ({"guidance_scale": float("nan")}, "between 0 and 100, not nan"),
        ({"guidance_scale": 101}, "between 0 and 100, not 101"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_is_refused(values, said):
    with pytest.raises(InputError, match=said):
        AnimateDiffSampling().changed(**values)


def test_a_clip_that_fits_is_whole_and_others_have_windows():
    settings = AnimateDiffSampling(num_frames=16, context_frames=16, context_overlap=4)
    assert settings.plan(STEPS) == WholeClip(16, STEPS)
    long = AnimateDiffSampling(num_frames=17, context_frames=16, context_overlap=4)
    assert long.plan(STEPS) == OverlappingWindows(17, STEPS, size=16, overlap=4)
    loop = settings.plan(STEPS, closed_loop=True, context_stride=2, context_weights="flat")
    assert loop == OverlappingWindows(16, STEPS, 16, 4, stride=2, closed_loop=True, weights="flat")
    with pytest.raises(InputError, match="choose pyramid, flat or"):
        long.plan(STEPS, context_weights="round")


def test_an_overlap_that_leaves_no_window_is_refused():
    settings = AnimateDiffSampling(num_frames=9, context_frames=3, context_overlap=4)
    with pytest.raises(InputError, match="overlap must be 0 to 2"):
        settings.plan(STEPS)


def test_windows_that_share_all_their_frames_are_refused():
    with pytest.raises(InputError, match="overlap"):
        AnimateDiffSampling(num_frames=9, context_frames=3, context_overlap=3).plan(STEPS)


# The denoiser


class Spy:
    """Says the mean of the text it is given; notes what it is called with."""

    dtype = torch.float32

    def __init__(self, told: int | None = None):
        self.config = SimpleNamespace(time_cond_proj_dim=told)
        self.calls: list[dict] = []

    def __call__(self, sample, timestep, encoder_hidden_states, **named):
        self.calls.append({"sample": sample, "timestep": timestep, "text": encoder_hidden_states, **named})
        text = encoder_hidden_states.mean((1, 2))
        return SimpleNamespace(sample=torch.ones_like(sample) * text[:, None, None, None, None])


def prompts(frames: int = 1) -> PromptEmbeds:
    return PromptEmbeds(
        prompted=torch.full((2, frames, 3, 4), 5.0),
        unprompted=torch.full((2, 1, 3, 4), 1.0),
        motion=torch.zeros(2, 3, 4),
        unmoved=torch.zeros(2, 3, 4),
    )


WINDOW = Window(range(2, 6), (0,) * 4)
LATENTS = torch.ones(2, 4, 4, 2, 2)


def solver(name: str = "ddim") -> SchedulerSolver:
    return SchedulerSolver(build_scheduler(name), STEPS, torch.Generator())


def test_guidance_leads_away_from_the_unprompted_half():
    unet = Spy()
    made = AnimateDiffDenoiser(unet, solver(), prompts(), 3.0).guided()(LATENTS, WINDOW)
    assert torch.equal(made, torch.full_like(LATENTS, 1 + 3 * (5 - 1)))
    (call,) = unet.calls
    assert len(call["sample"]) == 4
    assert call["text"][:, 0, 0].tolist() == [1, 1, 5, 5]
    assert call["timestep"] == solver().timesteps[0]


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_without_guidance_there_is_no_unprompted_half(scale):
    unet = Spy()
    made = AnimateDiffDenoiser(unet, solver(), prompts(), scale).guided()(LATENTS, WINDOW)
    assert torch.equal(made, torch.full_like(LATENTS, 5))
    assert len(unet.calls[0]["sample"]) == 2


def test_a_model_that_is_told_the_scale_needs_no_unprompted_half():
    unet = Spy(told=6)
    AnimateDiffDenoiser(unet, solver("lcm"), prompts(), 8.0).guided()(LATENTS, WINDOW)
    AnimateDiffDenoiser(unet, solver("lcm"), prompts(), 2.0).guided()(LATENTS, WINDOW)
    high, low = (call["timestep_cond"] for call in unet.calls)
    assert high.shape == (2, 6)
    assert len(unet.calls[0]["sample"]) == 2
    assert not torch.equal(high, low)


def test_the_scheduler_scales_what_the_network_reads():
    unet, euler = Spy(), solver("euler")
    AnimateDiffDenoiser(unet, euler, prompts(), 1.0).guided()(LATENTS, WINDOW)
    torch.testing.assert_close(unet.calls[0]["sample"], euler.model_input(LATENTS, 0))
    assert unet.calls[0]["sample"].max() < 1


def test_a_controlnet_is_asked_with_what_the_network_is_given():
    unet, asked = Spy(), []

    def residuals(sample, timestep, text, frames, steps):
        asked.append((sample.shape, float(timestep), text.shape, frames, steps))
        return {"mid_block_additional_residual": "r"}

    AnimateDiffDenoiser(unet, solver(), prompts(), 3.0, [residuals], use_motion=False).guided()(LATENTS, WINDOW)
    assert asked == [((4, 4, 4, 2, 2), float(solver().timesteps[0]), (4, 3, 4), [2, 3, 4, 5], (0.0, 1 / STEPS))]
    assert unet.calls[0]["mid_block_additional_residual"] == "r"
    assert unet.calls[0]["use_motion"] is False


def test_half_precision_stays_inside_the_network():
    unet = Spy()
    unet.dtype = torch.bfloat16
    made = AnimateDiffDenoiser(unet, solver(), prompts(), 3.0).guided()(LATENTS, WINDOW)
    assert unet.calls[0]["sample"].dtype == torch.bfloat16
    assert made.dtype == torch.float32
