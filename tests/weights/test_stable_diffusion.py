"""Text-to-image models come in whatever layout they have, with the same numbers; what does not fit is named."""

import copy

import pytest
import torch
from published_files import motion_module, original, picture_model, save, write_folder
from safetensors.torch import load_file, save_file

from animagic.errors import CheckpointError, InputError
from animagic.weights.fit import fill
from animagic.weights.stable_diffusion import CLASSES, SD15, SDXL, StableDiffusion, network_of


def load(source, dtype=torch.float32, **arguments) -> dict[str, torch.nn.Module]:
    model = StableDiffusion(source, **arguments)
    networks = {part: model.network(part) for part in model.parts}
    return {part: fill(network, model.read(part, network), dtype) for part, network in networks.items()}


def assert_same(given: dict[str, torch.nn.Module], expected: dict[str, torch.nn.Module]) -> None:
    assert given.keys() == expected.keys()
    for part, network in expected.items():
        ours, theirs = given[part].state_dict(), network.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items()), part
        assert not any(parameter.is_meta for parameter in given[part].parameters())
        assert not given[part].training


@pytest.fixture(scope="module", params=["1.5", "XL"])
def model(request, tmp_path_factory):
    """A random model: its parts, and their folder."""
    parts = picture_model(0, xl=request.param == "XL")
    return parts, write_folder(tmp_path_factory.mktemp("base"), parts)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    parts = picture_model(0)
    return parts, write_folder(tmp_path_factory.mktemp("base"), parts)


def test_a_folder_and_a_single_file_have_the_same_numbers(model, tmp_path):
    parts, folder = model
    assert_same(load(folder), parts)
    assert_same(load(save(original(parts), tmp_path / "a.safetensors"), config=folder), parts)
    pickle = save({"state_dict": original(parts), "global_step": 7}, tmp_path / "dreambooth.ckpt")
    with pytest.raises(InputError, match=r"dreambooth\.ckpt is a pickle.*allow"):
        StableDiffusion(pickle)
    assert_same(load(pickle, config=folder, allow_pickle=True), parts)
    assert StableDiffusion(folder).tokenizer("tokenizer")("a red ball").input_ids


def test_a_single_file_with_the_unet_alone(small, tmp_path):
    parts, folder = small
    tensors = {**parts["unet"].state_dict(), **motion_module("v3")}
    file = save(dict(parts["unet"].state_dict()), tmp_path / "unet.safetensors")
    assert_same(load(file, config=folder), {"unet": parts["unet"]})
    moving = StableDiffusion(save(tensors, tmp_path / "moving.safetensors"), config=folder)
    with pytest.raises(CheckpointError, match=r"the tensor \S*motion_modules\S* is unexpected"):
        moving.read("unet", parts["unet"])
    read = moving.read("unet", parts["unet"], without="motion_modules.")
    assert read.keys() == parts["unet"].state_dict().keys()


def test_without_a_folder_the_published_configurations_are_taken(model, tmp_path):
    parts, _ = model
    file = StableDiffusion(save(original(parts), tmp_path / "small.safetensors"))
    assert file.parts == list(parts)
    assert {part: file.config(part) for part in parts} == (SDXL if "text_encoder_2" in parts else SD15)
    with pytest.raises(
        CheckpointError, match=r"small\.safetensors: the tensor .* has the shape .*another base model\?"
    ):
        file.read("unet", file.network("unet"))


def test_the_published_configurations_are_of_the_right_size():
    """Against the parameters that Stability AI's model cards tell: 860 M, 84 M, 123 M; 2.6 B, 695 M."""
    sizes = {
        (name, part): network_of(CLASSES[part], fields, part).num_parameters() / 1e6
        for name, model in (("SD15", SD15), ("SDXL", SDXL))
        for part, fields in model.items()
    }
    assert {key: round(size, 1) for key, size in sizes.items()} == {
        ("SD15", "unet"): 859.5,
        ("SD15", "vae"): 83.7,
        ("SD15", "text_encoder"): 123.1,
        ("SDXL", "unet"): 2567.5,
        ("SDXL", "vae"): 83.7,
        ("SDXL", "text_encoder"): 123.1,
        ("SDXL", "text_encoder_2"): 694.7,
    }


def test_attention_of_old_autoencoders(small, tmp_path):
    parts, _ = small
    old = write_folder(tmp_path / "old", parts)
    file = old / "vae" / "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(file)
    for new, given in names.items():
        tensors = {name.replace(f".{new}.", f".{given}."): tensor for name, tensor in tensors.items()}
    save_file(tensors, file)
    assert_same(load(old), parts)


def test_half_precision_in_the_file_and_in_memory(small, tmp_path):
    half = {name: copy.deepcopy(part).half() for name, part in small[0].items()}
    folder = write_folder(tmp_path / "half", half, variant="fp16")
    assert {p.dtype for part in load(folder).values() for p in part.parameters()} == {torch.float32}
    assert_same(load(folder, torch.float16), half)


def test_what_is_no_text_to_image_model(small, tmp_path):
    parts, folder = small
    tensors = original(parts)
    lost = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
    (tmp_path / "notes.txt").write_text("")
    for source, message in (
        ("nothing", "there is no file and no folder nothing"),
        (tmp_path, "no text-to-image model of diffusers: it lacks unet/config.json"),
        (save(motion_module("v3"), tmp_path / "motion.safetensors"), r"motion\.safetensors is no text-to-image model"),
        (tmp_path / "notes.txt", r"notes\.txt is no file of weights"),
        (save({"cond_stage_model.model.x": torch.zeros(1)}, tmp_path / "sd2.safetensors"), "is Stable Diffusion 2"),
    ):
        with pytest.raises(CheckpointError, match=message):
            StableDiffusion(source)
    for change, message in (
        ({name: t for name, t in tensors.items() if name != lost}, r"bad\.safetensors: the tensor .*missing"),
        ({**tensors, lost: torch.zeros(3, 3)}, rf"bad\.safetensors: the tensor {lost} has the shape \[3, 3\]"),
        ({n: t for n, t in tensors.items() if "quant_conv" not in n}, r"the tensor \S*quant_conv\S* is missing"),
    ):
        file = save(change, tmp_path / "bad.safetensors")
        with pytest.raises(CheckpointError, match=message):
            load(file, config=folder)
    with pytest.raises(CheckpointError, match="there is no folder gone"):
        StableDiffusion(file, config="gone")
    with pytest.raises(CheckpointError, match="has no tokenizer; give as config a folder"):
        StableDiffusion(file).tokenizer("tokenizer")


def test_a_configuration_that_describes_no_network(small, tmp_path):
    folder = write_folder(tmp_path / "odd", small[0])
    (folder / "unet" / "config.json").write_text('{"block_out_channels": [32], "sample_size": 8}')
    with pytest.raises(CheckpointError, match=r"the unet of \S*odd describes no network that can be built: "):
        StableDiffusion(folder).network("unet")
