"""The MAGI-1 pipelines as others call them: diffusers' ways, streaming, prefixes, batches, memory, parity."""

import gc
import itertools
import json

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from goldens import golden_path, relative_error
from PIL import Image
from safetensors.torch import load_file

import animagic
from animagic import InputError, Magi1ImageToVideoPipeline, Magi1Pipeline, Magi1VideoToVideoPipeline
from animagic.media import iter_video, probe, read_metadata, resize
from animagic.media.outputs import to_bytes
from animagic.pipelines import base
from animagic.pipelines.text import encode_text
from animagic.systems.magi1 import pipeline as module

PROMPT = "a red ball bounces"
HEIGHT, WIDTH, FRAMES, CHUNK, STEPS = 32, 48, 16, 8, 4  # of the random model; CHUNK in pixel frames


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def make(tiny_pipe):
    """Runs the random model with seed 7; frames as np unless asked otherwise."""

    def make(prompt=PROMPT, seed: int = 7, **arguments):
        return tiny_pipe(prompt, **{"generator": seeded(seed), "output_type": "np", **arguments}).frames

    return make


def close(a, b, tolerance: float = 1e-4) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=tolerance, rtol=0)


def different(a, b) -> bool:
    return float(np.abs(np.asarray(a) - np.asarray(b)).mean()) > 1e-3


# Files


def test_saved_and_loaded_it_makes_the_same_frames(tiny_pipe, make, tmp_path):
    tiny_pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "Magi1Pipeline"
    assert index["config"]["runtime_config"]["num_frames"] == FRAMES
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".ckpt")]

    loaded = Magi1Pipeline.from_pretrained(tmp_path)
    assert isinstance(loaded, DiffusionPipeline)
    assert loaded.sampling == tiny_pipe.sampling
    assert np.array_equal(loaded(PROMPT, generator=seeded(), output_type="np").frames, make())


def test_one_folder_serves_all_three_pipelines(tiny_model, make, make_moving_clip):
    clip = make_moving_clip(8)
    from_image = Magi1ImageToVideoPipeline.from_pretrained(tiny_model)
    from_video = Magi1VideoToVideoPipeline.from_pretrained(tiny_model)
    options = {"generator": seeded(), "output_type": "np"}
    assert np.array_equal(from_image(clip[0], PROMPT, **options).frames, make(image=clip[0]))
    options = {"generator": seeded(), "output_type": "np"}
    assert np.array_equal(from_video(clip, PROMPT, num_frames=24, **options).frames, make(video=clip, num_frames=24))
    with pytest.raises(InputError, match="needs an image"):
        from_image(prompt=PROMPT)
    with pytest.raises(InputError, match="needs a video"):
        from_video(prompt=PROMPT)


def test_parts_can_be_shared_between_pipelines(tiny_pipe, make, make_moving_clip):
    other = Magi1ImageToVideoPipeline(**tiny_pipe.components, config=tiny_pipe.config["config"])
    assert other.transformer is tiny_pipe.transformer
    picture = make_moving_clip(1)[0]
    assert np.array_equal(other(picture, PROMPT, generator=seeded(), output_type="np").frames, make(image=picture))


def test_loading_by_name_chooses_the_pipeline(tiny_model):
    assert type(animagic.load(tiny_model)) is Magi1Pipeline
    assert type(animagic.load(str(tiny_model), "image")) is Magi1ImageToVideoPipeline


# What comes out


