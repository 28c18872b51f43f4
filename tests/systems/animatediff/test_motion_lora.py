"""LoRA around AnimateDiff: the layouts of image LoRAs, text encoders, MotionLoRA and domain adapter.

tests/weights/test_lora.py has what every system can do."""

import copy
import json

import pytest
import torch
from diffusers_unet import diffusers_motion_name
from published_files import UNET_XL, motion_module, picture_model, save, write_folder
from safetensors.torch import save_file

from animagic.errors import CheckpointError, InputError
from animagic.systems.animatediff.lora import motion_lora_state_dict
from animagic.systems.animatediff.pipeline import AnimateDiffPipeline
from animagic.systems.animatediff.training import MOTION_TARGETS, SPATIAL_TARGETS
from animagic.systems.animatediff.unet import AnimateDiffUNet
from animagic.weights.lora import add_lora, lora_layers
from animagic.weights.motion_module import VERSIONS

SPATIAL = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
MOTION = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1"
TEXT = "encoder.layers.1.self_attn.q_proj"
RANK = 2


def make_pipe(xl: bool = False) -> AnimateDiffPipeline:
    parts = picture_model(0, xl)
    unet = AnimateDiffUNet.from_unet2d(parts.pop("unet"), **VERSIONS["sdxl" if xl else "v3"])
    version = {"version": "sdxl", "base": UNET_XL} if xl else {"version": "v3"}
    unet.load_motion_state_dict(motion_module(**version))
    return AnimateDiffPipeline(unet=unet.eval(), **parts)


@pytest.fixture(scope="module")
def kept():
    return make_pipe()


@pytest.fixture
def pipe(kept):
    return AnimateDiffPipeline(**{name: copy.deepcopy(part) for name, part in kept.components.items()})


