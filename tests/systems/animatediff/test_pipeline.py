"""AnimateDiff's pipeline as others call it: diffusers' ways, every input, every form of output, runs that go on."""

import inspect
import itertools
import json

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

import animagic
from animagic import AnimateDiffPipeline, InputError
from animagic.media import probe, read_metadata, resize
from animagic.media.outputs import to_bytes
from animagic.systems.animatediff.prompts import PromptEmbeds
from animagic.timeline import FreeInit, OverlappingWindows, RunFolder, WholeClip, build_scheduler

PROMPT, OTHER = "a red ball bounces", "the blue cat falls"
FRAMES, SIZE, STEPS = 8, 32, 3  # of the random model, whose latents are 8x8


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed))


@pytest.fixture(scope="module")
def pipe(animatediff_model) -> AnimateDiffPipeline:
    """The random model; shared, so leave it as it is."""
    pipe = AnimateDiffPipeline.from_pretrained(animatediff_model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def make(pipe):
    """Runs the random model with seed 7; latents unless asked otherwise."""

    def make(prompt=PROMPT, seed: int = 7, **arguments):
        return pipe(prompt, **{"generator": seeded(seed), "output_type": "latent", **arguments}).frames

    return make


@pytest.fixture
def rows(pipe):
    """Notes how many rows and frames each call of the UNet has."""
    seen: list[tuple[int, int]] = []
    hook = pipe.unet.register_forward_pre_hook(lambda unet, given: seen.append((len(given[0]), given[0].shape[2])))
    yield seen
    hook.remove()


def close(a, b, tolerance: float = 1e-4) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=tolerance, rtol=tolerance)


def same(a, b) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


def different(a, b) -> bool:
    return float(np.abs(np.asarray(a) - np.asarray(b)).mean()) > 1e-3


# Files


def test_saved_and_loaded_it_makes_the_same_frames(pipe, make, tmp_path):
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "AnimateDiffPipeline"
    assert index["unet"] == ["animagic", "AnimateDiffUNet"]
    assert index["config"]["num_frames"] == FRAMES
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".ckpt")]

    loaded = AnimateDiffPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert isinstance(loaded, DiffusionPipeline)
    assert loaded.sampling == pipe.sampling
    assert same(loaded(PROMPT, generator=seeded(), output_type="latent").frames, make())


def test_loading_by_name_chooses_the_pipeline(animatediff_model):
    assert type(animagic.load(animatediff_model)) is AnimateDiffPipeline


def test_parts_can_be_shared_between_pipelines(pipe, make):
    other = AnimateDiffPipeline(**pipe.components, config=pipe.config["config"])
    other.set_progress_bar_config(disable=True)
    assert other.unet is pipe.unet
    assert same(other(PROMPT, generator=seeded(), output_type="latent").frames, make())


def test_without_a_configuration_it_is_as_published(animatediff_parts):
    pipe = AnimateDiffPipeline(animatediff_parts()["unet"])
    assert (pipe.sampling.num_frames, pipe.sampling.height, pipe.sampling.guidance_scale) == (16, 64, 7.5)  # 8 latents
    config = pipe.scheduler.config
    assert type(pipe.scheduler).__name__ == "DDIMScheduler"
    assert (config.beta_schedule, config.beta_start, config.beta_end) == ("linear", 0.00085, 0.012)
    with pytest.raises(InputError, match="'frames' is unknown"):
        AnimateDiffPipeline(animatediff_parts()["unet"], config={"frames": 3})


# What comes out


def test_output_types_agree(pipe, make):
    array, tensor, pictures = make(output_type="np"), make(output_type="pt"), make(output_type="pil")
    assert (array.shape, array.dtype) == ((1, FRAMES, SIZE, SIZE, 3), np.float32)
    assert array.min() >= 0
    assert array.max() <= 1
    assert tensor.shape == (1, FRAMES, 3, SIZE, SIZE)
    assert same(tensor.permute(0, 1, 3, 4, 2), array)
    assert [type(picture) for picture in pictures[0]] == [Image.Image] * FRAMES
    assert same(np.stack(pictures[0]), to_bytes(array[0]))

    latents = make()
    assert latents.shape == (1, 4, FRAMES, SIZE // 4, SIZE // 4)
    flat = latents.transpose(1, 2).flatten(0, 1) / pipe.vae.config.scaling_factor
    with torch.no_grad():
        decoded = (pipe.vae.decode(flat).sample / 2 + 0.5).clamp(0, 1)
    close(decoded, tensor[0], 1e-5)


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8, 9, 11, 19])
def test_as_many_frames_as_were_asked_for(make, rows, frames):
    assert make(num_frames=frames, num_inference_steps=2).shape[2] == frames
    assert max(count for _, count in rows) == min(frames, FRAMES)