def test_output_types_agree(tiny_pipe, make):
    array, tensor, pictures = make(), make(output_type="pt"), make(output_type="pil")
    assert array.shape == (1, FRAMES, HEIGHT, WIDTH, 3)
    assert array.dtype == np.float32
    assert (array.min(), array.max()) >= (0, 0)
    assert array.max() <= 1
    assert tensor.shape == (1, FRAMES, 3, HEIGHT, WIDTH)
    assert np.array_equal(tensor.permute(0, 1, 3, 4, 2).numpy(), array)
    assert [type(picture) for picture in pictures[0]] == [Image.Image] * FRAMES
    assert np.array_equal(np.stack(pictures[0]), to_bytes(array[0]))

    latents = make(output_type="latent")
    assert latents.shape == (1, 4, FRAMES // 4, HEIGHT // 8, WIDTH // 8)
    decoded = torch.cat([tiny_pipe.vae.decode(part).sample for part in latents.split(2, dim=2)], dim=2)
    close((decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 4, 1).detach(), array, 1e-6)


@pytest.mark.parametrize("frames", [1, 3, 8, 9, 24])
def test_as_many_frames_as_were_asked_for(make, make_moving_clip, frames):
    assert make(num_frames=frames).shape[1] == frames
    assert make(num_frames=frames, image=make_moving_clip(1)[0]).shape[1] == frames
    assert make(num_frames=frames + 8, video=make_moving_clip(8)).shape[1] == frames + 8


def test_the_size_of_the_model_or_another(make):
    assert make(height=16, width=64).shape[2:4] == (16, 64)
    assert make().shape[2:4] == (HEIGHT, WIDTH)


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_saving_the_result(tiny_pipe, tmp_path, output_type):
    out = tiny_pipe(PROMPT, generator=seeded(), output_type=output_type)
    assert out.save(tmp_path / "ball.mp4", metadata={"a": 1}) == tmp_path / "ball.mp4"
    facts = probe(tmp_path / "ball.mp4")
    assert (facts["frames"], facts["width"], facts["height"], facts["fps"]) == (FRAMES, WIDTH, HEIGHT, 24)
    assert read_metadata(tmp_path / "ball.mp4") == {"a": 1}
    out.save(f"{tmp_path}/pictures/")
    reference = tiny_pipe(PROMPT, generator=seeded()).frames[0]
    assert np.array_equal(np.stack(list(iter_video(tmp_path / "pictures"))), np.stack(reference))


def test_latents_cannot_be_saved_as_a_video(tiny_pipe, tmp_path):
    out = tiny_pipe(PROMPT, output_type="latent")
    with pytest.raises(InputError, match="latents cannot be saved"):
        out.save(tmp_path / "ball.mp4")
    assert list(tmp_path.iterdir()) == []


# Streaming


@pytest.mark.parametrize("output_type", ["pil", "np", "pt", "latent"])
@pytest.mark.parametrize("given", ["words", "image", "video"])
def test_pieces_joined_are_the_whole(tiny_pipe, make, make_moving_clip, output_type, given):
    inputs = {"words": {}, "image": {"image": make_moving_clip(1)[0]}, "video": {"video": make_moving_clip(12)}}[given]
    whole = make(output_type=output_type, num_frames=40, **inputs)
    pieces = list(tiny_pipe.stream(PROMPT, num_frames=40, generator=seeded(), output_type=output_type, **inputs))
    assert len(pieces) > 3
    assert {piece.fps for piece in pieces} == {24}
    if output_type == "latent":
        assert torch.equal(torch.cat([piece.frames for piece in pieces], dim=2), whole)
        return
    starts = [0, *itertools.accumulate(len(piece) for piece in pieces)]
    assert [piece.start for piece in pieces] == starts[:-1]
    assert starts[-1] == 40
    axis = {"pt": 1, "np": 1, "pil": 0}[output_type]
    joined = np.concatenate([np.stack(p.frames[0]) if axis == 0 else p.frames for p in pieces], axis=axis)
    assert np.array_equal(joined, np.stack(whole[0]) if axis == 0 else np.asarray(whole))


def test_the_first_piece_comes_long_before_the_last_step(tiny_pipe):
    steps = []
    stream = tiny_pipe.stream(PROMPT, num_frames=80, generator=seeded(), on_progress=lambda p: steps.append(p.step))
    first = next(stream)
    assert len(first) == CHUNK
    assert len(steps) == STEPS
    rest = list(stream)
    assert len(rest) == 9
    assert len(steps) == 13


def test_an_endless_stream_goes_on(tiny_pipe, make):
    stream = tiny_pipe.stream(PROMPT, endless=True, generator=seeded(), output_type="np")
    pieces = [next(stream).frames for _ in range(12)]
    stream.close()
    close(np.concatenate(pieces[:3], axis=1), make(num_frames=3 * CHUNK))
    assert all(different(a, b) for a, b in itertools.pairwise(pieces))
    with pytest.raises(InputError, match="endless"):
        tiny_pipe(PROMPT, endless=True)


def test_progress_is_reported(tiny_pipe):
    seen = []
    tiny_pipe(PROMPT, num_frames=24, on_progress=seen.append)
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6]
    assert {p.total_steps for p in seen} == {6}
    assert [p.clean_frames for p in seen] == [0, 0, 0, 2, 4, 6]
    assert seen[-1].seconds_left == 0


