"""`animagic animatediff`: a tiny picture model and what is published around it, made into videos by original files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from published_files import UNET, VAE, motion_module, original, picture_model, save, with_positions, write_folder

from animagic import requests
from animagic.media import VideoWriter, iter_video, probe, read_metadata, write_image
from animagic.systems.animatediff.original_job import videos_of

SIDE = 32
# As much smaller as that of Stable Diffusion: scribbles are made smaller by the network itself, to that size.
VAE_8X = {
    **VAE,
    "block_out_channels": (32,) * 4,
    "down_block_types": VAE["down_block_types"] * 2,
    "up_block_types": VAE["up_block_types"] * 2,
}
MODULE = {
    "num_attention_heads": 8,
    "num_transformer_block": 1,
    "attention_block_types": ["Temporal_Self", "Temporal_Self"],
    "temporal_position_encoding": True,
    "temporal_attention_dim_div": 1,
}
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear", "steps_offset": 1, "clip_sample": False}
FILES = {
    "v1": {"motion_module": "models/Motion_Module/mm_sd_v15.ckpt"},
    "v2": {"motion_module": "models/Motion_Module/mm_sd_v15_v2.ckpt"},
    "v3": {"motion_module": "models/Motion_Module/v3_sd15_mm.ckpt"},
}
ADAPTER = {"adapter_lora_path": "models/Motion_Module/v3_sd15_adapter.ckpt", "adapter_lora_scale": 0.5}
DREAMBOOTH = {"dreambooth_path": "models/DreamBooth_LoRA/toon.safetensors"}
ZOOM = {"motion_module_lora_configs": [{"path": "models/MotionLoRA/v2_lora_ZoomIn.ckpt", "alpha": 1.0}]}
PROMPTS = {"prompt": ["a red ball", "a ball rolls"], "n_prompt": ["red"], "seed": [3, 2**63 + 5]}


def inference(version: str) -> dict:
    """An `inference_config` as the original has it: it leaves out what the original's networks have by themselves."""
    more = {} if version == "v1" else {"use_inflated_groupnorm": True}
    length = {"v1": 24, "v2": 32}.get(version)
    module = MODULE if length is None else {**MODULE, "temporal_position_encoding_max_len": length}
    flags = {
        "unet_use_cross_frame_attention": False,
        "unet_use_temporal_attention": False,
        "use_motion_module": True,
        "motion_module_resolutions": [1, 2, 4, 8],
        "motion_module_mid_block": version == "v2",
        "motion_module_decoder_only": False,
        "motion_module_type": "Vanilla",
        "motion_module_kwargs": module,
        **more,
    }
    return {"unet_additional_kwargs": flags, "noise_scheduler_kwargs": NOISE}


def sparse_config(kind: str) -> dict:
    own = {
        "set_noisy_sample_input_to_zero": True,
        "use_simplified_condition_embedding": kind == "rgb",
        "conditioning_channels": 4 if kind == "rgb" else 3,
        "use_motion_module": True,
        "motion_module_resolutions": [1, 2, 4, 8],
        "motion_module_mid_block": False,
        "motion_module_type": "Vanilla",
        "motion_module_kwargs": {**MODULE, "attention_block_types": ["Temporal_Self"]},
    }
    return {"controlnet_additional_kwargs": own}


def sparse(kind: str) -> dict:
    name = {"rgb": "latent_condition", "scribble": "image_condition"}[kind]
    return {
        **FILES["v3"],
        "inference_config": "configs/inference/inference-v3.yaml",
        "controlnet_config": f"configs/inference/sparsectrl/{name}.yaml",
        "controlnet_path": f"models/SparseCtrl/v3_sd15_sparsectrl_{kind}.ckpt",
        "controlnet_images": ["__assets__/demos/first.png", "__assets__/demos/last.png"],
        "controlnet_image_indexs": [0, -1],
    }


def entry(version: str, *parts: dict) -> dict:
    fields = {"inference_config": f"configs/inference/inference-{version}.yaml", **FILES[version], **PROMPTS}
    for part in parts:
        fields |= part
    return {**fields, "steps": 2, "guidance_scale": 7.5}