def test_the_size_of_the_model_or_another(make):
    assert make(height=20, width=44, output_type="pt", num_frames=2).shape == (1, 2, 3, 20, 44)
    assert make(height=4, width=4, num_frames=2).shape == (1, 4, 2, 1, 1)


def test_frames_are_decoded_a_few_at_a_time(make, pipe, monkeypatch):
    whole = make(num_frames=7, output_type="np")
    monkeypatch.setattr(AnimateDiffPipeline, "frames_decoded_together", 3)
    decoded = []
    decode = pipe.vae.decode
    monkeypatch.setattr(pipe.vae, "decode", lambda z, **named: decoded.append(len(z)) or decode(z, **named))
    close(make(num_frames=7, output_type="np"), whole, 1e-6)
    assert decoded == [3, 3, 1]


def test_saving_the_result(pipe, tmp_path):
    out = pipe(PROMPT, generator=seeded(), output_type="np", num_frames=3)
    assert out.fps == 8
    assert out.save(tmp_path / "ball.mp4", metadata={"a": 1}) == tmp_path / "ball.mp4"
    facts = probe(tmp_path / "ball.mp4")
    assert (facts["frames"], facts["width"], facts["height"], facts["fps"]) == (3, SIZE, SIZE, 8)
    assert read_metadata(tmp_path / "ball.mp4") == {"a": 1}


@pytest.mark.parametrize("output_type", ["pil", "np", "pt", "latent"])
def test_pieces_joined_are_the_whole(pipe, make, output_type, monkeypatch):
    monkeypatch.setattr(AnimateDiffPipeline, "frames_decoded_together", 4)
    whole = make(output_type=output_type, num_frames=10, num_videos_per_prompt=2)
    options = {"num_frames": 10, "num_videos_per_prompt": 2, "generator": seeded(), "output_type": output_type}
    pieces = list(pipe.stream(PROMPT, **options))
    assert {piece.fps for piece in pieces} == {8}
    if output_type == "latent":
        assert same(torch.cat([piece.frames for piece in pieces], dim=2), whole)
        return
    assert [(piece.start, len(piece)) for piece in pieces] == [(0, 4), (4, 4), (8, 2)]
    for video in range(2):
        joined = np.concatenate([np.stack([np.asarray(f) for f in piece.frames[video]]) for piece in pieces])
        assert same(joined, np.stack([np.asarray(frame) for frame in whole[video]]))


def test_progress_and_previews(make):
    seen, shown = [], []
    make(on_progress=seen.append, on_preview=lambda decode: shown.append(decode()))
    assert [(p.step, p.total_steps) for p in seen] == [(1, 3), (2, 3), (3, 3)]
    assert [p.clean_frames for p in seen] == [0, 0, FRAMES]
    assert seen[-1].seconds_left == 0
    assert {(preview.shape, preview.dtype.name) for preview in shown} == {((FRAMES, SIZE, SIZE, 3), "uint8")}
    assert len(shown) == 3
    assert same(shown[-1], to_bytes(make(output_type="np")[0]))


def test_progress_counts_all_rounds(make):
    seen, steps = [], []
    make(
        free_init=FreeInit(3, fast=True),
        on_progress=seen.append,
        callback_on_step_end=lambda pipe, step, *_: steps.append(step) or {},
    )
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6]  # rounds of 1, 2 and 3 steps
    assert {p.total_steps for p in seen} == {6}
    assert steps == list(range(6))


# What decides the frames


def test_seeds(make):
    assert same(make(), make())
    assert different(make(), make(seed=8))
    assert different(make(generator=None), make(generator=None))
    torch.manual_seed(5)
    first = make(generator=None)
    torch.manual_seed(5)
    assert same(make(generator=None), first)


@pytest.mark.integration
def test_what_changes_the_frames(make):
    plain = make()
    for arguments in (
        {"prompt": OTHER},
        {"negative_prompt": OTHER},
        {"motion_prompt": OTHER},
        {"negative_motion_prompt": OTHER},
        {"guidance_scale": 1.0},
        {"num_inference_steps": 4},
        {"clip_skip": 1},
        {"shared_noise": True, "num_frames": 12},
        {"free_init": FreeInit(2)},
        {"use_motion": False},
        {"closed_loop": True},
    ):
        assert different(make(**arguments)[:, :, :FRAMES], plain), arguments
    assert same(make(negative_prompt=""), plain)
    assert same(make(negative_motion_prompt=""), plain)
    assert same(make(clip_skip=0), plain)
    assert same(make(motion_prompt=PROMPT), plain)  # without one, that of the pictures
    assert same(make(free_init=FreeInit(1)), plain)
    assert same(make(guidance_scale=7.5, num_inference_steps=STEPS, height=SIZE, num_frames=FRAMES), plain)


