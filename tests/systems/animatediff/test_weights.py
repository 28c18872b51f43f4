"""Published files come in whatever layout they have, with the same numbers; what does not fit is named."""

import json

import pytest
import torch
from diffusers_unet import diffusers_motion_name
from published_files import (
    TEXT,
    UNET,
    UNET_XL,
    motion_module,
    original,
    picture_model,
    save,
    with_positions,
    write_folder,
)

from animagic.errors import CheckpointError, InputError
from animagic.systems.animatediff.pipeline import AnimateDiffPipeline
from animagic.systems.animatediff.published import published_sampling
from animagic.systems.animatediff.sparse import SparseControlNet
from animagic.systems.animatediff.weights import (
    load_sparse_controlnet,
    read_motion_module,
    with_files,
)
from animagic.weights.motion_module import VERSIONS

FULL = (320, 640, 1280, 1280)


def assert_holds(network, tensors: dict) -> None:
    """The network has these weights, and no others."""
    own = {name: t for name, t in network.state_dict().items() if "motion_modules." not in name}
    assert set(own) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(own[name], tensor), name


@pytest.fixture(scope="module")
def parts():
    return picture_model(0)


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("base"), parts)


@pytest.fixture(scope="module")
def module():
    return motion_module("v2")


@pytest.fixture
def motion_file(module, tmp_path):
    return save(with_positions(module, 32), tmp_path / "mm_sd_v15_v2.safetensors")


def call(pipe, **arguments):
    return pipe(
        "a red ball",
        num_frames=3,
        height=16,
        width=16,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        **arguments,
    ).frames


# ---- picture models


def test_a_folder_of_diffusers(parts, folder, motion_file, module):
    pipe = AnimateDiffPipeline.from_published(folder, motion_file)
    for name, part in parts.items():
        assert_holds(getattr(pipe, name), part.state_dict())
    for name, tensor in pipe.unet.motion_state_dict().items():
        assert torch.equal(tensor, module[name])
    assert not any(parameter.is_meta for parameter in pipe.unet.parameters())
    assert (pipe.sampling.height, pipe.sampling.num_inference_steps, pipe.sampling.guidance_scale) == (16, 25, 7.5)
    assert pipe.scheduler.config.beta_schedule == "linear"
    assert call(pipe).shape == (1, 4, 3, 8, 8)


def test_a_single_file_has_the_same_numbers(parts, folder, motion_file, tmp_path):
    file = save({"state_dict": original(parts), "global_step": 7}, tmp_path / "dreambooth.ckpt")
    with pytest.raises(InputError, match=r"dreambooth\.ckpt is a pickle.*allow"):
        AnimateDiffPipeline.from_published(file, motion_file, config=folder)
    one = AnimateDiffPipeline.from_published(file, motion_file, config=folder, allow_pickle=True)
    for name, part in parts.items():
        assert_holds(getattr(one, name), part.state_dict())
    assert torch.equal(call(one), call(AnimateDiffPipeline.from_published(folder, motion_file)))


def test_sdxl_as_a_single_file(tmp_path):
    parts = picture_model(1, xl=True)
    file = save(original(parts), tmp_path / "xl.safetensors")
    motion = save(motion_module("sdxl", base=UNET_XL), tmp_path / "mm_sdxl_v10_beta.safetensors")
    config = write_folder(tmp_path / "config", parts)
    pipe = AnimateDiffPipeline.from_published(file, motion, config=config, torch_dtype=torch.float32)
    for name, part in parts.items():
        assert_holds(getattr(pipe, name), part.state_dict())
    assert (pipe.scheduler.config.beta_schedule, pipe.scheduler.config.beta_end) == ("scaled_linear", 0.02)
    assert call(pipe).isfinite().all()