def attention_lora(names, width: int = 32, seed: int = 8) -> dict:
    """A MotionLoRA or domain adapter in the published layout, for layers of one width."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in names:
        for projection in ("to_q", "to_out"):
            for part, shape in (("down", (2, width)), ("up", (width, 2))):
                key = f"{name}.processor.{projection}_lora.{part}.weight"
                tensors[key] = torch.randn(shape, generator=draw) / 4
    return {"state_dict": tensors | {"animatediff_config": {"lora_rank": 2}}}


@pytest.fixture(scope="module")
def repository(tmp_path_factory, make_moving_clip) -> Path:
    """What someone has who followed the original's instructions, in small: configurations, weights, pictures."""
    from diffusers import AutoencoderKL

    from animagic.systems.animatediff.sparse import SparseControlNet
    from animagic.systems.animatediff.unet import AnimateDiffUNet

    root = tmp_path_factory.mktemp("AnimateDiff")
    models = root / "models"
    for seed, where in ((0, "base"), (1, "dreambooth")):
        parts = picture_model(seed)
        torch.manual_seed(seed)
        parts["vae"] = AutoencoderKL(**VAE_8X).eval()
        if where == "base":
            write_folder(models / "StableDiffusion" / "stable-diffusion-v1-5", parts)
        else:
            save(original(parts), models / "DreamBooth_LoRA" / "toon.safetensors")
    for version, length in (("v1", 24), ("v2", 32), ("v3", 32)):
        tensors = with_positions(motion_module(version), length)
        named = {f"module.{name}": tensor for name, tensor in tensors.items()}
        save({"state_dict": named} if version == "v2" else tensors, root / FILES[version]["motion_module"])
    place = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks"
    save(attention_lora([f"{place}.0", f"{place}.1"]), root / ZOOM["motion_module_lora_configs"][0]["path"])
    spatial = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    save(attention_lora([spatial]), root / ADAPTER["adapter_lora_path"])
    kohya = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_v"
    draw = torch.Generator().manual_seed(9)
    down, up = torch.randn(1, 32, generator=draw), torch.randn(32, 1, generator=draw)
    lora = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(0.25)}
    save({f"{kohya}.{name}": tensor for name, tensor in lora.items()}, models / "DreamBooth_LoRA" / "lora.safetensors")
    unet = AnimateDiffUNet(**UNET, motion_num_attention_heads=8)
    for kind in ("rgb", "scribble"):
        simple = {"conditioning_channels": 4, "use_simplified_condition_embedding": True}
        network = SparseControlNet.from_unet(unet, **(simple if kind == "rgb" else {}))
        torch.manual_seed(6)
        state = {name: torch.randn_like(tensor) / 8 for name, tensor in network.state_dict().items()}
        save({"controlnet": with_positions(state, 32)}, models / "SparseCtrl" / f"v3_sd15_sparsectrl_{kind}.ckpt")
    configs = root / "configs" / "inference"
    (configs / "sparsectrl").mkdir(parents=True)
    for version in FILES:
        (configs / f"inference-{version}.yaml").write_text(yaml.safe_dump(inference(version)))
    for kind, name in (("rgb", "latent"), ("scribble", "image")):
        (configs / "sparsectrl" / f"{name}_condition.yaml").write_text(yaml.safe_dump(sparse_config(kind)))
    (root / "__assets__" / "demos").mkdir(parents=True)
    clip = make_moving_clip(2, 96, 64)
    for name, picture in zip(("first", "last"), clip, strict=True):
        write_image(root / "__assets__" / "demos" / f"{name}.png", picture)
    (root / "configs" / "prompts").mkdir()
    return root


@pytest.fixture
def write(repository):
    """Writes an inference file among the original's."""
    written = []

    def write(*entries, name: str = "prompts.yaml") -> Path:
        path = repository / "configs" / "prompts" / name
        path.write_text(yaml.safe_dump(list(entries), sort_keys=False))
        written.append(path)
        return path

    yield write
    for path in written:
        path.unlink(missing_ok=True)