def test_without_guidance_the_unprompted_half_is_not_run(make, rows):
    make(guidance_scale=1.0)
    assert rows == [(1, FRAMES)] * STEPS
    rows.clear()
    make(guidance_scale=1.01, num_videos_per_prompt=2)
    assert rows == [(4, FRAMES)] * STEPS
    assert different(make(guidance_scale=0.0, negative_prompt=OTHER), make())
    assert same(make(guidance_scale=0.5, negative_prompt=OTHER), make(guidance_scale=1.0))


def test_a_module_that_reads_no_text_takes_no_motion_prompt(animatediff_parts, pipe):
    assert pipe.reads_motion
    deaf = AnimateDiffPipeline(**animatediff_parts(motion_attention_block_types=("Temporal_Self",)))
    assert not deaf.reads_motion
    for name in ("motion_prompt", "negative_motion_prompt"):
        with pytest.raises(InputError, match="reads no text of its own; say how things move in the prompt"):
            deaf(PROMPT, num_frames=1, height=SIZE, width=SIZE, **{name: "it falls"})


@pytest.mark.parametrize("name", ["ddim", "euler", "euler_a", "dpm++_2m", "dpm++_2m_karras", "lcm", "pndm", "unipc"])
def test_any_scheduler(pipe, name):
    other = AnimateDiffPipeline(**pipe.components | {"scheduler": build_scheduler(name)}, config=pipe.config["config"])
    other.set_progress_bar_config(disable=True)
    first, again = (other(PROMPT, generator=seeded(), output_type="latent").frames for _ in range(2))
    assert torch.isfinite(first).all()
    assert same(first, again)


# Several at once


def test_several_prompts_are_each_their_own_video(pipe, make):
    prompts = [PROMPT, OTHER, "a green square"]
    generators = [seeded(i) for i in range(3)]
    motions = ["it falls", "rolls left", "rolls right"]
    together = pipe(prompts, motion_prompt=motions, generator=generators, output_type="latent").frames
    for i, prompt in enumerate(prompts):
        close(together[i], make(prompt, seed=i, motion_prompt=motions[i])[0])


def test_several_videos_of_one_prompt(make):
    two = make(num_videos_per_prompt=2)
    assert two.shape[0] == 2
    assert different(two[0], two[1])
    four = make(
        [PROMPT, OTHER], num_videos_per_prompt=2, generator=[seeded(i) for i in range(4)], prompts_at={4: "a green cat"}
    )
    for i, prompt in enumerate((PROMPT, PROMPT, OTHER, OTHER)):
        close(four[i], make(prompt, seed=i, prompts_at={4: "a green cat"})[0])
    assert [len(video) for video in make(num_videos_per_prompt=2, output_type="pil")] == [FRAMES, FRAMES]


# Prompts that turn into one another


def asked(pipe, monkeypatch, **arguments) -> tuple[list[list[int]], list[torch.Tensor]]:
    """The frames of each window, and the text of each frame that the UNet was given for it (prompted half)."""
    frames, texts = [], []
    inputs = PromptEmbeds.inputs

    def spy(self, window, guided):
        made = inputs(self, window, guided)
        frames.append(list(window))
        texts.append(made["encoder_hidden_states"])
        return made

    monkeypatch.setattr(PromptEmbeds, "inputs", spy)
    pipe(PROMPT, generator=seeded(), output_type="latent", guidance_scale=1.0, num_inference_steps=2, **arguments)
    return frames, texts


@pytest.mark.parametrize("closed_loop", [False, True])
def test_prompts_travel_from_key_to_key(pipe, monkeypatch, closed_loop):
    count = 12
    frames, texts = asked(pipe, monkeypatch, num_frames=count, prompts_at={4: OTHER}, closed_loop=closed_loop)
    first, second = (pipe.encode([text]).sequence[0] for text in (PROMPT, OTHER))

    def share(frame: int) -> float:
        if frame <= 4:
            return frame / 4
        return (count - frame) / (count - 4) if closed_loop else 1.0

    assert set(itertools.chain(*frames)) == set(range(count))
    for window, text in zip(frames, texts, strict=True):
        for frame, row in zip(window, text, strict=True):
            close(row.detach(), torch.lerp(first, second, share(frame)).detach(), 1e-5)


