"""`animagic generate` and its neighbours with an AnimateDiff model: a small random one."""

from __future__ import annotations

import inspect
import io
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import animagic
from animagic import requests
from animagic.media import VideoWriter, probe, read_image, read_metadata, resize, write_image
from animagic.requests import build_request, from_metadata

FRAMES = 8


@pytest.fixture
def animate(run, animatediff_model):
    """Runs `animagic generate "a red ball bounces" WORDS` with the random model and seed 7."""
    return lambda *words, prompt="a red ball bounces": run(
        "generate", prompt, "--model", animatediff_model, "--seed", 7, *words
    )


@pytest.fixture
def pixels(animate, frames_of):
    """The frames that such a command makes."""

    def pixels(*words, **settings) -> np.ndarray:
        shutil.rmtree("pixels", ignore_errors=True)
        ran = animate("-o", "pixels/", *words, **settings)
        assert ran.code == 0, ran
        return frames_of("pixels/").astype(int)

    return pixels


@pytest.fixture(scope="module")
def made() -> dict[tuple, np.ndarray]:
    """What `usual_pixels` has made."""
    return {}


@pytest.fixture
def usual_pixels(pixels, made):
    """The frames that such a command makes, made once."""

    def usual_pixels(*words) -> np.ndarray:
        if words not in made:
            made[words] = pixels(*words)
        return made[words]

    return usual_pixels


@pytest.fixture
def picture(tmp_path, make_moving_clip) -> str:
    write_image(tmp_path / "photo.png", make_moving_clip(1)[0])
    return "photo.png"


@pytest.fixture
def clip(tmp_path, make_moving_clip) -> str:
    with VideoWriter(tmp_path / "clip.mp4", 8) as writer:
        writer.write(make_moving_clip(6))
    return "clip.mp4"


# What comes out


@pytest.mark.parametrize("output", ["ball.mp4", "ball.gif", "ball.webm", "pictures/"])
def test_words_become_a_video(animate, frames_of, output):
    ran = animate("-o", output, "--json", "--preview", "--contact-sheet", "sheet.png")
    assert ran.code == 0, ran
    line = json.loads(ran.out)
    assert line.pop("seconds") > 0
    assert line == {"output": output, "frames": FRAMES, "height": 32, "width": 32, "fps": 8, "seed": 7,
                    "contact_sheet": "sheet.png"}  # fmt: skip
    frames = frames_of(output)
    assert frames.shape == (FRAMES, 32, 32, 3)
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 1, "nothing moves"
    assert probe(output)["fps"] == pytest.approx(8, abs=0.1)
    assert Path("sheet.png").is_file()
    assert not list(Path().glob("*.preview.png"))


@pytest.mark.parametrize("output", ["ball.mp4", "ball.gif"])
@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--frames", 19, "--window", 6, "--overlap", 3, "--window-weights", "flat", "--loop", "--free-noise"),
        ("--sampler", "euler_a", "--prompt-at", "7:the blue cat", "--motion-prompt", "rolls left"),
        ("--free-init", 2, "--clip-skip", 1, "--negative-prompt", "fog", "--guidance", 3, "--tiling"),
    ],
    ids=["plain", "windows", "sampler", "free-init"],
)
def test_it_can_be_made_again(animate, run, output, words):
    assert animate("-o", output, *words).code == 0
    ran = run("reproduce", output, "--json")
    assert ran.code == 0, ran
    answer = json.loads(ran.out)
    assert answer["equal_frames"] == answer["frames"] == (19 if "--loop" in words else FRAMES)


def test_the_file_says_what_it_was_made_from(animate, run, animatediff_model):
    animate("-o", "ball.mp4", "--frames", 12, "--window", 8, "--motion-prompt", "rolls left", "--prompt-at", "9:a cat")
    stored = json.loads(run("info", "ball.mp4", "--json").out)["metadata"]
    request = stored["request"]
    assert request["model"] == str(animatediff_model)
    assert (request["frames"], request["window"], request["motion_prompt"]) == (12, 8, "rolls left")
    assert request["prompts_at"] == {"9": "a cat"}
    assert not {"hand_over", "quality"} & request.keys(), "those of MAGI-1"
    assert stored["plan"]["kind"] == "OverlappingWindows"
    assert stored["plan"]["size"] == 8
    assert "rolls left" in run("info", "ball.mp4").out