def test_previews_show_what_is_being_made(tiny_pipe):
    shapes = []
    tiny_pipe(PROMPT, num_frames=24, on_preview=lambda decode: shapes.append(decode()))
    assert len(shapes) == 6
    assert all(shape.dtype == np.uint8 for shape in shapes)
    assert {shape.shape[1:] for shape in shapes} == {(HEIGHT, WIDTH, 3)}


# What decides the frames


def test_seeds(make):
    assert np.array_equal(make(), make())
    assert different(make(), make(seed=8))
    assert np.array_equal(make(generator=None), make(generator=None))  # then the model's own seed


def test_a_longer_video_begins_like_a_shorter_one(make):
    close(make(num_frames=48)[:, :24], make(num_frames=24))


def test_prompts_guidance_and_steps(make):
    plain = make()
    for arguments in (
        {"prompt": "the blue cat rolls"},
        {"negative_prompt": "the blue cat"},
        {"guidance_scale": 1.0},
        {"num_inference_steps": 8},
    ):
        assert different(make(**arguments), plain), arguments
    assert np.array_equal(make(negative_prompt=" "), plain)
    close(make(guidance_scale=7.5), plain, 1e-3)  # the model's own


def test_later_prompts_change_later_chunks_only(make):
    plain, changed = make(num_frames=40), make(num_frames=40, prompts_at={3: "the blue cat", 1: "it falls slowly"})
    close(plain[:, :CHUNK], changed[:, :CHUNK])
    assert different(plain[:, CHUNK : 2 * CHUNK], changed[:, CHUNK : 2 * CHUNK])
    one = make(num_frames=40, prompts_at={1: "it falls slowly"})
    close(one[:, : 3 * CHUNK], changed[:, : 3 * CHUNK])
    assert different(one[:, 3 * CHUNK :], changed[:, 3 * CHUNK :])
    assert np.array_equal(make(prompts_at={0: "the blue cat"}), make("the blue cat"))


# A picture, a clip


def test_a_picture_is_the_first_frame(make, make_moving_clip):
    picture = make_moving_clip(1)[0]
    frames = make(image=picture)
    assert np.abs(frames[0, 0] - picture / 255).mean() < 0.05
    assert different(frames, make())
    assert np.array_equal(frames, make(image=Image.fromarray(picture)))


def test_a_clip_is_shown_again_and_goes_on(make, make_moving_clip):
    clip = make_moving_clip(14)  # three latent frames: a chunk and a half
    frames = make(video=clip, num_frames=30)
    kept = clip[2:]
    assert np.array_equal(to_bytes(frames[0, :12]), kept)
    assert np.array_equal(frames, make(video=[Image.fromarray(frame) for frame in clip], num_frames=30))
    assert different(frames[:, 12:], make(video=clip[::-1].copy(), num_frames=30)[:, 12:])


@pytest.mark.parametrize("given", range(4, 22, 3))
def test_a_clip_of_any_length_goes_on_smoothly(tiny_pipe, make, make_moving_clip, given):
    """However many of its latent frames lie in the first chunk that is made."""
    clip = make_moving_clip(given)
    shown = given // 4 * 4
    frames = make(video=clip, num_frames=shown + 20)
    assert frames.shape[1] == shown + 20
    assert np.array_equal(to_bytes(frames[0, :shown]), clip[-shown:])
    latents = make(video=clip, num_frames=shown + 20, output_type="latent")
    assert latents.shape[2] * 4 >= 20
    # The first new frames are those of the first new latents, decoded behind the given ones of their chunk.
    known = tiny_pipe.encode_frames(clip[-shown:])
    hidden = shown // 4 % 2
    new = latents if known.shape[2] > 1 else latents[:, :, 1:]  # a single one comes out again, as a picture does
    chunk = torch.cat([known[:, :, known.shape[2] - hidden :], new], dim=2)[:, :, :2]
    decoded = tiny_pipe.vae.decode(chunk).sample[0, :, hidden * 4 :].detach().permute(1, 2, 3, 0)
    close((decoded / 2 + 0.5).clamp(0, 1), frames[0, shown : shown + len(decoded)], 1e-5)