def test_one_prompt_for_all_frames_is_one_row(pipe, monkeypatch):
    _, texts = asked(pipe, monkeypatch, num_frames=12)
    assert {len(text) for text in texts} == {1}


def test_a_prompt_at_the_first_frame_stands_for_the_prompt(make):
    assert same(make(prompts_at={0: OTHER}, motion_prompt="it falls"), make(OTHER, motion_prompt="it falls"))
    assert different(make(prompts_at={7: OTHER}), make())


# Long clips


def test_windows_of_the_whole_clip_are_the_whole_clip(make, rows):
    plain = make()
    for arguments in ({"context_frames": 12}, {"context_frames": 8, "context_overlap": 3}):
        assert same(make(**arguments), plain)
    assert {count for _, count in rows} == {FRAMES}


def test_where_frames_are_alone_windows_change_nothing(make):
    close(make(num_frames=13, use_motion=False, context_frames=4, context_overlap=1),
          make(num_frames=13, use_motion=False, context_frames=13))  # fmt: skip


def test_long_clips_are_made_in_windows(make, rows):
    long = make(num_frames=20, context_frames=6, context_overlap=2, context_stride=2)
    assert long.shape[2] == 20
    assert {count for _, count in rows} == {6}
    assert different(long, make(num_frames=20, context_frames=6, context_overlap=2))
    assert different(long, make(num_frames=20, context_frames=6, context_overlap=2, context_weights="flat"))


def test_the_plan_is_what_a_call_does(pipe, rows):
    assert isinstance(pipe.plan(), WholeClip)
    plan = pipe.plan(20, 2, context_frames=6, context_overlap=2, closed_loop=True)
    assert isinstance(plan, OverlappingWindows)
    options = {"num_frames": 20, "num_inference_steps": 2, "context_frames": 6, "context_overlap": 2}
    pipe(PROMPT, **options, closed_loop=True, output_type="latent")
    assert len(rows) == sum(len(step.windows) for step in plan.steps())
    assert pipe.plan(num_inference_steps=10, strength=0.3).total_steps == 3


@pytest.mark.parametrize("frames", [1, 6, 11])
def test_a_loop_of_any_length(make, frames):
    loop = make(num_frames=frames, closed_loop=True)
    assert loop.shape[2] == frames
    assert torch.isfinite(loop).all()


@pytest.mark.parametrize("shared", [True, False])
def test_frames_beyond_the_first_window_share_its_noise(make, shared):
    # Frames are alone, so that equal noise is an equal frame.
    options = {"use_motion": False, "guidance_scale": 1.0, "num_inference_steps": 1, "context_frames": 8}
    frames = make(num_frames=20, shared_noise=shared, **options)[0]
    seen_before = [(frames[:, i : i + 1] - frames[:, :8]).abs().amax((0, 2, 3)).min() < 1e-4 for i in range(8, 20)]
    assert all(seen_before) if shared else not any(seen_before)


def test_a_clip_longer_than_a_window_begins_like_a_shorter_one_with_shared_noise(make):
    options = {"shared_noise": True, "use_motion": False, "context_frames": 8}
    close(make(num_frames=20, **options)[:, :, :14], make(num_frames=14, **options))


# A picture, a clip


def test_a_picture_begins_all_frames(make, make_moving_clip, pipe):
    picture = make_moving_clip(1, SIZE, SIZE)[0]
    frames = make(image=picture, strength=0.4)
    assert same(frames, make(image=Image.fromarray(picture), strength=0.4))
    assert different(frames, make())
    encoded = pipe.encode_frames(picture[None])
    assert encoded.shape == (1, 4, 1, 8, 8)
    # The less is made new, the nearer it stays.
    far, near = ((make(image=picture, strength=s, num_inference_steps=20) - encoded).abs().mean() for s in (1.0, 0.05))
    assert near < far / 2
    assert make(image=picture, num_frames=12).shape[2] == 12


def test_strength_is_the_share_of_steps(make, rows, make_moving_clip):
    picture = make_moving_clip(1, SIZE, SIZE)[0]
    for strength, steps in ((1.0, 10), (0.5, 5), (0.1, 1)):
        rows.clear()
        make(image=picture, strength=strength, num_inference_steps=10)
        assert len(rows) == steps