def test_a_request_of_animatediff_comes_back_from_its_metadata(animatediff_model):
    settings = {"controls": {3: "a.png"}, "controlnet": "c", "motion_loras": {"zoom": 0.5}, "embeddings": ("e.pt",)}
    request = build_request(
        "a ball", str(animatediff_model), seed=1, loop=True, free_init=2, image="b.png", strength=0.5, **settings
    )
    assert from_metadata(json.loads(json.dumps({"request": request.stored()}))) == request


# What each option does


@pytest.mark.parametrize(
    "words",
    [
        ("--motion-prompt", "the blue cat rolls left"),
        ("--negative-prompt", "the blue cat"),
        ("--prompt-at", "5:the blue cat"),
        ("--guidance", 2),
        ("--steps", 5),
        ("--sampler", "dpm++_2m"),
        ("--clip-skip", 1),
        ("--window", 4),
        ("--loop",),
        ("--free-init", 2),
    ],
    ids=lambda words: words[0],
)
def test_each_option_changes_the_frames(pixels, usual_pixels, words):
    assert not np.array_equal(usual_pixels(), pixels(*words))


@pytest.mark.parametrize(
    "words", [("--overlap", 1), ("--window-weights", "flat"), ("--free-noise",)], ids=lambda w: w[0]
)
def test_each_option_of_windows_changes_the_frames(pixels, usual_pixels, words):
    windows = ("--frames", 14, "--window", 6)
    assert not np.array_equal(usual_pixels(*windows), pixels(*windows, *words))


@pytest.mark.parametrize("given", ["image", "video"])
def test_the_less_strength_the_more_is_left_of_what_was_given(pixels, picture, clip, given, frames_of):
    file = {"image": picture, "video": clip}[given]
    made = {strength: pixels(f"--{given}", file, "--strength", strength, "--steps", 10) for strength in (0.1, 1)}
    assert len(made[1]) == (FRAMES if given == "image" else 6)
    original = resize(read_image(picture)[None] if given == "image" else frames_of(clip), 32, 32, "crop").astype(int)
    usual = pixels(f"--{given}", file, "--steps", 10)
    stored = read_metadata("pixels/")
    assert (stored["request"]["strength"], stored["plan"]["num_steps"]) == (0.8, 8)
    assert np.array_equal(usual, pixels(f"--{given}", file, "--steps", 10, "--strength", 0.8))
    assert np.abs(made[0.1] - original).mean() < np.abs(made[1] - original).mean()


def test_a_sampler_leaves_the_pipeline_as_it_was(animatediff_model, tmp_path):
    pipe = animagic.load(str(animatediff_model))
    before = pipe.scheduler
    request = build_request("a ball", str(animatediff_model), sampler="euler", tiling=True, seed=1)
    requests.generate(request, tmp_path / "ball.mp4", pipe=pipe)
    assert pipe.scheduler is before
    assert not pipe.vae.use_tiling


# LoRAs


def write_lora(path: Path, layer: str, seed: int, channels: int = 32) -> Path:
    """A LoRA of rank 2 that changes one layer of the UNet a lot."""
    draw = torch.Generator().manual_seed(seed)
    path.parent.mkdir(exist_ok=True)
    shapes = {"down": (2, channels), "up": (channels, 2)}
    save_file(
        {f"{layer}.{part}.weight": 2 * torch.randn(*shape, generator=draw) for part, shape in shapes.items()}, path
    )
    return path


LOOK = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora"
LOOK_OUT = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora"
MOVE = (
    "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_out_lora"
)


@pytest.fixture
def model_with_loras(animatediff_model, tmp_path) -> Path:
    """The random model with looks "ink" and "oil" and a camera move "zoom" of its own."""
    folder = shutil.copytree(animatediff_model, tmp_path / "model")
    write_lora(folder / "loras" / "ink.safetensors", LOOK_OUT, 1)
    write_lora(folder / "loras" / "oil.safetensors", LOOK, 2)
    write_lora(folder / "motion_loras" / "zoom.safetensors", MOVE, 3)
    return folder