@pytest.fixture
def animate(run, write):
    """Runs `animagic animatediff` with these entries: videos of two frames."""

    def animate(*entries, words=(), output="out"):
        sizes = ("--L", 2, "--W", SIDE, "--H", SIDE)
        return run("animatediff", "--config", write(*entries), "-o", output, "--allow-pickle", *sizes, *words)

    return animate


ENTRIES = {
    "v1": entry("v1", DREAMBOOTH),
    "v2": entry("v2", DREAMBOOTH, {"lora_model_path": ""}),
    "v3-adapter": entry("v3", DREAMBOOTH, ADAPTER),
    "motion-lora": entry("v2", ZOOM),
    "lora": entry("v3", {"lora_model_path": "models/DreamBooth_LoRA/lora.safetensors", "lora_alpha": 0.5}),
    "rgb": entry("v3", ADAPTER, sparse("rgb")),
    "scribble": entry("v3", ADAPTER, sparse("scribble")),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_file_becomes_videos(animate, frames_of, name):
    ran = animate(ENTRIES[name], words=["--json"])
    assert ran.code == 0, ran
    told = json.loads(ran.out)
    assert [video["seed"] for video in told["videos"]] == [3, 2**63 + 5]
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "0-a-red-ball.mp4",
        "1-a-ball-rolls.mp4",
        "sheet.png",
    ]
    for video in told["videos"]:
        assert (video["frames"], video["width"], video["height"], video["fps"]) == (2, SIDE, SIDE, 8)
        assert frames_of(video["output"]).shape == (2, SIDE, SIDE, 3)
    assert probe(told["contact_sheet"])["width"] >= 2 * SIDE


# The numbers


@pytest.fixture(scope="module")
def made() -> dict[str, np.ndarray]:
    """What `first_frames` has made without settings."""
    return {}


@pytest.fixture
def first_frames(write, made, tmp_path):
    """The frames of the first video that an entry makes, without the losses of a film."""

    def first_frames(fields: dict, *settings: str) -> np.ndarray:
        name = repr(fields)
        if not settings and name in made:
            return made[name]
        sizes = ["--L=2", f"--W={SIDE}", f"--H={SIDE}"]
        request = next(videos_of(write(fields), [*sizes, *settings])).request
        requests.generate(request, f"{tmp_path}/frames/", device="cpu", allow_pickle=True)
        frames = np.stack(list(iter_video(f"{tmp_path}/frames/")))
        shutil.rmtree(tmp_path / "frames")
        return frames if settings else made.setdefault(name, frames)

    return first_frames


def changed(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a.astype(int) - b).max() > 1)


def test_the_weights_are_those_that_the_original_puts_together(first_frames, repository):
    """Motion module, DreamBooth, and every LoRA as weight += scale * up @ down, whatever alpha its file has."""
    from diffusers import AutoencoderKL, DDIMScheduler
    from safetensors.torch import load_file
    from transformers import CLIPTokenizer

    from animagic import AnimateDiffPipeline
    from animagic.systems.animatediff.unet import AnimateDiffUNet

    lora = "models/DreamBooth_LoRA/lora.safetensors"
    frames = first_frames(entry("v2", DREAMBOOTH, ADAPTER, ZOOM, {"lora_model_path": lora, "lora_alpha": 0.6}))

    parts = picture_model(1)
    base = repository / "models" / "StableDiffusion" / "stable-diffusion-v1-5"
    settings = {"motion_num_attention_heads": 8, "motion_mid_block": True, "motion_max_length": 32}
    unet = AnimateDiffUNet(**UNET, **settings)
    motion = torch.load(repository / FILES["v2"]["motion_module"])["state_dict"]
    motion = {name.removeprefix("module."): tensor for name, tensor in motion.items() if ".pe" not in name}
    unet.load_state_dict(parts["unet"].state_dict() | motion)
    weights = unet.state_dict()
    for path, scale in ((ADAPTER["adapter_lora_path"], 0.5), ("models/MotionLoRA/v2_lora_ZoomIn.ckpt", 1.0)):
        tensors = torch.load(repository / path)["state_dict"]
        for name in [name for name in tensors if ".down." in name]:
            layer = name.replace("processor.", "").replace("_lora.down", "").replace("to_out.", "to_out.0.")
            weights[layer] += scale * tensors[name.replace(".down.", ".up.")] @ tensors[name]
    tensors = load_file(repository / lora)
    kohya = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_v"
    change = 0.6 * tensors[f"{kohya}.lora_up.weight"] @ tensors[f"{kohya}.lora_down.weight"]
    weights["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_v.weight"] += change
    torch.manual_seed(1)
    vae = AutoencoderKL(**VAE_8X).eval()
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
    pipe = AnimateDiffPipeline(unet.eval(), vae, parts["text_encoder"], tokenizer, DDIMScheduler(**NOISE))
    expected = pipe(
        "a red ball",
        negative_prompt="red",
        num_frames=2,
        height=SIDE,
        width=SIDE,
        num_inference_steps=2,
        guidance_scale=7.5,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).frames[0]
    assert np.abs(frames - expected * 255).max() <= 1