def test_given_pixels_are_brought_to_size(make, make_moving_clip):
    big = make_moving_clip(8, 90, 70)
    for fit in ("crop", "pad", "stretch"):
        small = resize(big, HEIGHT, WIDTH, fit)
        assert np.array_equal(make(image=big[0], fit=fit), make(image=small[0])), fit
        assert np.array_equal(make(video=big, fit=fit, num_frames=16), make(video=small, num_frames=16)), fit


def test_given_latents_stand_for_given_pixels(tiny_pipe, make, make_moving_clip):
    clip = make_moving_clip(8)
    for pixels, arguments in ((clip[:1], {"image": clip[0]}), (clip, {"video": clip, "num_frames": 24})):
        latents = tiny_pipe.encode_frames(pixels)
        from_pixels = make(output_type="latent", **arguments)
        from_latents = make(output_type="latent", prefix_latents=latents)
        close(from_latents, from_pixels, 1e-5)


# Callbacks and interruption


def test_a_callback_sees_every_step_and_may_change_it(make):
    seen = []

    def look(pipe, step, timestep, inputs):
        seen.append((type(pipe), step, float(timestep), set(inputs), inputs["latents"].shape[:2]))
        return {}

    assert np.array_equal(make(num_frames=24, callback_on_step_end=look), make(num_frames=24))
    assert [step for _, step, *_ in seen] == list(range(6))
    assert {kind for kind, *_ in seen} == {Magi1Pipeline}
    assert all(0 <= timestep <= 1000 for _, _, timestep, *_ in seen)
    assert all(names == {"latents"} and shape == (1, 4) for *_, names, shape in seen)

    flat = make(num_frames=24, callback_on_step_end=lambda p, i, t, x: {"latents": torch.zeros_like(x["latents"])})
    close(flat[:, :CHUNK], flat[:, CHUNK : 2 * CHUNK])
    plain = make(num_frames=24)
    assert different(plain[:, :CHUNK], plain[:, CHUNK : 2 * CHUNK])


@pytest.mark.parametrize(("stop_at", "chunks"), [(2, 0), (3, 1), (5, 2)])
def test_a_run_can_be_interrupted(tiny_pipe, make, stop_at, chunks):
    steps = []

    def stop(pipe, step, timestep, inputs):
        steps.append(step)
        pipe.interrupt = step >= stop_at
        return {}

    # Step 3 is the first that makes a chunk final. What is final at the step of the interruption still comes out.
    out = tiny_pipe(PROMPT, num_frames=80, generator=seeded(), output_type="np", callback_on_step_end=stop).frames
    assert len(steps) <= stop_at + 2
    final = sum(step >= STEPS - 1 for step in range(stop_at + 1))
    assert chunks <= final
    if not final:
        assert len(out) == 0
        assert steps[-1] == stop_at
    else:
        assert out.shape[1] == final * CHUNK
        close(out, make(num_frames=80)[:, : final * CHUNK])
    assert make().shape[1] == FRAMES  # the next run is not interrupted


def test_nothing_can_be_saved_of_a_run_interrupted_at_once(tiny_pipe, tmp_path):
    def stop(pipe, *_):
        pipe.interrupt = True
        return {}

    out = tiny_pipe(PROMPT, callback_on_step_end=stop)
    with pytest.raises(InputError, match="no frames to save"):
        out.save(tmp_path / "ball.mp4")


# Several at once


def test_several_prompts_are_each_their_own_video(tiny_pipe, make):
    prompts = [PROMPT, "the blue cat", "a green square falls on the floor slowly"]
    together = tiny_pipe(prompts, generator=[seeded(i) for i in range(3)], output_type="np", num_frames=24).frames
    assert together.shape[:2] == (3, 24)
    for i, prompt in enumerate(prompts):
        close(together[i], make(prompt, seed=i, num_frames=24)[0], 1e-3)


def test_several_videos_of_one_prompt(tiny_pipe, make, make_moving_clip):
    two = make(num_videos_per_prompt=2)
    assert two.shape[0] == 2
    assert different(two[0], two[1])
    generators = [seeded(1), seeded(2), seeded(3), seeded(4)]
    four = tiny_pipe(["a red ball", "the blue cat"], num_videos_per_prompt=2, generator=generators, output_type="np")
    for i, prompt in enumerate(("a red ball", "a red ball", "the blue cat", "the blue cat")):
        close(four.frames[i], make(prompt, seed=i + 1)[0], 1e-3)
    pictures = make(num_videos_per_prompt=2, output_type="pil")
    assert [len(video) for video in pictures] == [FRAMES, FRAMES]

    picture = make_moving_clip(1)[0]
    from_picture = make(image=picture, num_videos_per_prompt=2)
    assert np.abs(from_picture[:, 0] - picture / 255).mean() < 0.05
    assert different(from_picture[0], from_picture[1])


