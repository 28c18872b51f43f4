"""`animagic magicanimate`: a tiny picture model and what was published around it, made into videos by the published
configuration; and `animagic convert` of the same files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import ControlNetModel
from published_files import motion_module, picture_model, save, with_positions, write_folder

from animagic.media import VideoWriter, iter_video, probe, read_metadata, write_image
from animagic.poses import PART_COLOURS
from animagic.systems.magicanimate.schema import ConfigFields

SIDE = 32
CONFIG = {
    "pretrained_model_path": "pretrained_models/stable-diffusion-v1-5",
    "pretrained_vae_path": "pretrained_models/sd-vae-ft-mse",
    "pretrained_controlnet_path": "pretrained_models/MagicAnimate/densepose_controlnet",
    "pretrained_appearance_encoder_path": "pretrained_models/MagicAnimate/appearance_encoder",
    "pretrained_unet_path": "",
    "motion_module": "pretrained_models/MagicAnimate/temporal_attention/temporal_attention.ckpt",
    "savename": None,
    "fusion_blocks": "midup",
    "seed": [1],
    "steps": 2,
    "guidance_scale": 7.5,
    "source_image": ["inputs/source_image/lisa.png", "inputs/source_image/tall.png"],
    "video_path": ["inputs/driving/densepose/running.mp4", "inputs/driving/densepose/dancing.mp4"],
    "inference_config": "configs/inference/inference.yaml",
    "size": SIDE,
    "L": 8,
    "S": 1,
    "I": 0,
    "clip": 0,
    "offset": 0,
    "max_length": None,
    "video_type": "condition",
    "invert_video": False,
    "save_individual_videos": False,
}
INFERENCE = {
    "unet_additional_kwargs": {
        "unet_use_cross_frame_attention": False,
        "unet_use_temporal_attention": False,
        "use_motion_module": True,
        "motion_module_resolutions": [1, 2, 4, 8],
        "motion_module_mid_block": False,
        "motion_module_decoder_only": False,
        "motion_module_type": "Vanilla",
        "motion_module_kwargs": {
            "num_attention_heads": 8,
            "num_transformer_block": 1,
            "attention_block_types": ["Temporal_Self", "Temporal_Self"],
            "temporal_position_encoding": True,
            "temporal_position_encoding_max_len": 24,
            "temporal_attention_dim_div": 1,
        },
    },
    "noise_scheduler_kwargs": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear"},
}


def densepose(frames: int, height: int, width: int) -> np.ndarray:
    """A video as DensePose draws it: parts that move before its darkest colour."""
    video = np.empty((frames, height, width, 3), np.uint8)
    video[:] = PART_COLOURS[0]
    for i, frame in enumerate(video):
        left = 4 + i % (width // 3)
        frame[height // 8 : height // 3, left + 2 : left + width // 4] = PART_COLOURS[23]
        frame[height // 3 : height // 2, left : left + width // 3] = PART_COLOURS[2]
        frame[height // 2 : height * 7 // 8, left : left + width // 6] = PART_COLOURS[9]
        frame[height // 2 : height * 7 // 8, left + width // 6 : left + width // 3] = PART_COLOURS[10]
    return video


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """What someone has who followed the original's instructions, in small: configurations, weights, media."""
    from animagic import AppearanceEncoder

    root = tmp_path_factory.mktemp("MagicAnimate")
    models = root / "pretrained_models"
    parts = picture_model()
    write_folder(models / "stable-diffusion-v1-5", parts)
    torch.manual_seed(2)
    picture_model(2)["vae"].save_pretrained(models / "sd-vae-ft-mse")
    tensors = with_positions(motion_module("v1"), 24)
    named = {f"module.unet.{name}": tensor for name, tensor in tensors.items()}
    save({"state_dict": named}, models / "MagicAnimate/temporal_attention/temporal_attention.ckpt")
    encoder = AppearanceEncoder.from_unet2d(parts["unet"])
    encoder.save_pretrained(models / "MagicAnimate/appearance_encoder")
    # As published: its configuration is that of a whole UNet.
    file = models / "MagicAnimate/appearance_encoder/config.json"
    fields = json.loads(file.read_text())
    file.write_text(
        json.dumps(
            {**dict(parts["unet"].config), "_class_name": "AppearanceEncoderModel"}
            | {name: value for name, value in fields.items() if name.startswith("_diffusers")}
        )
    )
    controlnet = ControlNetModel.from_unet(parts["unet"], conditioning_embedding_out_channels=(8, 16))
    torch.manual_seed(4)
    for parameter in controlnet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    controlnet.save_pretrained(models / "MagicAnimate/densepose_controlnet")
    (root / "configs/inference").mkdir(parents=True)
    (root / "configs/prompts").mkdir()
    (root / "configs/inference/inference.yaml").write_text(yaml.safe_dump(INFERENCE))
    for folder in ("source_image", "driving/densepose"):
        (root / "inputs" / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("lisa", (48, 48)), ("tall", (96, 40))):
        write_image(root / f"inputs/source_image/{name}.png", rng.integers(0, 255, (*size, 3), np.uint8))
    for name, frames, size in (("running", 11, (64, 64)), ("dancing", 8, (64, 64))):
        with VideoWriter(root / f"inputs/driving/densepose/{name}.mp4", fps=25) as writer:
            writer.write(densepose(frames, *size))
    return root


def write(repository: Path, **changes) -> Path:
    path = repository / "configs/prompts/animation.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **changes}, sort_keys=False))
    return path