def test_dreambooth_takes_the_place_of_what_it_has(parts, folder, motion_file, module, tmp_path):
    other = picture_model(9)
    whole = save(original(other), tmp_path / "whole.safetensors")
    unet_only = save(dict(other["unet"].state_dict()), tmp_path / "unet.safetensors")
    without_vae = save(original({**other, "vae": parts["vae"]} | {}), tmp_path / "own_vae.safetensors")
    from_parts = {
        whole: other,
        unet_only: {**parts, "unet": other["unet"]},
        without_vae: {**other, "vae": parts["vae"]},
        write_folder(tmp_path / "folder", other): other,
    }
    pipe = AnimateDiffPipeline.from_published(folder, motion_file)
    for source, expected in from_parts.items():
        given = AnimateDiffPipeline.from_published(folder, motion_file, dreambooth=source)
        changed = with_files(pipe, dreambooth=source)
        for made in (given, changed):
            for name, part in expected.items():
                assert_holds(getattr(made, name), part.state_dict())
            assert all(torch.equal(t, module[name]) for name, t in made.unet.motion_state_dict().items())
    assert_holds(pipe.unet, parts["unet"].state_dict())


def refused(message, folder=None, motion=None, error=CheckpointError, **arguments):
    with pytest.raises(error, match=message) as caught:
        AnimateDiffPipeline.from_published(folder, motion, **arguments)
    assert "\n" not in str(caught.value)


def test_what_is_no_whole_model(parts, folder, motion_file, tmp_path):
    tensors = {name: t for name, t in original(parts).items() if "first_stage" not in name}
    refused("has no vae; take a whole", save(tensors, tmp_path / "a.safetensors"), motion_file, config=folder)
    refused("has no tokenizer; give as config a folder", save(original(parts), tmp_path / "a.safetensors"), motion_file)


# ---- motion modules


@pytest.mark.parametrize(
    ("version", "length", "name", "expected"),
    [
        ("v1", 24, "any", "v1"),
        ("v3", 32, "any", "v3"),
        ("v2", 32, "any", "v2"),
        ("v1", None, "mm_sd_v15", "v1"),
        ("v1", None, "mm_sd_v14.fp16", "v1"),
        ("v3", None, "v3_sd15_mm", "v3"),
        ("v2", None, "AnimateLCM_sd15_t2v", "v2"),
    ],
)
def test_versions_are_recognised(tmp_path, version, length, name, expected):
    tensors = motion_module(version)
    file = save(with_positions(tensors, length) if length else tensors, tmp_path / f"{name}.safetensors")
    read = read_motion_module(file)
    assert read.version == expected
    assert {name: read.config[name] for name in VERSIONS[expected]} == VERSIONS[expected]
    assert set(read.tensors) == set(tensors)


def test_a_version_that_cannot_be_recognised(tmp_path):
    file = save(motion_module("v1"), tmp_path / "mine.safetensors")
    with pytest.raises(CheckpointError, match=r"mine\.safetensors is of AnimateDiff v1 or v3.*version"):
        read_motion_module(file)
    assert read_motion_module(file, version="v1").config["joint_group_norm"]
    with pytest.raises(InputError, match="'v9' is unknown"):
        read_motion_module(file, version="v9")


def test_other_layouts_of_motion_modules(module, folder, tmp_path, motion_file):
    """A trainer's checkpoint with all of the UNet, diffusers' names, a folder of MotionAdapter."""
    whole = {f"module.{name}": tensor for name, tensor in {**module, "conv_in.weight": torch.zeros(1)}.items()}
    trainer = save({"state_dict": whole, "epoch": 3, "animatediff_config": {"a": 1}}, tmp_path / "trained.ckpt")
    renamed = {diffusers_motion_name(name): tensor for name, tensor in module.items()}
    assert not any("temporal_transformer" in name or "attention_blocks" in name for name in renamed)
    diffusers = save(renamed, tmp_path / "animatediff_lightning_4step_diffusers.safetensors")
    adapter = save(renamed, tmp_path / "adapter" / "diffusion_pytorch_model.safetensors").parent
    for source in (trainer, diffusers, adapter):
        read = read_motion_module(source, allow_pickle=True)
        assert set(read.tensors) == set(module)
        assert all(torch.equal(read.tensors[name], tensor) for name, tensor in module.items())
    with pytest.raises(InputError, match=r"trained\.ckpt is a pickle"):
        read_motion_module(trainer)


def test_diffusers_takes_the_names(module):
    from diffusers import MotionAdapter

    channels = UNET["block_out_channels"]
    adapter = MotionAdapter(block_out_channels=channels, motion_layers_per_block=1)
    missing, unexpected = adapter.load_state_dict(
        {diffusers_motion_name(name): tensor for name, tensor in module.items()}, strict=False
    )
    assert not unexpected
    assert all(name.endswith("pos_embed.pe") for name in missing)