@pytest.mark.parametrize(
    "setting",
    [
        "motion_module_lora_configs=[]",
        "adapter_lora_scale=0",
        "domain_lora_scale=0",
        "dreambooth_path=",
        "lora_alpha=0.1",
        "n_prompt=['a ball']",
        "guidance_scale=2",
        "steps=3",
        "seed=9",
        "0.prompt=[ball]",
    ],
)
def test_every_field_counts(first_frames, setting):
    fields = entry(
        "v2", DREAMBOOTH, ADAPTER, ZOOM, {"lora_model_path": "models/DreamBooth_LoRA/lora.safetensors", "lora_alpha": 1}
    )
    fields |= {"prompt": ["a red ball"], "seed": 3}
    if setting.startswith("domain"):
        del fields["adapter_lora_scale"]
    assert changed(first_frames(fields), first_frames(fields, setting))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_inflated_groupnorm", False),
        ("temporal_position_encoding", False),
        ("beta_schedule", "scaled_linear"),
        ("steps_offset", 0),
    ],
)
def test_the_inference_config_counts(first_frames, repository, field, value):
    config = inference("v3")
    section = next(
        s for s in (*config.values(), config["unet_additional_kwargs"]["motion_module_kwargs"]) if field in s
    )
    section[field] = value
    (repository / "configs" / "inference" / "other.yaml").write_text(yaml.safe_dump(config))
    other = "inference_config=configs/inference/other.yaml"
    assert changed(first_frames(entry("v3")), first_frames(entry("v3"), other))


@pytest.mark.parametrize("kind", ["rgb", "scribble"])
@pytest.mark.parametrize(
    "setting",
    ["controlnet_path=", "controlnet_image_indexs=[-1,0]", "normalize_condition_images=true"],
)
def test_the_pictures_count(first_frames, kind, setting):
    fields = entry("v3", sparse(kind))
    assert changed(first_frames(fields), first_frames(fields, setting))


def test_half_precision(write):
    from animagic.systems.animatediff.original import read_entries

    pipe = read_entries(write(entry("v3", sparse("rgb"))))[0].load(torch.float16, allow_pickle=True)
    for part in ("unet", "vae", "text_encoder", "sparse_controlnet"):
        assert {tensor.dtype for tensor in getattr(pipe, part).parameters()} == {torch.float16}, part


# What comes out