def test_looks_and_camera_moves_by_name(run, frames_of, model_with_loras, tmp_path):
    made = {}
    for name, words in {
        "plain": (),
        "ink": ("--lora", "ink"),
        "less ink": ("--lora", "ink:0.3"),
        "no ink": ("--lora", "ink:0"),
        "file": ("--lora", f"{model_with_loras}/loras/ink.safetensors:1"),
        "zoom": ("--motion-lora", "zoom"),
        "zoom any": ("--lora", f"{model_with_loras}/motion_loras/zoom.safetensors"),
        "both": ("--motion-lora", "zoom:0.5", "--lora", "ink:0.5", "--lora", "oil"),
    }.items():
        ran = run("generate", "a red ball", "--model", "./model", "--seed", 7, "-o", f"{name}/", *words)
        assert ran.code == 0, ran
        made[name] = frames_of(f"{name}/").astype(int)
    assert np.array_equal(made["ink"], made["file"])
    assert np.array_equal(made["zoom"], made["zoom any"])
    assert np.abs(made["plain"] - made["no ink"]).max() <= 1
    different = [made[name] for name in ("plain", "ink", "less ink", "zoom", "both")]
    assert all(not np.array_equal(a, b) for i, a in enumerate(different) for b in different[:i])

    again = json.loads(run("reproduce", "both/", "--json").out)
    assert again["equal_frames"] == FRAMES
    write_lora(model_with_loras / "loras" / "oil.safetensors", LOOK, 4)
    run("reproduce", "both/").refused("the LoRA oil", "has changed")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--lora", "inc"), "there is no LoRA inc; give a .safetensors file"),
        (("--lora", "inc"), "the model ./model has ink, oil"),
        (("--motion-lora", "ink"), "the model ./model has zoom"),
        (("--motion-lora", "model/loras/ink.safetensors"), "a MotionLoRA changes motion modules only"),
        (("--lora", "wide.safetensors"), "wide.safetensors"),
    ],
)  # fmt: skip
def test_loras_that_do_not_fit(run, model_with_loras, tmp_path, words, said):
    write_lora(tmp_path / "wide.safetensors", LOOK, 1, channels=64)
    run("generate", "a red ball", "--model", "./model", "-o", "ball.mp4", *words).refused(said)
    assert not (tmp_path / "ball.mp4").exists()


# Files that people put together