def factors(network, layers, seed=0, rank=RANK):
    """Random down and up of some layers."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for layer in layers:
        weight = network.get_submodule(layer).weight
        down = torch.randn(rank, *weight.shape[1:], generator=generator) / 4
        up = torch.randn(len(weight), rank, *[1] * (weight.ndim - 2), generator=generator) / 4
        made[layer] = (down, up)
    return made


def added(network, changes, scale=1.0):
    """The network with the changes merged by hand."""
    merged = copy.deepcopy(network)
    for layer, (down, up) in changes.items():
        delta = (up.flatten(1) @ down.flatten(1)).view_as(merged.get_submodule(layer).weight)
        merged.get_submodule(layer).weight.data += scale * delta
    return merged


@torch.no_grad()
def predict(unet):
    generator = torch.Generator().manual_seed(1)
    width = unet.config.cross_attention_dim
    sample, text = torch.randn(1, 4, 3, 8, 8, generator=generator), torch.randn(1, 5, width, generator=generator)
    added = None
    if unet.config.addition_embed_type is not None:
        added = {"text_embeds": torch.ones(1, 24), "time_ids": torch.ones(1, 6)}
    return unet(sample, 500, text, added_cond_kwargs=added).sample


@torch.no_grad()
def read(encoder):
    return encoder(torch.tensor([[38, 3, 4, 39]])).last_hidden_state


def assert_same(ours, expected):
    assert ((ours - expected).norm() / expected.norm()).item() <= 1e-5


def spatial_layers(network):
    kinds = ("to_q", "to_out.0", "ff.net.0.proj", "proj_in", "conv1", "time_emb_proj", "downsamplers.0.conv", "conv_in")
    return [n for n, _ in network.named_modules() if n.endswith(kinds) and "motion_modules" not in n]


def flat(layer):
    return layer.replace(".", "_")


def kohya(changes, prefix="lora_unet_", alpha=1.0, name=flat):
    tensors = {}
    for layer, (down, up) in changes.items():
        tensors[f"{prefix}{name(layer)}.lora_down.weight"] = down
        tensors[f"{prefix}{name(layer)}.lora_up.weight"] = up
        tensors[f"{prefix}{name(layer)}.alpha"] = torch.tensor(alpha)
    return tensors


def processors(changes):
    """The layout of MotionLoRA and the domain adapter."""
    tensors = {}
    for layer, (down, up) in changes.items():
        block, _, projection = layer.removesuffix(".0").rpartition(".")
        tensors[f"{block}.processor.{projection}_lora.down.weight"] = down
        tensors[f"{block}.processor.{projection}_lora.up.weight"] = up
    return tensors


# ---- image LoRAs


def test_kohya(pipe, tmp_path):
    changes = factors(pipe.unet, spatial_layers(pipe.unet))
    words = factors(pipe.text_encoder, [TEXT, "encoder.layers.0.mlp.fc1"])
    expected = predict(added(pipe.unet, changes, 0.5)), read(added(pipe.text_encoder, words, 0.5))
    tensors = kohya(changes) | kohya(words, "lora_te_text_model_")  # alpha 1, rank 2
    pipe.load_lora_weights(save(tensors, tmp_path / "style.safetensors"))
    assert_same(predict(pipe.unet), expected[0])
    assert_same(read(pipe.text_encoder), expected[1])


@pytest.mark.parametrize("layout", ["lora_A", "lora.down", "processor", "peft", "with settings"])
def test_diffusers_and_peft(pipe, tmp_path, layout):
    changes = factors(pipe.unet, [f"{SPATIAL}.to_q", f"{SPATIAL}.to_out.0"])
    words = factors(pipe.text_encoder, [TEXT])
    scale = 2.0 if layout == "with settings" else 1.0
    expected = predict(added(pipe.unet, changes, scale))
    expected_text = read(added(pipe.text_encoder, words))
    names = {"lora.down": ("lora.down", "lora.up")}.get(layout, ("lora_A", "lora_B"))
    tensors = {}
    for part, given in (("unet", changes), ("text_encoder.text_model", words)):
        for layer, pair in given.items():
            for name, tensor in zip(names, pair, strict=True):
                tensors[f"{part}.{layer}.{name}.weight"] = tensor
    file, metadata = tmp_path / "lora.safetensors", None
    if layout == "processor":
        tensors = {f"unet.{name}": tensor for name, tensor in processors(changes).items()} | {
            f"text_encoder.text_model.{TEXT}.lora_linear_layer.{name}.weight": tensor
            for name, tensor in zip(("down", "up"), words[TEXT], strict=True)
        }
    if layout == "peft":
        tensors = {
            name.replace("unet.", "base_model.model."): t for name, t in tensors.items() if name.startswith("unet.")
        }
    if layout == "with settings":
        note = {"unet.r": RANK, "unet.lora_alpha": 2 * RANK, "text_encoder.r": RANK, "text_encoder.lora_alpha": RANK}
        metadata = {"lora_adapter_metadata": json.dumps(note)}
    save_file(tensors, file, metadata)
    pipe.load_lora_weights(file)
    assert_same(predict(pipe.unet), expected)
    if layout != "peft":
        assert_same(read(pipe.text_encoder), expected_text)


def test_convolutions_written_as_matrices(pipe):
    layer = "down_blocks.0.attentions.0.proj_in"
    changes = factors(pipe.unet, [layer])
    expected = predict(added(pipe.unet, changes))
    matrices = {layer: tuple(tensor[..., 0, 0] for tensor in changes[layer])}
    pipe.load_lora_weights(kohya(matrices, alpha=float(RANK)))
    assert_same(predict(pipe.unet), expected)


def test_sdxl_in_the_names_of_its_makers():
    pipe = make_pipe(xl=True)
    names = {
        "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2": "input_blocks_3_1_transformer_blocks_0_ff_net_2",
        "down_blocks.1.resnets.0.conv1": "input_blocks_3_0_in_layers_2",
        "down_blocks.0.downsamplers.0.conv": "input_blocks_2_0_op",
        "mid_block.attentions.0.proj_in": "middle_block_1_proj_in",
        "up_blocks.0.resnets.1.time_emb_proj": "output_blocks_1_0_emb_layers_1",
        "up_blocks.0.resnets.0.conv_shortcut": "output_blocks_0_0_skip_connection",
        "conv_in": "input_blocks_0_0",
        "conv_out": "out_2",
        "time_embedding.linear_1": "time_embed_0",
        "add_embedding.linear_2": "label_emb_0_2",
    }
    changes = factors(pipe.unet, names)
    words = factors(pipe.text_encoder_2, ["text_model.encoder.layers.0.mlp.fc1"])
    expected = predict(added(pipe.unet, changes, 0.5)), read(added(pipe.text_encoder_2, words, 0.5))
    pipe.load_lora_weights(kohya(changes, name=names.get) | kohya(words, "lora_te2_"))
    assert_same(predict(pipe.unet), expected[0])
    assert_same(read(pipe.text_encoder_2), expected[1])


# ---- MotionLoRA and domain adapter


def motion_changes(unet, seed=0):
    layers = [
        n for n, _ in unet.named_modules() if unet.is_motion(n) and n.endswith(("to_q", "to_k", "to_v", "to_out.0"))
    ]
    return factors(unet, layers, seed)


def adapter_changes(unet, seed=3):
    layers = [n for n, _ in unet.named_modules() if ".attentions." in n and n.endswith(("to_q", "to_k", "to_out.0"))]
    return factors(unet, layers, seed)


@pytest.mark.parametrize("layout", ["published", "wrapped pickle", "diffusers"])
def test_motion_lora(pipe, tmp_path, layout):
    changes = motion_changes(pipe.unet)
    expected = predict(added(pipe.unet, changes, 0.7))
    tensors, file = processors(changes), tmp_path / "v2_lora_ZoomIn.safetensors"
    if layout == "wrapped pickle":
        tensors, file = {"state_dict": tensors, "animatediff_config": {"rank": 2}}, tmp_path / "v2_lora_ZoomIn.ckpt"
    if layout == "diffusers":
        tensors = {}
        for layer, (down, up) in changes.items():
            layer = diffusers_motion_name(f"{layer}.").removesuffix(".")
            tensors |= {f"unet.{layer}.lora_A.weight": down, f"unet.{layer}.lora_B.weight": up}
    pipe.load_motion_lora(save(tensors, file), weight=0.7, allow_pickle=True)
    assert_same(predict(pipe.unet), expected)


def test_all_kinds_together_and_apart(pipe, tmp_path):
    unet = pipe.unet
    image, motion, adapter = factors(unet, [f"{SPATIAL}.to_q"], 8), motion_changes(unet), adapter_changes(unet)
    plain = predict(unet)
    expected = predict(added(added(added(unet, image, 0.8), motion, 0.6), adapter, 0.3))
    without_motion = predict(added(added(unet, image, 0.8), adapter, 0.3))
    zoom = predict(added(unet, motion, 1.5))
    pipe.load_lora_weights(kohya(image, alpha=float(RANK)), "look")
    pipe.set_adapters("look", 0.8)
    pipe.load_motion_lora(processors(motion), "zoom", 0.6)
    pipe.load_domain_adapter(save(processors(adapter), tmp_path / "v3_sd15_adapter.safetensors"), 0.3)
    assert_same(predict(unet), expected)
    assert pipe.get_list_adapters() == {"unet": ["look", "zoom", "domain_adapter"]}
    pipe.set_adapters(["look", "domain_adapter"], [0.8, 0.3])
    assert_same(predict(unet), without_motion)
    pipe.set_adapters("zoom", 1.5)
    assert_same(predict(unet), zoom)
    pipe.delete_adapters("look")
    assert_same(predict(unet), zoom)
    pipe.disable_lora()
    assert_same(predict(unet), plain)
    pipe.enable_lora()
    pipe.fuse_lora()
    with pytest.raises(InputError, match="fused"):
        pipe.set_adapters("zoom")
    pipe.unload_lora_weights()
    assert_same(predict(unet), zoom)


def test_weights_of_parts(pipe):
    changes, words = factors(pipe.unet, [f"{SPATIAL}.to_q"]), factors(pipe.text_encoder, [TEXT])
    expected = predict(added(pipe.unet, changes, 0.25)), read(added(pipe.text_encoder, words, 0.5))
    pipe.load_lora_weights(kohya(changes, alpha=2.0) | kohya(words, "lora_te_text_model_", alpha=2.0), "look")
    pipe.set_adapters("look", {"unet": 0.25, "text_encoder": 0.5})
    pipe.load_motion_lora(processors(motion_changes(pipe.unet)), weight=0.0)  # keeps the weights of the others
    assert_same(predict(pipe.unet), expected[0])
    assert_same(read(pipe.text_encoder), expected[1])


def test_blocks_are_weighed_as_in_diffusers(pipe):
    layers = [n for n in spatial_layers(pipe.unet) if n.endswith("to_q")]
    changes = factors(pipe.unet, layers)
    pipe.load_lora_weights(kohya(changes, alpha=2.0), "look")
    for weights, factor in (
        ({"down": 0.5, "mid": 2.0, "up": 0.0}, {"down_blocks": 0.5, "mid_block": 2.0, "up_blocks": 0.0}),
        ({"down": {"block_0": 3.0}}, {"down_blocks.0": 3.0}),
        ({"up": {"block_1": [0.5, 2.0]}}, {"up_blocks.1.attentions.0": 0.5, "up_blocks.1.attentions.1": 2.0}),
    ):
        pipe.set_adapters("look", {"unet": weights})
        scales = {layer: next((f for name, f in factor.items() if layer.startswith(name)), 1.0) for layer in layers}
        assert {n: layer.scaling["look"] for n, layer in lora_layers(pipe.unet).items()} == scales
    with pytest.raises(InputError, match=r"no LoRA changes 'unet\.down_blocks\.7'; one changes 'unet\.down_blocks\.0"):
        pipe.set_adapters("look", {"unet": {"down": {"block_7": 2.0}}})


def test_loras_of_text_encoders_are_not_swapped(pipe):
    words = kohya(factors(pipe.text_encoder, [TEXT]), "lora_te_text_model_")
    pipe.load_lora_weights(words, "look")
    with pytest.raises(CheckpointError, match="in the place of 'look': LoRAs of the text_encoder cannot be swapped"):
        pipe.load_lora_weights(words, "look", hotswap=True)


def test_camera_moves_for_a_while(pipe, tmp_path):
    look, zoom = factors(pipe.unet, [f"{SPATIAL}.to_q"]), motion_changes(pipe.unet)
    expected, outside = predict(added(added(pipe.unet, look, 0.5), zoom, 2.0)), predict(pipe.unet)
    files = save(kohya(look, alpha=2.0), tmp_path / "a.safetensors"), save(processors(zoom), tmp_path / "b.safetensors")
    with pipe.using_loras({files[0]: 0.5}, {files[1]: 2.0}):
        assert_same(predict(pipe.unet), expected)
    with pytest.raises(CheckpointError, match="MotionLoRA changes motion modules only"):
        pipe.using_loras({}, {files[0]: 1.0}).__enter__()
    assert_same(predict(pipe.unet), outside)
    assert not pipe.get_list_adapters()


@pytest.mark.parametrize(
    ("targets", "load"), [(MOTION_TARGETS, "load_motion_lora"), (SPATIAL_TARGETS, "load_domain_adapter")]
)
def test_the_way_back(pipe, tmp_path, targets, load):
    """What training made is written in the published layout, and read from it."""
    other = copy.deepcopy(pipe.unet)
    add_lora(pipe.unet, targets, 4, "trained")
    with torch.no_grad():
        for name, parameter in pipe.unet.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) / 8)
    expected = predict(pipe.unet)
    pipe.set_adapters("trained", 0.1)  # the weight of the moment is no part of the file
    tensors = motion_lora_state_dict(pipe.unet, "trained")
    assert all(".processor.to_" in name for name in tensors)
    again = AnimateDiffPipeline(unet=other)
    getattr(again, load)(save(tensors, tmp_path / "trained.safetensors"))
    assert_same(predict(other), expected)
    with pytest.raises(InputError, match="no adapter 'x'"):
        motion_lora_state_dict(pipe.unet, "x")
    again.load_lora_weights(kohya(factors(other, ["conv_out"])), "conv")
    with pytest.raises(InputError, match="changes conv_out"):
        motion_lora_state_dict(other, "conv")


# ---- what is refused


def refused(pipe, message, tensors, error=CheckpointError, load="load_lora_weights", **arguments):
    before = predict(pipe.unet)
    with pytest.raises(error, match=message) as caught:
        getattr(pipe, load)(tensors, **arguments)
    assert "\n" not in str(caught.value)
    assert torch.equal(predict(pipe.unet), before)


def test_refusals(pipe, tmp_path):
    good = kohya(factors(pipe.unet, [f"{SPATIAL}.to_q"]))
    down = f"lora_unet_{flat(SPATIAL)}_to_q.lora_down.weight"
    refused(
        pipe,
        "a tensor lora_unet_nowhere.lora_down.weight; this model has no nowhere",
        {**good, **{name.replace(f"{flat(SPATIAL)}_to_q", "nowhere"): tensor for name, tensor in good.items()}},
    )
    refused(pipe, "a tensor first_stage.x, which is none of a LoRA", {**good, "first_stage.x": good[down]})
    refused(pipe, "which is none of a LoRA", {**good, f"lora_unet_{flat(SPATIAL)}_to_q.dora_scale": good[down]})
    refused(pipe, rf"its tensor {down} has shape \[2, 5\]", {**good, down: torch.zeros(2, 5)})
    refused(pipe, "this pipeline has no text_encoder_2", kohya(factors(pipe.text_encoder, [TEXT]), "lora_te2_"))
    pipe.load_lora_weights(good, "look")
    refused(pipe, "cannot be weighed for 'vae'", "look", InputError, load="set_adapters", adapter_weights={"vae": 1})


def test_kinds_are_not_mixed_up(pipe):
    spatial, motion = processors(adapter_changes(pipe.unet)), processors(motion_changes(pipe.unet))
    refused(pipe, "a MotionLoRA changes motion modules only", spatial, load="load_motion_lora")
    refused(pipe, "a MotionLoRA changes motion modules only", {**motion, **spatial}, load="load_motion_lora")
    refused(pipe, "a domain adapter changes none", motion, load="load_domain_adapter")


def test_loras_of_published_files(tmp_path):
    base = write_folder(tmp_path / "base", picture_model(0))
    module = save(motion_module("v3"), tmp_path / "v3_sd15_mm.safetensors")
    plain = AnimateDiffPipeline.from_published(base, module)
    look, zoom, adapter = (
        factors(plain.unet, [f"{SPATIAL}.to_q"]),
        motion_changes(plain.unet),
        adapter_changes(plain.unet),
    )
    expected = predict(added(added(added(plain.unet, look, 0.8), zoom), adapter, 0.5))
    pipe = AnimateDiffPipeline.from_published(
        base,
        module,
        loras={save(kohya(look, alpha=2.0), tmp_path / "look.safetensors"): 0.8},
        motion_loras={save(processors(zoom), tmp_path / "zoom.safetensors"): 1.0},
        domain_adapter=save(processors(adapter), tmp_path / "v3_sd15_adapter.safetensors"),
        domain_adapter_scale=0.5,
    )
    assert_same(predict(pipe.unet), expected)