def test_entries_and_options(animate, write, run, repository, monkeypatch):
    entries = [entry("v3", {"L": 3, "prompt": ["a ball"], "seed": 5}), {**entry("v2"), "prompt": ["a red ball"]}]
    entries[1] |= {"seed": [-1], "inference_config": "configs/inference/inference-v3.yaml"}
    config = write(*entries)
    monkeypatch.chdir(repository.parent)
    words = ("--set", "1.inference_config=configs/inference/inference-v2.yaml", "--format", "gif", "--without-xformers")
    base = ("--pretrained-model-path", "models/StableDiffusion/stable-diffusion-v1-5", "--fp32", "--device", "cpu")
    ran = run(
        "animatediff",
        "--config",
        config,
        "--L",
        4,
        "--H",
        16,
        "--W",
        SIDE,
        "--allow-pickle",
        *words,
        *base,
        "--threads",
        1,
    )
    assert ran.code == 0, ran
    folder = next(Path("samples").iterdir())
    assert folder.name.startswith("prompts-20")
    assert ran.out.split() == [str(folder / name) for name in ("0-a-ball.gif", "1-a-red-ball.gif", "sheet.png")]
    assert probe(folder / "0-a-ball.gif")["frames"] == 3
    assert probe(folder / "1-a-red-ball.gif")["frames"] == 4
    assert "seed 5\n" in ran.err
    stored = read_metadata(folder / "1-a-red-ball.gif")["request"]
    assert f"seed {stored['seed']}\n" in ran.err
    assert (stored["model"], stored["entry"], stored["frames"], stored["height"]) == (str(config), 1, 4, 16)


def test_it_can_be_made_again(animate, run, repository):
    assert animate(entry("v3"), entry("v3", sparse("rgb"), {"prompt": ["a ball"], "seed": -1})).code == 0
    for name in ("0-a-red-ball", "2-a-ball"):
        ran = run("reproduce", f"out/{name}.mp4", "--allow-pickle", "--json")
        assert ran.code == 0, ran
        assert json.loads(ran.out)["equal_frames"] == 2
    assert "controlnet_config" in run("info", "out/2-a-ball.mp4").out
    picture = repository / "__assets__" / "demos" / "first.png"
    kept = picture.read_bytes()
    write_image(picture, np.zeros((8, 8, 3), np.uint8))
    run("reproduce", "out/2-a-ball.mp4", "--allow-pickle").refused("first.png is missing or has changed")
    picture.write_bytes(kept)


def test_what_is_finished_stays(animate):
    entries = entry("v3", {"seed": -1}), entry("v2", {"prompt": ["a ball"], "seed": 4})
    assert animate(*entries).code == 0
    seed = read_metadata("out/1-a-ball-rolls.mp4")["request"]["seed"]
    times = {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.mp4")}
    animate(*entries).refused("0-a-red-ball.mp4 is there already", "--resume")
    Path("out/2-a-ball.mp4").unlink()
    ran = animate(*entries, words=["--resume", "--json"])
    assert ran.code == 0, ran
    told = json.loads(ran.out)["videos"]
    assert [video["seconds"] > 0 for video in told] == [False, False, True]
    assert told[1]["seed"] == seed
    for name in ("0-a-red-ball.mp4", "1-a-ball-rolls.mp4"):
        assert Path("out", name).stat().st_mtime_ns == times[name]
    assert not list(Path("out").glob("*.resume"))
    animate(*entries, words=["--resume", "--set", "steps=3"]).refused("0-a-red-ball.mp4", "made with another")
    with VideoWriter("out/2-a-ball.mp4", 8) as writer:
        writer.write(np.zeros((2, 16, 16, 3), np.uint8))
    animate(*entries, words=["--resume"]).refused("2-a-ball.mp4 was not made by animagic")


def test_entries_with_equal_weights_are_loaded_once(animate, monkeypatch):
    from animagic.requests import many

    loaded = []
    load = many.pipeline_for
    monkeypatch.setattr(many, "pipeline_for", lambda *a, **k: loaded.append(1) or load(*a, **k))
    one = {"prompt": ["a ball"], "seed": 1}
    assert animate(entry("v3", one), entry("v3", one, {"guidance_scale": 3}), entry("v3", one, ZOOM)).code == 0
    assert len(loaded) == 2


def test_the_plan_of_an_entry(run, write):
    ran = run("plan", "--model", write(entry("v3", {"L": 40})), "--json")
    assert ran.code == 0, ran
    assert json.loads(ran.out)["frames"] == 40


def test_a_prompt_of_ones_own(run, write):
    config = write(entry("v3", {"L": 2, "W": SIDE, "H": SIDE}))
    ran = run("generate", "a ball", "--model", config, "-o", "ball.mp4", "--allow-pickle")
    assert ran.code == 0, ran
    assert probe("ball.mp4")["frames"] == 2
    ran = run("generate", "a ball", "--model", config, "-o", "other.mp4", "--dreambooth", "x.safetensors")
    ran.refused("entry 0", "leave out --dreambooth")


# What is refused


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"motion_module": "models/none.ckpt"}, ["entry 1 of", "motion_module is models/none.ckpt", "no such file"]),
        ({"dreambooth_path": "x.safetensors"}, ["entry 1 of", "dreambooth_path"]),
        (
            {"motion_module_lora_configs": [{"path": "x.ckpt", "alpha": 1}]},
            ["motion_module_lora_configs[0].path is x.ckpt"],
        ),
        ({**sparse("rgb"), "controlnet_images": ["a.png", "b.png"]}, ["controlnet_images[0] is a.png"]),
        ({"n_prompt": ["a", "b", "c"]}, ["entry 1 of", "n_prompt has 3", "prompt has 2"]),
        ({"guidance": 3}, ["entry 1 of", "guidance is unknown", "did you mean guidance_scale?"]),
    ],
)
def test_what_is_wrong_in_a_later_entry_is_said_before_anything_is_made(animate, fields, words):
    animate(entry("v3"), entry("v3", fields)).refused(*words)
    assert not Path("out").exists()


