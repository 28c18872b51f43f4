"""What all pipelines share, shown with a system without a network: a square moves, and its latents are the pixels."""

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import animagic
from animagic import InputError
from animagic.media.outputs import Chunk, VideoOutput, to_bytes
from animagic.pipelines.base import Sampling, VideoPipeline, frames_of
from animagic.timeline import OverlappingWindows, RunFolder, Staircase, WholeClip

FRAMES, SIZE, STEPS = 8, 16, 4


class SquarePipeline(VideoPipeline):
    """A white square that moves to the right, `speed` pixels a frame; every frame is pulled straight towards it."""

    sampling = Sampling(num_frames=FRAMES, height=SIZE, width=SIZE, fps=12, num_inference_steps=STEPS)
    size_unit = 4

    def denoiser(self, prompt, plan, sampling, *, speed: int = 1):
        if prompt == "break":
            raise RuntimeError("broken")

        def velocity(latents, window):
            picture = torch.full_like(latents, -1)
            for i, frame in enumerate(window.frames):
                picture[:, :, i, 4:8, speed * frame : speed * frame + 4] = 1
            left = 1 - torch.tensor(window.levels) / plan.num_steps
            return (picture - latents) / left.clamp_min(1e-6)[:, None, None]

        return velocity


class LongSquarePipeline(SquarePipeline):
    """The same, chunk after chunk."""

    def plan(self, num_frames=None, num_inference_steps=None):
        settings = self.sampling.changed(num_frames=num_frames, num_inference_steps=num_inference_steps)
        return Staircase(-(-settings.num_frames // 2), settings.num_inference_steps, 2, chunk_width=2)


class Stop(Exception):
    pass


def square(speed: int = 1, frames: int = FRAMES) -> np.ndarray:
    pixels = np.zeros((frames, SIZE, SIZE, 3), np.float32)
    for frame in range(frames):
        pixels[frame, 4:8, speed * frame : speed * frame + 4] = 1
    return pixels


def make(pipe=None, prompt="a square", **arguments):
    pipe = pipe or SquarePipeline()
    pipe.set_progress_bar_config(disable=True)
    seeded = torch.Generator().manual_seed(7)
    return pipe(prompt, **{"generator": seeded, "output_type": "np", **arguments}).frames


def close(a, b) -> None:
    np.testing.assert_allclose(a, b, atol=1e-5)


# What comes out


def test_a_system_needs_little_more_than_its_denoiser():
    out = SquarePipeline()("a square", output_type="np", return_dict=True)
    assert isinstance(out, VideoOutput)
    assert out.fps == 12
    close(out.frames[0], square())
    close(make(speed=2, num_frames=5)[0], square(2, 5))
    (frames,) = SquarePipeline()("a square", output_type="np", return_dict=False)
    close(frames[0], square())


def test_settings_of_a_call_win_over_the_models_own():
    steps = []
    frames = make(num_inference_steps=2, height=20, width=24, num_frames=3, on_progress=lambda p: steps.append(p.step))
    assert frames.shape == (1, 3, 20, 24, 3)
    assert steps == [1, 2]


def test_seeds_and_given_noise():
    def noisy(**arguments):  # after the first of many steps the noise still shows
        seen = []
        make(callback_on_step_end=lambda pipe, step, t, x: seen.append(x["latents"]), **arguments)
        return seen[0]

    assert torch.equal(noisy(), noisy())
    assert not torch.equal(noisy(), noisy(generator=None))
    torch.manual_seed(3)
    first = noisy(generator=None)
    torch.manual_seed(3)
    assert torch.equal(noisy(generator=None), first)
    assert torch.equal(noisy(num_frames=5), noisy()[:, :, :5])  # a longer clip begins like a shorter one
    given = torch.zeros(1, 3, FRAMES, SIZE, SIZE)
    assert torch.equal(noisy(latents=given), noisy(latents=given, generator=None))
    assert not given.any()


def test_several_videos():
    generators = [torch.Generator().manual_seed(i) for i in range(4)]
    four = make(prompt=["a square", "another"], num_videos_per_prompt=2, generator=generators)
    assert four.shape == (4, FRAMES, SIZE, SIZE, 3)
    assert [len(video) for video in make(num_videos_per_prompt=2, output_type="pil")] == [FRAMES] * 2


def test_a_picture_at_the_front_stays_as_it_is():
    picture = np.full((SIZE, SIZE, 3), 100, np.uint8)
    frames = make(image=picture)
    close(frames[0, 0], picture / np.float32(255))
    close(frames[0, 1:], square()[1:])


@pytest.mark.parametrize("kind", [SquarePipeline, LongSquarePipeline])
@pytest.mark.parametrize("output_type", ["pil", "np", "pt", "latent"])
def test_pieces_joined_are_the_whole(kind, output_type, monkeypatch):
    monkeypatch.setattr(SquarePipeline, "frames_decoded_together", 3)
    pieces = list(kind().stream("a square", num_frames=7, output_type=output_type))
    assert all(isinstance(piece, Chunk) and piece.fps == 12 for piece in pieces)
    if output_type == "latent":
        assert torch.cat([piece.frames for piece in pieces], dim=2).shape[2] in (7, 8)
        return
    lengths = [3, 3, 1] if kind is SquarePipeline else [2, 2, 2, 1]
    assert [(piece.start, len(piece)) for piece in pieces] == list(
        zip(np.cumsum([0, *lengths])[:-1], lengths, strict=True)
    )
    pixels = np.concatenate([to_bytes(piece.frames[0]) for piece in pieces])
    assert np.array_equal(pixels, (square(frames=7) * 255).astype(np.uint8))


def test_what_cannot_be_asked_for():
    for arguments, said in (
        ({"output_type": "gif"}, "'gif' is unknown"),
        ({"callback_on_step_end_tensor_inputs": ["latents", "image_embeds"]}, "can only be latents, not image_embeds"),
        ({"height": 18}, "16x18 is not possible: .* multiples of 4; the nearest size is 16x16"),
        ({"height": 0}, "16x0 is not possible"),
        ({"num_frames": 0}, "num_frames must be at least 1, not 0"),
        ({"num_inference_steps": 0}, "num_inference_steps must be at least 1, not 0"),
        ({"guidance_scale": 101}, "between 0 and 100, not 101"),
        ({"generator": [torch.Generator()] * 2}, "2 generators, but 1 videos"),
        ({"latents": torch.zeros(2, 3, 8, 16, 16)}, "latents of 2 videos, but 1"),
    ):
        with pytest.raises(InputError, match=said):
            make(**arguments)
    with pytest.raises(TypeError, match="no argument 'colour'; known are prompt, "):
        make(colour="red")
    with pytest.raises(TypeError, match="no argument 'num_frame'; did you mean num_frames"):
        make(num_frame=8)
    with pytest.raises(InputError, match="no autoencoder that could work in tiles"):
        SquarePipeline().enable_vae_tiling()
    SquarePipeline().disable_vae_tiling()
    with pytest.raises(InputError, match="takes no LoRA"), SquarePipeline().using_loras({"look": 1.0}):
        pass
    with SquarePipeline().using_loras({}):
        close(make()[0], square())


@pytest.mark.parametrize(
    ("pipeline", "own"),
    [
        (SquarePipeline, {"speed"}),
        (animagic.Magi1Pipeline, {"prompts_at", "negative_prompt", "prompt_embeds_mask"}),
        (animagic.Magi1ImageToVideoPipeline, {"image", "hand_over"}),
        (animagic.AnimateDiffPipeline, {"strength", "free_init", "negative_prompt", "motion_prompt"}),
    ],
)
def test_a_call_shows_its_arguments(pipeline, own):
    for method in (pipeline.__call__, pipeline.stream):
        parameters = inspect.signature(method).parameters
        assert {"prompt", "num_frames", "generator", "output_type", "resume"} | own <= set(parameters)
        assert not {"size", "num_chunks"} & set(parameters)
        assert inspect.Parameter.VAR_KEYWORD not in {parameter.kind for parameter in parameters.values()}


def test_only_the_prompt_is_positional():
    with pytest.raises(TypeError, match="positional"):
        SquarePipeline()("a square", "blue")


def test_given_frames():
    clip = np.zeros((2, 4, 4, 3), np.uint8)
    assert frames_of(None, None) is None
    assert frames_of(clip[0], None).shape == (1, 4, 4, 3)
    assert frames_of(None, list(clip)).shape == (2, 4, 4, 3)
    with pytest.raises(InputError, match="not both"):
        frames_of(clip[0], clip)
    with pytest.raises(InputError, match="no frames"):
        frames_of(None, [])


# Settings and plans without weights


def test_the_plan_is_that_of_a_call():
    steps = []
    pipe = LongSquarePipeline()
    make(pipe, num_frames=12, num_inference_steps=6, on_progress=lambda progress: steps.append(progress.plan_step))
    assert list(pipe.plan(12, 6).steps()) == steps
    assert SquarePipeline().plan(num_frames=3) == WholeClip(3, STEPS)
    assert Sampling.from_config({"num_frames": 3}).plan_for(num_inference_steps=2) == WholeClip(3, 2)
    with pytest.raises(TypeError):
        SquarePipeline().plan(colour="red")


@pytest.mark.parametrize("name", ["magi1-tiny", "animatediff-tiny"])
def test_every_system_has_the_shared_settings(name):
    import animagic

    pipe = animagic.load(name)
    sampling, config = pipe.sampling, pipe.config["config"]
    assert type(sampling).from_config(config) == sampling
    for setting in ("fps", "num_frames", "height", "width", "num_inference_steps"):
        assert getattr(sampling, setting) > 0
    assert sampling.frames_per_latent == {"magi1-tiny": 4, "animatediff-tiny": 1}[name]
    pipe.check_size(sampling.height, sampling.width)
    plan = sampling.plan_for(num_frames=24, num_inference_steps=8)
    assert plan == pipe.plan(num_frames=24, num_inference_steps=8)
    pipe.enable_vae_tiling()
    assert pipe.vae.use_tiling
    pipe.disable_vae_tiling()
    assert not pipe.vae.use_tiling


# Progress, previews, callbacks


def bars(pipe) -> list:
    made = []

    def progress_bar(total):
        bar = SimpleNamespace(n=0, total=total, closed=False)
        bar.update = lambda steps: setattr(bar, "n", bar.n + steps)
        bar.close = lambda: setattr(bar, "closed", True)
        made.append(bar)
        return bar

    pipe.progress_bar = progress_bar
    return made


def test_the_bar_follows_and_so_does_the_caller():
    pipe, seen = SquarePipeline(), []
    made = bars(pipe)
    make(pipe, on_progress=lambda progress: seen.append(progress.step))
    assert [(bar.n, bar.total, bar.closed) for bar in made] == [(STEPS, STEPS, True)]
    assert seen == list(range(1, STEPS + 1))


def test_a_bar_is_closed_when_the_caller_breaks_it_off():
    pipe = SquarePipeline()
    made = bars(pipe)

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(pipe, on_progress=stop)
    assert made[0].closed
    with pytest.raises(RuntimeError, match="broken"):
        make(pipe, "break")
    assert len(made) == 1  # without a step there is none


def test_a_callback_sees_every_step_and_may_change_it():
    pipe, seen = SquarePipeline(), []

    def look(whose, step, timestep, tensors):
        seen.append((step, float(timestep), tensors["latents"].shape[2]))
        assert whose is pipe
        assert tensors.keys() == {"latents"}
        return {}

    assert np.array_equal(make(pipe, callback_on_step_end=look), make())
    assert seen == [(i, 1000 * i / STEPS, FRAMES) for i in range(STEPS)]
    grey = make(callback_on_step_end=lambda p, i, t, tensors: {"latents": torch.zeros_like(tensors["latents"])})
    assert (grey == 0.5).all()


def test_a_preview_is_made_only_when_it_is_asked_for(monkeypatch):
    decoded, shown = [], []
    decode = SquarePipeline.to_video
    monkeypatch.setattr(SquarePipeline, "to_video", lambda self, x: decoded.append(x) or decode(self, x))
    make(num_videos_per_prompt=2, on_preview=lambda preview: shown.append(preview()) if not shown else None)
    assert len(decoded) == 2  # one preview, and the result
    assert (shown[0].shape, shown[0].dtype) == ((FRAMES, SIZE, SIZE, 3), np.uint8)


# Interruption, and runs that are kept


@pytest.mark.parametrize("stop_at", range(STEPS))
def test_an_interruption_ends_the_run_after_the_step(stop_at):
    pipe, steps = SquarePipeline(), []

    def stop(whose, step, *_):
        steps.append(step)
        whose.interrupt = step == stop_at

    frames = make(pipe, callback_on_step_end=stop)
    assert steps == list(range(stop_at + 1))
    assert len(frames) == (stop_at == STEPS - 1)  # what is final is handed out
    close(make(pipe)[0], square())  # the next run is not interrupted


def kept(folder, kind=LongSquarePipeline, every: float = 0.0, stop_after: int | None = None):
    """A run that is kept in a folder, broken off after a step; and the steps that it made."""
    steps = []

    def on_progress(progress):
        steps.append(progress.step)
        if progress.step == stop_after:
            raise Stop

    return make(kind(), resume=RunFolder(folder, {}, every=every), on_progress=on_progress), steps


@pytest.mark.parametrize("kind", [SquarePipeline, LongSquarePipeline])
def test_a_run_goes_on_from_any_step(tmp_path, kind):
    whole = make(kind())
    for stop_after in range(1, kind().plan().total_steps + 1):
        folder = tmp_path / str(stop_after)
        with pytest.raises(Stop):
            kept(folder, kind, stop_after=stop_after)
        frames, steps = kept(folder, kind)
        assert np.array_equal(frames, whole)
        assert steps[0] >= stop_after
        again, steps = kept(folder, kind)
        assert np.array_equal(again, whole)
        assert steps == []  # it is all there


def test_a_run_is_saved_as_often_as_was_asked(tmp_path):
    with pytest.raises(Stop):
        kept(tmp_path, SquarePipeline, every=1000, stop_after=3)
    assert not (tmp_path / "state.safetensors").exists()


# Windows over devices


class Threads:
    """Runs the windows of a step at the same time, the last one first."""

    def __init__(self):
        self.counts, self.threads = [], set()

    def __call__(self, function, items):
        def noted(item):
            self.threads.add(threading.get_ident())
            return function(item)

        self.counts.append(len(items))
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(noted, items[::-1]))[::-1]


@pytest.mark.parametrize("name", ["magi1-tiny", "animatediff-tiny"])
def test_windows_may_run_anywhere(name):
    import animagic

    arguments = {"magi1-tiny": {"num_frames": 48}, "animatediff-tiny": {"num_frames": 28}}[name]
    arguments |= {"height": 64, "width": 64, "num_inference_steps": 4}
    pipe = animagic.load(name)
    plain = make(pipe, **arguments)
    pipe.parallel_map = Threads()
    assert np.array_equal(make(pipe, **arguments), plain)
    plan = pipe.plan(num_frames=arguments["num_frames"], num_inference_steps=4)
    assert pipe.parallel_map.counts == [len(step.windows) for step in plan.steps()]
    assert threading.get_ident() not in pipe.parallel_map.threads
    if name == "animatediff-tiny":
        assert isinstance(plan, OverlappingWindows)
        assert max(pipe.parallel_map.counts) > 1