def test_a_clip_is_changed_frame_by_frame(make, make_moving_clip):
    clip = make_moving_clip(6, SIZE, SIZE)
    frames = make(video=clip, strength=0.4)
    assert frames.shape[2] == 6
    assert same(frames, make(video=[Image.fromarray(frame) for frame in clip], strength=0.4))
    assert make(video=clip, num_frames=4).shape[2] == 4
    assert different(make(video=clip[::-1].copy(), strength=0.4), frames)
    both = make([PROMPT, OTHER], video=clip, strength=0.4)
    assert both.shape[:3] == (2, 4, 6)
    assert make(video=make_moving_clip(19, SIZE, SIZE), strength=0.4).shape[2] == 19


def test_given_pixels_are_brought_to_size(make, make_moving_clip):
    big = make_moving_clip(3, 40, 52)
    for fit in ("crop", "pad", "stretch"):
        small = resize(big, SIZE, SIZE, fit)
        assert same(make(image=big[0], fit=fit), make(image=small[0])), fit
        assert same(make(video=big, fit=fit), make(video=small)), fit


# Noise and embeddings instead of seeds and text


def test_noise_stands_for_the_seed(make):
    given = randn(1, 4, FRAMES, 8, 8, seed=7)
    kept = given.clone()
    assert same(make(latents=given, generator=None), make())
    assert torch.equal(given, kept), "the caller's noise was changed"
    assert make(latents=randn(1, 4, 5, 6, 10)).shape == (1, 4, 5, 6, 10)


@torch.no_grad()
def test_embeddings_stand_for_the_texts(pipe, make):
    text, negative, motion = (pipe.encode([words]).sequence for words in (PROMPT, "the cat", "it falls"))
    given = {"prompt_embeds": text, "negative_prompt_embeds": negative, "motion_prompt_embeds": motion}
    assert same(make(None, **given), make(negative_prompt="the cat", motion_prompt="it falls"))
    assert same(make(None, prompt_embeds=text), make())
    assert make(None, **{name: tensor.repeat(2, 1, 1) for name, tensor in given.items()}).shape[0] == 2
    unmoved = {"negative_motion_prompt_embeds": negative}
    assert same(make(None, **given, **unmoved), make(negative_prompt="the cat", motion_prompt="it falls",
                                                     negative_motion_prompt="the cat"))  # fmt: skip


def test_a_pipeline_without_the_parts_that_it_does_not_need(pipe, make):
    bare = AnimateDiffPipeline(pipe.unet, config=pipe.config["config"])
    bare.set_progress_bar_config(disable=True)
    with torch.no_grad():
        text = pipe.encode([PROMPT, ""]).sequence
    given = {"prompt_embeds": text[:1], "negative_prompt_embeds": text[1:], "output_type": "latent"}
    assert same(bare(**given, latents=randn(1, 4, FRAMES, 8, 8, seed=7)).frames, make())
    with pytest.raises(InputError, match="no autoencoder; ask for output_type='latent'"):
        bare(**given | {"output_type": "np"})
    with pytest.raises(InputError, match="no text encoder with a tokenizer; pass prompt_embeds"):
        bare(PROMPT, output_type="latent")
    with pytest.raises(InputError, match="no autoencoder; it cannot read pictures"):
        bare(**given, image=np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InputError, match="need a SparseCtrl network; give sparse_controlnet"):
        bare(**given, control_images=[np.zeros((64, 64, 3), np.uint8)])


# Callbacks and interruption


def test_a_callback_sees_every_step_and_may_change_it(make):
    seen = []

    def look(pipe, step, timestep, inputs):
        seen.append((type(pipe), step, float(timestep), set(inputs), tuple(inputs["latents"].shape)))
        return {}

    assert same(make(callback_on_step_end=look), make())
    assert [step for _, step, *_ in seen] == [0, 1, 2]
    assert [timestep for _, _, timestep, *_ in seen] == [667, 334, 1]
    assert {(kind, *names, shape) for kind, *_, names, shape in seen} == {
        (AnimateDiffPipeline, "latents", (1, 4, FRAMES, 8, 8))
    }
    zeros = make(callback_on_step_end=lambda p, i, t, x: {"latents": torch.zeros_like(x["latents"])})
    assert not zeros.any()


@pytest.mark.parametrize("stop_at", range(STEPS))
def test_a_run_can_be_interrupted(pipe, make, stop_at, tmp_path):
    steps = []

    def stop(pipe, step, timestep, inputs):
        steps.append(step)
        pipe.interrupt = step == stop_at
        return {}

    out = pipe(PROMPT, generator=seeded(), output_type="np", callback_on_step_end=stop)
    assert steps == list(range(stop_at + 1))
    if stop_at == STEPS - 1:  # what is final still comes out
        assert same(out.frames, make(output_type="np"))
        return
    assert len(out.frames) == 0
    with pytest.raises(InputError, match="no frames to save"):
        out.save(tmp_path / "ball.mp4")
    assert make().shape[2] == FRAMES  # the next run is not interrupted