def test_weights_that_do_not_fit(animate, repository):
    save(motion_module("v3", base={**UNET, "block_out_channels": (32, 96)}), repository / "models" / "other.ckpt")
    save({"down.weight": torch.ones(2)}, repository / "models" / "nothing.safetensors")
    wide = {"motion_module": "models/other.ckpt"}
    animate(entry("v3", wide)).refused("other.ckpt is a motion module for another base", "32, 96", "32, 64")
    animate(entry("v2", {"inference_config": "configs/inference/inference-v3.yaml"})).refused("mid_block", "unexpected")
    animate(entry("v3", {"dreambooth_path": "models/nothing.safetensors"})).refused(
        "nothing.safetensors is no text-to-image model"
    )
    animate(entry("v3", {"lora_model_path": "models/nothing.safetensors"})).refused("nothing.safetensors: ")
    mixed = {**sparse("rgb"), "controlnet_config": "configs/inference/sparsectrl/image_condition.yaml"}
    animate(entry("v3", mixed)).refused("sparsectrl_rgb.ckpt: the tensor", "missing")
    assert not list(Path("out").glob("*"))


def test_pickles_need_leave(run, write):
    run("animatediff", "--config", write(entry("v3"))).refused("pickle", "--allow-pickle")


def test_the_picture_model_must_be_there(animate):
    animate(entry("v3"), words=["--pretrained-model-path", "models/none/sd"]).refused("models/none/sd", "no base model")
    ran = animate(entry("v3"), words=["--pretrained-model-path", "runwayml/none"])
    ran.refused("runwayml/none is not here, and it cannot be fetched", "--pretrained-model-path")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--format", "avi"], ["the format 'avi' is unknown", "mp4, webm, gif"]),
        (["--threads", 0], ["threads must be at least 1"]),
        (["--set", "0.L=many"], ["L is many", "a whole number is needed"]),
        (["--set", "5.L=3"], ["names entry 5", "has 1"]),
        (["--set", "length=3"], ["unknown field"]),
        (["--set", "steps"], ["FIELD=VALUE"]),
        (["--device", "toaster"], ["toaster cannot be used here"]),
        (["--L", 0], ["--L is 0", "1 is the least"]),
        (["--W", 30], ["30x32 is not possible", "multiples of 8"]),
    ],
)
def test_what_the_command_refuses(animate, words, says):
    animate(entry("v3"), words=words).refused(*says)


def test_resume_needs_a_folder(run, write):
    run("animatediff", "--config", write(entry("v3")), "--resume").refused("--resume needs --output")


def test_the_folder_must_be_one(animate):
    Path("out").write_text("")
    animate(entry("v3")).refused("out is a file")