def test_what_is_no_motion_module(module, folder, tmp_path):
    refused("no tensor's name contains motion_modules", folder, save({"a": torch.zeros(1)}, tmp_path / "a.safetensors"))
    lora = {"down_blocks.0.motion_modules.0.processor.to_q_lora.down.weight": torch.zeros(1)}
    refused("is a LoRA, not", folder, save(lora, tmp_path / "lora.safetensors"))
    sparse = {**module, "controlnet_cond_embedding.weight": torch.zeros(1)}
    refused("is a SparseCtrl network, not", folder, save(sparse, tmp_path / "sparse.safetensors"))
    first = next(iter(module))
    lacking = save({n: t for n, t in module.items() if n != first}, tmp_path / "lacking.safetensors")
    refused(rf"lacking\.safetensors: the tensor {first} is missing", folder, lacking)
    extra = "up_blocks.0.motion_modules.9.temporal_transformer.x"
    more = save({**module, extra: torch.zeros(1)}, tmp_path / "more.safetensors")
    refused(rf"more\.safetensors: the tensor {extra} is unexpected", folder, more)


@pytest.mark.parametrize(
    ("widths", "made_for"), [((32, 64, 64, 64), r"Stable Diffusion 1\.5"), ((32, 64, 64), "SDXL"), ((32,), "another")]
)
def test_a_motion_module_for_another_base(folder, tmp_path, widths, made_for):
    count = len(widths)
    base = {**UNET, "block_out_channels": widths, "down_block_types": ("CrossAttnDownBlock2D",) * count}
    base["up_block_types"] = ("CrossAttnUpBlock2D",) * count
    file = save(with_positions(motion_module("v3", base=base), 32), tmp_path / "other.safetensors")
    refused(rf"other\.safetensors is a motion module for {made_for} .*this base model has 32, 64", folder, file)


def test_the_sampling_that_goes_with_it(folder, module, tmp_path):
    for name, scheduler, steps, guidance in (
        ("animatediff_lightning_8step_comfyui", "EulerDiscreteScheduler", 8, 1.0),
        ("AnimateLCM_sd15_t2v", "LCMScheduler", 6, 2.0),
        ("mm_sd_v15_v2", "DDIMScheduler", 25, 7.5),
    ):
        pipe = AnimateDiffPipeline.from_published(folder, save(module, tmp_path / f"{name}.safetensors"))
        assert type(pipe.scheduler).__name__ == scheduler
        assert (pipe.sampling.num_inference_steps, pipe.sampling.guidance_scale) == (steps, guidance)
        assert pipe.scheduler.config.beta_schedule == "linear"
        assert call(pipe).isfinite().all()
    scheduler, config = published_sampling("v2", tmp_path / "AnimateDiff-Lightning-2-step.safetensors")
    assert scheduler.config.timestep_spacing == "trailing"
    assert config["num_inference_steps"] == 2


def test_a_new_motion_module(folder, parts):
    """For training: it changes nothing yet."""
    pipe = AnimateDiffPipeline.from_published(folder, version="v2", motion_config={"motion_max_length": 8})
    assert pipe.unet.config.motion_max_length == 8
    assert len(pipe.unet.mid_block.motion_modules) == 1
    torch.testing.assert_close(call(pipe), call(pipe, use_motion=False))


def test_another_motion_module_in_the_same_pipeline(folder, motion_file, tmp_path):
    pipe = AnimateDiffPipeline.from_published(folder, motion_file)
    other = save(with_positions(motion_module("v1", seed=7), 24), tmp_path / "v1.safetensors")
    changed = with_files(pipe, motion_module=other)
    assert torch.equal(call(changed), call(AnimateDiffPipeline.from_published(folder, other)))
    assert changed.vae is pipe.vae
    assert pipe.unet.config.motion_mid_block


# ---- SparseCtrl