def test_the_published_configuration_runs_unchanged(run, repository, monkeypatch):
    config = write(repository)
    ran = run("magicanimate", "--config", config, "-o", "made", "--allow-pickle", "--json")
    assert ran.code == 0, ran.err
    videos = json.loads(ran.out)["videos"]
    assert [(v["frames"], v["height"], v["width"], v["fps"], v["seed"]) for v in videos] == [
        (11, SIDE, SIDE, 25.0, 1),
        (8, SIDE, SIDE, 25.0, 1),
    ]
    assert [Path(v["output"]).name for v in videos] == ["0-lisa-as-running.mp4", "1-tall-as-dancing.mp4"]
    stored = read_metadata(videos[0]["output"])
    assert stored["request"]["model"] == str(config)
    assert len(stored["drift"]) == 2
    again = run("reproduce", videos[0]["output"], "--allow-pickle")
    assert again.code == 0
    assert "11 of 11 frames are equal" in again.err


def test_poses_are_padded_as_in_the_original(run, repository):
    """Its windows of 8 run over 16 poses, of which the last is repeated; frames 0 and 8 begin from the same noise."""
    import animagic
    from animagic.requests import build_request, job_for

    config = write(repository)
    picture, video = (
        repository / "inputs" / name for name in ("source_image/lisa.png", "driving/densepose/running.mp4")
    )
    job = job_for(build_request("", str(config), image=str(picture), video=str(video), fit="stretch", seed=1))
    pipe = job.load("cpu", allow_pickle=True)
    job.begin(pipe)
    arguments = job.arguments()
    assert isinstance(pipe, animagic.MagicAnimatePipeline)
    assert len(arguments["pose_frames"]) == 16
    assert arguments["clip_sample"]
    poses = arguments["pose_frames"][[10, 15]]
    assert np.array_equal(poses[0], poses[1])
    assert job.request.frames == 11


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"source_image": ["inputs/source_image/nobody.png"] * 2}, "source_image[0] is inputs/source_image/nobody.png"),
        ({"video_path": ["inputs/driving/densepose/running.mp4"]}, "video_path has 1, source_image 2"),
        ({"motion_module": "nowhere.ckpt"}, "motion_module is nowhere.ckpt"),
        ({"sieze": 512}, "sieze"),
        ({"steps": 0}, "steps"),
        ({"invert_video": True}, "invert_video"),
    ],
)
def test_wrong_configurations(run, repository, changes, sentence):
    ran = run("magicanimate", "--config", write(repository, **changes), "-o", "made", "--allow-pickle")
    assert ran.code == 2
    assert sentence in ran.err
    assert len(ran.err.strip().splitlines()) == 1
    assert not Path("made").exists()


def test_settings_stand_in_place_of_the_files(run, repository):
    config = write(repository)
    ran = run("magicanimate", "--config", config, "-o", "made", "--allow-pickle", "--set", "max_length=3", "--set",
              "offset=2", "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    assert [v["frames"] for v in json.loads(ran.out)["videos"]] == [3, 3]


def test_pickles_need_a_word(run, repository):
    ran = run("magicanimate", "--config", write(repository), "-o", "made")
    assert ran.code == 2
    assert "--allow-pickle" in ran.err


def test_an_ordinary_driving_video_is_refused_where_nobody_is_in_it(run, repository, make_moving_clip):
    with VideoWriter("clip.mp4", fps=10) as writer:
        writer.write(make_moving_clip(4, 64, 64))
    config = write(repository, video_path=[str(Path("clip.mp4").absolute())] * 2)
    ran = run("magicanimate", "--config", config, "-o", "made", "--allow-pickle")
    assert ran.code == 2
    assert "shows no person" in ran.err


def test_the_result_is_a_video_that_plays(run, repository):
    ran = run("magicanimate", "--config", write(repository), "-o", "made", "--allow-pickle", "--json")
    file = json.loads(ran.out)["videos"][0]["output"]
    assert probe(file)["frames"] == len(list(iter_video(file))) == 11


def test_converted_files_make_videos(run, repository, frames_of):
    parts, base = (repository / "pretrained_models" / name for name in ("MagicAnimate", "stable-diffusion-v1-5"))
    vae = repository / "pretrained_models/sd-vae-ft-mse"
    ran = run("convert", parts, "--base", base, "--vae", vae, "-o", "model", "--allow-pickle")
    assert ran.code == 0, ran.err
    pairs = [repository / "inputs" / name for name in ("source_image/lisa.png", "driving/densepose/dancing.mp4")]
    size = ("--size", f"{SIDE}x{SIDE}", "--fit", "stretch", "--seed", 1, "--steps", 2)
    assert run("animate", *pairs, "--model", "model", *size, "-o", "converted.mp4").code == 0
    config = write(repository, source_image=[str(pairs[0])], video_path=[str(pairs[1])])
    assert run("magicanimate", "--config", config, "-o", "made", "--allow-pickle").code == 0
    converted, original = frames_of("converted.mp4"), frames_of("made/0-lisa-as-dancing.mp4")
    # The published scheduler clips what it predicts, which ours does not; random weights go far beyond.
    assert converted.shape == original.shape
    assert run("convert", parts, "-o", "other", "--allow-pickle").code == 2


def test_the_page_has_every_field():
    page = Path(__file__).resolve().parents[2] / "docs" / "tasks" / "magicanimate-yaml.md"
    rows = set(re.findall(r"^\| `(\w+)` \| .+ \|$", page.read_text("utf-8"), re.M))
    assert rows == set(ConfigFields.model_fields)