@pytest.fixture
def picture_model(animatediff_parts, tmp_path) -> Path:
    """The folder of a random Stable Diffusion of other weights, and the file of a motion module for it."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    parts = animatediff_parts(motion_num_attention_heads=8, motion_attention_block_types=("Temporal_Self",) * 2)
    animated = parts["unet"]
    save_file(animated.motion_state_dict(), tmp_path / "v3_module.safetensors")
    known = inspect.signature(UNet2DConditionModel).parameters
    parts["unet"] = UNet2DConditionModel(**{name: value for name, value in animated.config.items() if name in known})
    scheduler = DDIMScheduler(steps_offset=1, clip_sample=False)
    pipe = StableDiffusionPipeline(
        **parts, scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipe.save_pretrained(tmp_path / "pictures")
    return tmp_path / "pictures"


def test_a_plain_stable_diffusion_with_a_motion_module(run, frames_of, picture_model):
    words = ("--model", "pictures", "--size", "32x32", "--frames", 4, "--steps", 2, "--seed", 1)
    run("generate", "a ball", *words, "-o", "ball/").refused("pictures makes pictures; give it a --motion-module")
    run("generate", "a ball", *words, "-o", "ball/", "--dreambooth", "pictures").refused("give it a --motion-module")
    ran = run("generate", "a ball", *words, "-o", "ball/", "--motion-module", "v3_module.safetensors")
    assert ran.code == 0, ran
    assert frames_of("ball/").shape == (4, 32, 32, 3)
    assert json.loads(run("reproduce", "ball/", "--json").out)["equal_frames"] == 4
    assert json.loads(run("plan", "--model", "pictures", "--frames", 30, "--json").out)["frames"] == 30
    Path("v3_module.safetensors").write_bytes(b"")
    run("reproduce", "ball/").refused("the motion module v3_module.safetensors is missing or has changed")


def test_parts_of_the_model_are_replaced(pixels, run, picture_model, animatediff_parts):
    plain = pixels()
    unet = animatediff_parts()["unet"]
    save_file(unet.motion_state_dict(), "v3_same.safetensors")
    assert np.array_equal(pixels("--motion-module", "v3_same.safetensors"), plain)
    module = {name: tensor * 1.5 for name, tensor in unet.motion_state_dict().items()}
    save_file(module, "v3_more.safetensors")
    torch.save(module, "v3_more.ckpt")
    more = pixels("--motion-module", "v3_more.safetensors")
    assert not np.array_equal(more, plain)
    assert np.array_equal(pixels("--motion-module", "v3_more.ckpt", "--allow-pickle"), more)
    look = pixels("--dreambooth", "pictures")
    assert not np.array_equal(look, plain)
    assert json.loads(run("reproduce", "pixels/", "--json").out)["equal_frames"] == FRAMES


def test_a_learned_word_can_be_used(pixels, tmp_path):
    save_file({"emb_params": torch.randn(2, 16, generator=torch.Generator().manual_seed(5))}, "sks.safetensors")
    without = pixels(prompt="a sks ball")
    assert not np.array_equal(without, pixels("--embedding", "sks.safetensors", prompt="a sks ball"))
    assert np.array_equal(pixels(), pixels("--embedding", "sks.safetensors"))


@pytest.fixture
def sparse_network(animatediff_parts, tmp_path) -> str:
    from animagic.systems.animatediff.sparse import SparseControlNet

    torch.manual_seed(4)
    unet = animatediff_parts()["unet"]
    network = SparseControlNet.from_unet(unet, conditioning_channels=4, use_simplified_condition_embedding=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    network.save_pretrained(tmp_path / "net")
    return "net"


def test_pictures_steer_frames(pixels, frames_of, run, picture, sparse_network, animatediff_model, tmp_path):
    control = ("--control", "photo.png@2", "--controlnet", sparse_network)
    made = pixels(*control)
    assert json.loads(run("reproduce", "pixels/", "--json").out)["equal_frames"] == FRAMES
    for other in ((), (*control, "--control", "photo.png@7"), (*control, "--control-scale", 0.2)):
        assert not np.array_equal(made, pixels(*other))
    run("generate", "a ball", "--model", animatediff_model, *control, "--frames", 2).refused("frame 2", "has 2")

    # A model may have such a network of its own.
    model = build_request("a ball", str(animatediff_model), controls={2: picture}, controlnet=sparse_network)
    requests.pipeline_for(model, "cpu").save_pretrained("whole")
    ran = run("generate", "a red ball bounces", "--model", "./whole", "--seed", 7, "-o", "own/", *control[:2])
    assert ran.code == 0, ran
    assert np.array_equal(frames_of("own/"), made)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--motion-module", "none.ckpt"), "none.ckpt"),
        (
            ("--motion-module", "v3_m.ckpt"),
            "is a pickle, which could run code: allow it with allow_pickle (--allow-pickle)",
        ),
        (("--motion-module", "v3_wide.safetensors"), "take a module that was made for it"),
        (("--dreambooth", "nowhere"), "there is no file and no folder nowhere"),
        (("--embedding", "none.pt"), "there is no embedding none.pt"),
        (
            ("--embedding", "wide.safetensors"),
            "wide.safetensors is 24 numbers wide; this model's text_encoder reads 16",
        ),
        (("--control", "photo.png@0", "--controlnet", "nowhere"), "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_files_that_do_not_fit(animate, picture, animatediff_parts, tmp_path, words, said):
    torch.save({}, "v3_m.ckpt")
    wide = animatediff_parts(block_out_channels=(64, 64))["unet"]
    save_file(wide.motion_state_dict(), "v3_wide.safetensors")
    save_file({"emb_params": torch.zeros(1, 24)}, "wide.safetensors")
    animate("-o", "ball.mp4", *words).refused(said)
    assert not Path("ball.mp4").exists()


# Progress, interruption, resumption


class Stop(KeyboardInterrupt):
    pass


@pytest.fixture
def save_always(monkeypatch):
    """The state is kept after every step."""
    import animagic.timeline

    monkeypatch.setattr(animagic.timeline, "RunFolder", partial(animagic.timeline.RunFolder, every=0))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sampler": "euler_a"},
        {"sampler": "dpm++_2m"},
        {"free_init": 2},
        {"frames": 14, "window": 6},
        {"image": "x"},
    ],
    ids=lambda settings: next(iter(settings), "plain"),
)
def test_interrupted_anywhere_the_bytes_are_the_same(
    animatediff_model, tmp_path, picture, save_always, settings, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if "image" in settings:
        settings = {"image": picture, "strength": 0.7}
    pipe = animagic.load(str(animatediff_model))
    request = build_request("a red ball", str(animatediff_model), seed=3, steps=4, **settings)
    steps = []

    def carry_out(output: str, stop_at: int | None = None, resume: bool = True) -> int:
        steps.clear()

        def on_report(report):
            steps.append(report.step)
            if len(steps) == stop_at:
                raise Stop

        requests.generate(request, output, pipe=pipe, on_report=on_report, resume=resume)
        return len(steps)

    total = carry_out("whole.mp4", resume=False)
    assert total == {"free_init": 8, "image": 2}.get(next(iter(settings), ""), 4)
    assert steps == list(range(1, total + 1)), "progress counts up to the end"
    for stop_at in range(1, total + 1):
        with pytest.raises(Stop):
            carry_out("ball.mp4", stop_at)
        assert not Path("ball.mp4").exists()
        left = carry_out("ball.mp4")
        assert left <= total - stop_at + 1
        assert Path("ball.mp4").read_bytes() == Path("whole.mp4").read_bytes(), f"interrupted after step {stop_at}"
        assert not requests.resume_folder(Path("ball.mp4")).exists()
        Path("ball.mp4").unlink()


def test_the_preview_shows_all_frames(animatediff_model, tmp_path, monkeypatch):
    import animagic.media

    drawn = []
    monkeypatch.setattr(animagic.media, "contact_sheet", lambda frames, *rest: (drawn.append(frames), frames[0])[1])
    request = build_request("a red ball", str(animatediff_model), seed=3)
    requests.generate(request, tmp_path / "ball.mp4", preview=tmp_path / "look.png", device="cpu")
    assert {frames.shape for frames in drawn} == {(FRAMES, 32, 32, 3)}
    assert not (tmp_path / "look.png").exists()


# plan, models, doctor


def test_plan_draws_windows(run, animatediff_model):
    from animagic import OverlappingWindows, WholeClip

    for words, plan in {
        (): WholeClip(8, 3),
        ("--frames", 20, "--steps", 4): OverlappingWindows(20, 4, size=8, overlap=2),
        ("--frames", 20, "--window", 6, "--overlap", 3, "--loop", "--window-weights", "flat"): OverlappingWindows(
            20, 3, size=6, overlap=3, closed_loop=True, weights="flat"
        ),
        ("--frames", 20, "--kind", "whole"): WholeClip(20, 3),
    }.items():
        ran = run("plan", "--model", animatediff_model, *words, "--json")
        assert ran.code == 0, ran
        summary = plan.describe()
        assert json.loads(ran.out) == {
            "output": "plan.png",
            **{name: getattr(summary, name) for name in summary.__dataclass_fields__},
        }


def test_models_lists_what_came_with_a_model(run, model_with_loras, monkeypatch):
    from animagic import zoo

    monkeypatch.setattr(zoo, "_MODELS", {})
    zoo.register("model", model_with_loras, "random pictures that move")
    ran = run("models")
    assert "model  (animatediff, " in ran.out
    assert ran.out.endswith("random pictures that move\n    --lora: ink, oil\n    --motion-lora: zoom\n")
    entry = json.loads(run("models", "--json").out)["model"]
    assert (entry["system"], entry["loras"], entry["motion_loras"]) == ("animatediff", ["ink", "oil"], ["zoom"])


def test_a_budget_of_memory_changes_no_frame(animate, frames_of):
    assert animate("-o", "whole.mp4").code == 0
    ran = animate("-o", "fitting.mp4", "--memory", "8GB")
    assert ran.code == 0, ran
    assert "of 8.00 GB: nothing to be saved" in ran.err
    np.testing.assert_array_equal(frames_of("fitting.mp4"), frames_of("whole.mp4"))
    animate("-o", "never.mp4", "--memory", "20MB").refused("0.02 GB are too little", "are needed")


# Wrong input


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hand-over", 2], "has no --hand-over: that is for MAGI-1 models"),
        (["--live"], "has no --live"),
        (["--quality", "hq"], "has no --quality"),
        (["--negative-tokens"], "has no --negative-tokens"),
        (["--special-tokens", "a.npz"], "has no --special-tokens"),
        (["--frames", "endless"], "makes videos that end"),
        (["--size", "33x32"], "33x32 is not possible"),
        (["--prompt-at", "8:a cat"], "no prompt can begin at frame 8"),
        (["--sampler", "slow"], "scheduler 'slow' is unknown; choose one of ddim"),
        (["--window", "0"], "--window is 0; it must lie between"),
        (["--window", "17", "--frames", "20"], "at most 16 frames"),
        (["--overlap", "-1"], "--overlap is -1; it must lie between"),
        (["--overlap", "8"], "the overlap must be less than the window's 8 frames"),
        (["--window-weights", "round", "--loop"], "--window-weights is round; it can be 'pyramid' or 'flat'"),
        (["--free-init", "-1"], "--free-init is -1; it must lie between"),
        (["--clip-skip", "-1"], "--clip-skip is -1; it must lie between"),
        (["--strength", "0.5"], "strength says how far an image or a video"),
        (["--image", "photo.png", "--strength", "0"], "it must lie between 0 and 1"),
        (["--image", "photo.png", "--strength", "nan"], "it must lie between 0 and 1"),
        (["--control", "photo.png"], "--control FILE@FRAME"),
        (["--control", "photo.png@x"], "--control FILE@FRAME"),
        (["--control", "a.png@1", "--control", "b.png@1"], "frame 1 has two pictures"),
        (["--control", "no.png@1"], "no.png does not exist"),
        (["--control", "photo.png@1"], "no network that reads --control"),
        (["--controlnet", "net"], "a controlnet has nothing to read"),
        (["--lora", "bluprint"], "there is no LoRA bluprint"),
        (["--motion-lora", "zoom"], "there is no LoRA zoom"),
        (["--guidance", "-1"], "must lie between 0 and 100"),
        (["--video", "clip.mp4", "--frames", "9"], "the video has 6 frames; 9 cannot be made of it"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_what_is_refused(animate, picture, clip, tmp_path, monkeypatch, words, said):
    monkeypatch.setattr("sys.stdin", io.StringIO())  # --live listens
    before = sorted(tmp_path.iterdir())
    animate("-o", "ball.mp4", "--resume", *words).refused(said)
    assert sorted(tmp_path.iterdir()) == before


def test_wrong_input_is_one_line_on_stderr(start, animatediff_model):
    """In a process of its own: libraries warn when they are imported."""
    process = start("generate", "a red ball", "--model", animatediff_model, "--size", "33x32", "-o", "ball.mp4")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("animagic: 33x32 is not possible")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--loop"], "--loop"),
        (["--motion-prompt", "left"], "--motion-prompt"),
        (["--motion-module", "m.ckpt"], "--motion-module"),
        (["--motion-lora", "zoom"], "--motion-lora"),
        (["--dreambooth", "d.ckpt"], "--dreambooth"),
        (["--embedding", "e.pt"], "--embedding"),
        (["--sampler", "ddim"], "--sampler"),
        (["--window", "8"], "--window"),
        (["--overlap", "0"], "--overlap"),
        (["--window-weights", "flat"], "--window-weights"),
        (["--free-noise"], "--free-noise"),
        (["--free-init", "2"], "--free-init"),
        (["--control", "a.png@0", "--controlnet", "net"], "--control"),
        (["--clip-skip", "1"], "--clip-skip"),
        (["--image", "photo.png", "--strength", "0.5"], "--strength"),
    ],
    ids=lambda value: "" if isinstance(value, list) else value,
)
def test_magi1_has_none_of_it(generate, run, picture, tiny_model, tmp_path, words, option):
    shared = option in ("--loop", "--window", "--overlap", "--window-weights")
    owners = "AnimateDiff and MagicAnimate" if shared else "AnimateDiff"
    if option in ("--window", "--overlap"):
        owners = "AnimateDiff, MagicAnimate and MagicInfinite"
    generate("-o", "ball.mp4", *words).refused(f"has no {option}: that is for {owners} models; leave it out")
    if shared:
        run("plan", "--model", tiny_model, *words).refused(f"has no {option}")
    assert [path.name for path in tmp_path.iterdir()] == [picture]


def test_models_of_other_systems_are_refused(run, animatediff_model, tmp_path):
    shutil.copytree(animatediff_model, tmp_path / "model")
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    for name, said in {
        "CogVideoXPipeline": "is a CogVideoXPipeline; known are models of MAGI-1, AnimateDiff",
        "StableDiffusionPipeline": "makes pictures; give it a --motion-module",
    }.items():
        (tmp_path / "model" / "model_index.json").write_text(json.dumps({**index, "_class_name": name}))
        run("generate", "a ball", "--model", "./model", "-o", "ball.mp4").refused(said)


def test_a_damaged_model_names_what_is_missing(run, animatediff_model, tmp_path):
    folder = shutil.copytree(animatediff_model, tmp_path / "model")
    settings = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps({**settings, "motion_mid_block": True}))
    ran = run("generate", "a ball", "--model", "./model", "-o", "ball.mp4")
    ran.refused("lacks the tensor unet.mid_block.motion_modules.0")