def test_several_videos_from_one_clip(make, make_moving_clip):
    clip = make_moving_clip(8)
    frames = make(["a red ball", "the blue cat"], video=clip, num_frames=24)
    assert frames.shape[:2] == (2, 24)
    assert np.array_equal(to_bytes(frames[0, :8]), clip)
    assert np.array_equal(to_bytes(frames[1, :8]), clip)


# Embeddings and noise instead of text and seeds


def test_embeddings_stand_for_the_prompt(tiny_pipe, make):
    text = encode_text(tiny_pipe.text_encoder, tiny_pipe.tokenizer, [PROMPT], 12)
    given = {"prompt_embeds": text.embeds, "prompt_embeds_mask": text.mask}
    assert np.array_equal(make(None, **given), make())
    twice = {
        name: tensor.repeat(2, 1, 1)[:, :, :] if tensor.ndim == 3 else tensor.repeat(2, 1)
        for name, tensor in given.items()
    }
    assert make(None, **twice).shape[0] == 2


def test_noise_stands_for_the_seed(tiny_pipe, make):
    noise, generator = [], seeded()
    for _ in range(3):
        noise.append(torch.randn(1, 4, 2, HEIGHT // 8, WIDTH // 8, generator=generator))
    given = torch.cat(noise, dim=2)
    kept = given.clone()
    close(make(latents=given, generator=None), make(num_frames=24), 1e-6)
    assert torch.equal(given, kept), "the caller's noise was changed"


def test_a_pipeline_without_the_parts_that_it_does_not_need(tiny_pipe, make):
    bare = Magi1Pipeline(tiny_pipe.transformer, config=tiny_pipe.config["config"])
    text = encode_text(tiny_pipe.text_encoder, tiny_pipe.tokenizer, [PROMPT], 12)
    given = {"prompt_embeds": text.embeds, "prompt_embeds_mask": text.mask, "generator": seeded()}
    assert torch.equal(bare(**given, output_type="latent").frames, make(output_type="latent"))
    with pytest.raises(InputError, match="no autoencoder; ask for output_type='latent'"):
        bare(**given)
    with pytest.raises(InputError, match="no text encoder; pass prompt_embeds"):
        bare(PROMPT, output_type="latent")
    with pytest.raises(InputError, match="no autoencoder; it cannot read pictures, but"):
        bare(**given, image=np.zeros((HEIGHT, WIDTH, 3), np.uint8), output_type="latent")


# Wrong arguments


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompt": None}, "give a prompt"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": ["a ball", ""]}, "the prompt is empty"),
        ({"num_frames": 0}, "frames must be at least 1, not 0"),
        ({"num_frames": -3}, "frames must be at least 1, not -3"),
        ({"height": 33}, "48x33 is not possible: .* nearest size is 48x32"),
        ({"width": 8}, "8x32 is not possible: .* nearest size is 16x32"),
        ({"num_inference_steps": 3}, "at least 4, not 3"),
        ({"num_inference_steps": 0}, "at least 4, not 0"),
        ({"guidance_scale": -1.0}, "between 0 and 100"),
        ({"guidance_scale": float("nan")}, "between 0 and 100"),
        ({"output_type": "gif"}, "'gif' is unknown; choose pil, np, pt or latent"),
        ({"prompts_at": {-1: "it falls"}}, "no prompt can begin at chunk -1"),
        ({"prompts_at": {1: " "}}, "the prompt is empty"),
        ({"special_tokens": ["hq"]}, "no special tokens; leave out hq"),
        ({"enable_distillation": True}, "not distilled"),
        ({"prompt_embeds": torch.zeros(1, 3, 8)}, "either prompt or prompt_embeds"),
        ({"prompt": None, "prompt_embeds": torch.zeros(1, 3, 8)}, "needs its prompt_embeds_mask"),
        ({"image": np.zeros((9, 9, 3), np.uint8), "video": np.zeros((8, 9, 9, 3), np.uint8)}, "not both"),
        ({"video": np.zeros((3, 9, 9, 3), np.uint8)}, "3 frames; at least 4"),
        ({"video": np.zeros((16, 9, 9, 3), np.uint8), "num_frames": 16}, "already has 16 of the 16 frames"),
        ({"image": np.zeros((9, 9), np.uint8)}, "shape"),
        ({"image": np.full((9, 9, 3), 7.0)}, "from 0 to 1"),
        ({"fit": "squash", "image": np.zeros((9, 9, 3), np.uint8)}, "use crop, stretch or pad"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_refused_before_any_step(tiny_pipe, monkeypatch, arguments, said):
    monkeypatch.setattr(base, "Sampler", None)
    with pytest.raises(InputError, match=said):
        tiny_pipe(**{"prompt": PROMPT, **arguments})


# Memory


def numbers_alive() -> int:
    """How many numbers are in all tensors of this process but weights."""
    gc.collect()
    return sum(x.numel() for x in gc.get_objects() if type(x) is torch.Tensor)


def held(pipe, chunks: int, monkeypatch) -> dict[str, int]:
    """The most that a run holds at once: latent frames, frames of keys and values, numbers in tensors anywhere."""
    kept = {}

    class Watched(module.Timeline):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            kept["timeline"] = self

    class Denoiser(module.Magi1Denoiser):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            kept["cache"] = self.cache

    monkeypatch.setattr(module, "Timeline", Watched)
    monkeypatch.setattr(module, "Magi1Denoiser", Denoiser)
    most = {"latent frames": 0, "frames in the cache": 0, "keys": 0, "numbers": 0}

    def look(progress) -> None:
        timeline, cache = kept["timeline"], kept["cache"]
        now = {
            "latent frames": timeline.state(range(timeline.start, timeline.stop)).shape[2],
            "frames in the cache": cache.stop - cache.start,
            "keys": sum(k.numel() + v.numel() for k, v in cache.layers),
        }
        for name, value in now.items():
            most[name] = max(most[name], value)

    stream = pipe.stream(PROMPT, num_frames=chunks * CHUNK, generator=seeded(), output_type="np", on_progress=look)
    for count, _ in enumerate(stream, 1):
        if count <= 4 or count % 9 == 0:
            most["numbers"] = max(most["numbers"], numbers_alive())
    assert count == chunks
    return most


@pytest.mark.integration
def test_a_long_video_holds_no_more_than_a_short_one(tiny_pipe, monkeypatch):
    short, long = (held(tiny_pipe, chunks, monkeypatch) for chunks in (4, 40))
    numbers = short.pop("numbers"), long.pop("numbers")
    assert long.pop("latent frames") == short.pop("latent frames") + 2  # four chunks in flight and a clean one: a fifth
    assert long == short
    assert numbers[1] <= 1.1 * numbers[0]


# Parity


@pytest.mark.parametrize("name", ["t2v_base", "i2v_base", "v2v_base_ragged_prefix", "t2v_distill_8"])
def test_the_public_pipeline_computes_what_the_original_computes(name):
    config = json.loads(golden_path("magi1", "manifest.json").read_text())[name]["config"]
    golden = load_file(golden_path("magi1", f"{name}.safetensors"))
    weights = {key.removeprefix("weight."): t for key, t in golden.items() if key.startswith("weight.")}
    transformer = animagic.checkpoints.from_original("magi1", "transformer", weights, config)
    pipe = Magi1Pipeline(transformer=transformer, vae=None, text_encoder=None, tokenizer=None, config=config)
    pipe.set_progress_bar_config(disable=True)

    frames = pipe(
        prompt_embeds=golden["caption"][:, 0],
        prompt_embeds_mask=golden["caption_mask"],
        latents=golden["noise"],
        prefix_latents=golden.get("prefix"),
        output_type="latent",
    ).frames
    chunks = sorted((key for key in golden if key.startswith("chunk_")), key=lambda key: int(key.split("_")[1]))
    expected = torch.cat([golden[key] for key in chunks], dim=2)
    assert frames.dtype == torch.float32
    assert relative_error(frames, expected) < 1e-4


def test_a_prompt_for_a_chunk_that_never_comes_is_refused(tiny_pipe):
    with pytest.raises(InputError, match="no prompt can begin at chunk 9"):
        tiny_pipe("a red ball", prompts_at={9: "a blue ball"}, num_frames=8)