@pytest.mark.parametrize("kind", ["rgb", "scribble"])
def test_sparse_networks(folder, motion_file, tmp_path, kind):
    pipe = AnimateDiffPipeline.from_published(folder, motion_file)
    simple = {"conditioning_channels": 4, "use_simplified_condition_embedding": True}
    torch.manual_seed(3)
    network = SparseControlNet.from_unet(
        pipe.unet, **(simple if kind == "rgb" else {"conditioning_embedding_out_channels": (8, 16, 32)})
    )
    state = {name: torch.randn_like(tensor) for name, tensor in network.state_dict().items()}
    published = {f"module.{name}": tensor for name, tensor in with_positions(state, 32).items()}
    file = save({"controlnet": published}, tmp_path / f"v3_sd15_sparsectrl_{kind}.ckpt")
    read = load_sparse_controlnet(file, pipe.unet, allow_pickle=True)
    assert_same_state(read, state)
    assert {**read.config, "_use_default_values": 0} == {**network.config, "_use_default_values": 0}
    saved = tmp_path / "saved"
    network.load_state_dict(state)
    network.save_pretrained(saved)
    assert_same_state(with_files(pipe, sparse_controlnet=saved).sparse_controlnet, state)
    with pytest.raises(CheckpointError, match="is no SparseCtrl network"):
        load_sparse_controlnet(motion_file, pipe.unet)


def assert_same_state(network, state):
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


# ---- textual inversion


def test_the_word_of_an_embedding_matters(folder, motion_file, tmp_path):
    pipe = AnimateDiffPipeline.from_published(folder, motion_file)
    file = save({"<look>": 9 * torch.randn(2, TEXT["hidden_size"])}, tmp_path / "look.safetensors")
    before = pipe.encode(["a <look> ball"]).sequence
    assert pipe.load_textual_inversion(file) == "<look>"
    assert not torch.allclose(pipe.encode(["a <look> ball"]).sequence, before)


def test_everything_at_once(folder, tmp_path):
    pipe = AnimateDiffPipeline.from_published(
        folder,
        save(motion_module("v3"), tmp_path / "v3_sd15_mm.safetensors"),
        embeddings=[save({"<look>": torch.randn(2, TEXT["hidden_size"])}, tmp_path / "look.safetensors")],
        torch_dtype=torch.bfloat16,
    )
    assert pipe.unet.dtype == pipe.vae.dtype == pipe.text_encoder.dtype == torch.bfloat16
    assert {"<look>", "<look>_1"} <= pipe.tokenizer.get_vocab().keys()
    assert call(pipe).isfinite().all()


# ---- the command


def test_converted_folders_can_be_loaded(run, folder, module, tmp_path):
    import animagic

    motion = save({"state_dict": with_positions(module, 32)}, tmp_path / "mm_sd_v15_v2.ckpt")
    dreambooth = save(original(picture_model(9)), tmp_path / "toon.safetensors")
    words = ("convert", motion, "--base", folder, "--dreambooth", dreambooth, "--allow-pickle", "-o", "out")
    ran = run(*words, "--json")
    assert ran.code == 0
    told = json.loads(ran.out)
    assert told["output"] == "out"
    assert told["parts"] == ["scheduler", "text_encoder", "tokenizer", "unet", "vae"]
    assert told["bytes"] > 1e6
    expected = AnimateDiffPipeline.from_published(folder, motion, dreambooth=dreambooth, allow_pickle=True)
    pipe = animagic.load(tmp_path / "out")
    assert torch.equal(call(pipe), call(expected))
    assert pipe.sampling == expected.sampling
    run(*words).refused("out exists already and is not an empty folder")


def test_what_the_command_refuses(run, folder, motion_file, tmp_path):
    run("convert", motion_file, "-o", "out").refused("mm_sd_v15_v2.safetensors", "--base")
    run("convert", motion_file, "--base", folder, "--t5", "none", "-o", "out").refused("--t5 has no meaning")
    run("convert", folder, "--base", folder, "-o", "out").refused("--base has no meaning for MAGI-1")
    run("convert", motion_file, "--base", folder, "--version", "v9", "-o", "out").refused("'v9' is unknown")
    run("convert", tmp_path / "mm.ckpt", "--base", folder, "-o", "out").refused("there is no file", "mm.ckpt")
    assert not (tmp_path / "out").exists()