def test_an_interruption_ends_all_rounds(make):
    steps = []

    def stop(pipe, step, *_):
        steps.append(step)
        pipe.interrupt = step == 1
        return {}

    assert make(free_init=FreeInit(3), callback_on_step_end=stop) == []
    assert steps == [0, 1]


# Runs that are kept


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    ("name", "arguments", "steps"),
    [
        ("ddim", {}, 3),
        ("euler_a", {"num_frames": 11}, 3),
        ("dpm++_2m", {"num_inference_steps": 4}, 4),
        ("lcm", {"num_videos_per_prompt": 2}, 3),
        ("ddim", {"free_init": FreeInit(3)}, 9),
        ("euler_a", {"free_init": FreeInit(2)}, 6),
        ("dpm++_2m", {"free_init": FreeInit(3, fast=True)}, 6),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
@pytest.mark.integration
def test_a_run_goes_on_from_any_step(pipe, tmp_path, name, arguments, steps):
    other = AnimateDiffPipeline(**pipe.components | {"scheduler": build_scheduler(name)}, config=pipe.config["config"])
    other.set_progress_bar_config(disable=True)
    videos = arguments.get("num_videos_per_prompt", 1)

    def run(folder=None, stop_after: int | None = None, seen: list | None = None):
        def on_progress(progress):
            if seen is not None:
                seen.append(progress.step)
            if progress.step == stop_after:
                raise Stop

        resume = None if folder is None else RunFolder(folder, {}, every=0)
        generators = [seeded(i) for i in range(videos)] if videos > 1 else seeded()
        options = {"generator": generators, "output_type": "latent", "on_progress": on_progress, "resume": resume}
        return other(PROMPT, **options, **arguments).frames

    plain = run()
    assert same(run(tmp_path / "whole"), plain)
    for stop_after in range(1, steps + 1):
        folder, seen = tmp_path / str(stop_after), []
        with pytest.raises(Stop):
            run(folder, stop_after)
        assert same(run(folder, seen=seen), plain), stop_after
        # The step whose result is final is kept when it has been handed out; of others, the last that was saved.
        assert seen[-1] == steps
        assert seen[0] >= stop_after
        assert same(run(folder, seen=(seen := [])), plain)
        assert seen == []  # it is all there


def test_a_run_of_rounds_that_an_earlier_version_kept_goes_on(pipe, make, tmp_path):
    """Then each round of FreeInit was a run of its own, whose steps counted from 0."""

    def stop(progress):
        if progress.step == STEPS + 1:
            raise Stop

    def run(on_progress=None):
        return make(free_init=FreeInit(2), resume=RunFolder(tmp_path, {}, every=0), on_progress=on_progress)

    with pytest.raises(Stop):
        run(stop)
    state = load_file(tmp_path / "state.safetensors")
    assert state["steps_done"] == STEPS + 1
    old = {name.removeprefix("solver.") if name in ("solver.round", "solver.first_noise") else name: value
           for name, value in state.items()} | {"steps_done": torch.tensor(1)}  # fmt: skip
    save_file(old, tmp_path / "state.safetensors")
    steps = []
    assert same(run(lambda progress: steps.append(progress.step)), make(free_init=FreeInit(2)))
    assert steps == list(range(STEPS + 2, 2 * STEPS + 1))


def test_a_run_of_a_picture_goes_on(pipe, tmp_path, make_moving_clip):
    options = {"image": make_moving_clip(1, SIZE, SIZE)[0], "num_inference_steps": 6, "strength": 0.5}

    def stop(progress):
        if progress.step == 2:
            raise Stop

    def run(on_progress=None, resume=True):
        return pipe(
            PROMPT, **options, generator=seeded(), output_type="latent", on_progress=on_progress,
            resume=RunFolder(tmp_path, {}, every=0) if resume else None,
        ).frames  # fmt: skip

    with pytest.raises(Stop):
        run(stop)
    assert same(run(), run(resume=False))


# The picture models that others have


PLAIN, NEGATIVE = {}, {"negative_prompt": OTHER, "guidance_scale": 3.0}


def stable_diffusion(pipe, cls, **more):
    known = inspect.signature(UNet2DConditionModel).parameters
    unet = UNet2DConditionModel(**{name: value for name, value in pipe.unet.config.items() if name in known})
    unet.load_state_dict(pipe.unet.base_state_dict())
    parts = {name: part for name, part in pipe.components.items() if name != "sparse_controlnet" and part is not None}
    made = cls(**parts | {"unet": unet.eval()} | more)
    made.set_progress_bar_config(disable=True)
    return made


def check_frame_by_frame(pipe, theirs, **options):
    """Without motion, every frame is the picture that diffusers makes of its noise."""
    noise = randn(1, 4, 3, 8, 8)
    ours = pipe(PROMPT, latents=noise, use_motion=False, output_type="np", num_inference_steps=3, **options).frames[0]
    options = {"num_inference_steps": 3, "guidance_scale": 7.5, "height": SIZE, "width": SIZE} | options
    pictures = theirs(
        [PROMPT] * 3, latents=noise[0].transpose(0, 1), output_type="np",
        **{name: [value] * 3 if "negative" in name else value for name, value in options.items()},
    ).images  # fmt: skip
    close(ours, pictures, 1e-4)
    moved = pipe(PROMPT, latents=noise, output_type="np", num_inference_steps=3).frames[0]
    assert different(moved, pictures)


@pytest.mark.parametrize("options", [PLAIN, NEGATIVE], ids=["plain", "negative"])
def test_without_motion_it_is_stable_diffusion(pipe, options):
    theirs = stable_diffusion(
        pipe, StableDiffusionPipeline, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    check_frame_by_frame(pipe, theirs, **options)


@pytest.fixture(scope="module")
def sdxl(animatediff_parts) -> AnimateDiffPipeline:
    """A random model of the shape of SDXL."""
    parts = animatediff_parts(
        cross_attention_dim=24, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 6, transformer_layers_per_block=(1, 2),
        use_linear_projection=True, motion_attention_block_types=("Temporal_Self", "Temporal_Self"),
    )  # fmt: skip
    tokenizer = parts["tokenizer"]
    torch.manual_seed(4)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), max_position_embeddings=16, hidden_size=8, intermediate_size=16, projection_dim=6,
        num_hidden_layers=2, num_attention_heads=2, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    second = {"text_encoder_2": CLIPTextModelWithProjection(config).eval(), "tokenizer_2": tokenizer}
    sizes = {"num_frames": 4, "height": SIZE, "width": SIZE, "num_inference_steps": 2}
    pipe = AnimateDiffPipeline(**parts, **second, config=sizes)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(
    "options", [PLAIN, NEGATIVE, {"clip_skip": 1, "guidance_scale": 1.0}], ids=["plain", "negative", "skip"]
)
def test_without_motion_it_is_sdxl(sdxl, options):
    theirs = stable_diffusion(sdxl, StableDiffusionXLPipeline, add_watermarker=False)
    check_frame_by_frame(sdxl, theirs, **options)


def test_a_pipeline_of_sdxl_is_saved_and_makes_batches(sdxl, tmp_path):
    def run(pipe, prompt=PROMPT, **more):
        return pipe(prompt, **{"generator": seeded(), "output_type": "latent"} | more).frames

    sdxl.save_pretrained(tmp_path)
    loaded = AnimateDiffPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert same(run(loaded), run(sdxl))
    generators = [seeded(i) for i in range(2)]
    two = run(sdxl, [PROMPT, OTHER], generator=generators, prompts_at={3: "a green square"})
    for i, prompt in enumerate((PROMPT, OTHER)):
        close(two[i], run(sdxl, prompt, generator=seeded(i), prompts_at={3: "a green square"})[0])
    with pytest.raises(InputError, match="an SDXL model needs pooled_prompt_embeds"):
        run(sdxl, None, prompt_embeds=torch.zeros(1, 16, 24))
    half = {name: part for name, part in sdxl.components.items() if not name.endswith("_2")}
    with pytest.raises(InputError, match="needs both of its text encoders"):
        run(AnimateDiffPipeline(**half, config=sdxl.config["config"]))


# LoRA


def test_a_lora_is_there_for_the_length_of_a_block(pipe, make, tmp_path):
    layer = "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    size = pipe.unet.get_submodule(layer).weight.shape[0]
    tensors = {f"unet.{layer}.lora_A.weight": randn(4, size), f"unet.{layer}.lora_B.weight": randn(size, 4, seed=1)}
    save_file(tensors, tmp_path / "look.safetensors")
    plain = make()
    with pipe.using_loras({str(tmp_path / "look.safetensors"): 1.0}):
        assert different(make(), plain)
    assert same(make(), plain)


# Wrong arguments


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompt": None}, "give a prompt"),
        ({"prompt": []}, "give a prompt"),
        ({"num_frames": 0}, "num_frames must be at least 1, not 0"),
        ({"num_frames": -3}, "num_frames must be at least 1, not -3"),
        ({"num_inference_steps": 0}, "num_inference_steps must be at least 1, not 0"),
        ({"num_videos_per_prompt": 0}, "num_videos_per_prompt must be at least 1, not 0"),
        ({"height": 33}, "32x33 is not possible: .* multiples of 4; the nearest size is 32x32"),
        ({"width": 2}, "2x32 is not possible: .* nearest size is 4x32"),
        ({"height": 0}, "32x0 is not possible"),
        ({"guidance_scale": -1.0}, "between 0 and 100"),
        ({"guidance_scale": float("nan")}, "between 0 and 100"),
        ({"output_type": "gif"}, "'gif' is unknown; choose pil, np, pt or latent"),
        ({"callback_on_step_end_tensor_inputs": ["steps"]}, "can only be latents.*, not steps"),
        ({"clip_skip": 2}, "clip_skip must lie between 0 and 1"),
        ({"prompts_at": {8: "it falls"}}, "no prompt can begin at frame 8: the video has 8"),
        ({"prompts_at": {-1: "it falls"}}, "no prompt can begin at frame -1"),
        ({"prompt": [PROMPT, OTHER], "motion_prompt": ["it falls"] * 3}, "2 prompts but 3 texts for them"),
        ({"prompt_embeds": torch.zeros(1, 16, 16)}, "either prompt or prompt_embeds"),
        ({"prompt": None, "prompt_embeds": torch.zeros(16, 16)}, "prompt_embeds must have the shape"),
        ({"negative_prompt_embeds": torch.zeros(3, 16, 16)}, r"\(1, length, channels\), not \(3, 16, 16\)"),
        ({"motion_prompt_embeds": torch.zeros(2, 16, 16)}, "motion_prompt_embeds must have the shape"),
        ({"generator": [torch.Generator()] * 2}, "2 generators, but 1 videos"),
        ({"latents": torch.zeros(4, 8, 8, 8)}, r"\(videos, 4, frames, height, width\), not \(4, 8, 8, 8\)"),
        ({"latents": torch.zeros(1, 3, 8, 8, 8)}, r"\(videos, 4, frames, height, width\), not \(1, 3, 8, 8, 8\)"),
        ({"latents": torch.zeros(2, 4, 8, 8, 8)}, "latents of 2 videos, but 1"),
        ({"image": np.zeros((9, 9, 3), np.uint8), "video": np.zeros((8, 9, 9, 3), np.uint8)}, "not both"),
        ({"image": np.zeros((9, 9), np.uint8)}, "shape"),
        ({"image": "ball.png"}, "this is a str"),
        ({"video": "ball.mp4"}, "this is a str"),
        ({"video": np.zeros((8, 9, 9), np.uint8)}, "shape"),
        ({"video": []}, "the video has no frames"),
        ({"video": np.zeros((3, 9, 9, 3), np.uint8), "num_frames": 4}, "has 3 frames; 4 cannot be made of it"),
        ({"image": np.zeros((9, 9, 3), np.uint8), "strength": 0.0}, "strength must be above 0 and at most 1"),
        ({"image": np.zeros((9, 9, 3), np.uint8), "strength": 1.1}, "strength must be above 0 and at most 1"),
        ({"image": np.zeros((9, 9, 3), np.uint8), "strength": 0.1}, "leaves none of 3 steps"),
        ({"image": np.zeros((9, 9, 3), np.uint8), "fit": "squash"}, "use crop, stretch or pad"),
        ({"num_frames": 12, "context_frames": 0}, "context_frames must be at least 1"),
        ({"num_frames": 12, "context_weights": "round"}, "choose pyramid, flat or delayed_reverse_sawtooth"),
        ({"num_frames": 40, "context_frames": 17}, "at most 16 frames together, not 17"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_refused_before_any_step(pipe, monkeypatch, arguments, said):
    def forward(self, sample, *_, **__):  # of a UNet that is asked
        limit = self.config.motion_max_length
        assert sample.shape[2] > limit, "a step was made"
        raise InputError(f"the motion module sees at most {limit} frames together, not {sample.shape[2]}")

    monkeypatch.setattr(type(pipe.unet), "forward", forward)
    with pytest.raises(InputError, match=said):
        pipe(**{"prompt": PROMPT, "output_type": "latent", **arguments})
    assert isinstance(pipe.vae, AutoencoderKL)
