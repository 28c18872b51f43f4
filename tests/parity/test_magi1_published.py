"""The published models of MAGI-1: all six are recognised and matched name by name, and a checkpoint in the original
layout gives the original's videos, read directly or converted."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from goldens import golden_path, relative_error
from originals import golden, write_autoencoder, write_transformer

import animagic
from animagic import CheckpointError, Magi1Pipeline
from animagic.systems.magi1.conversion import convert
from animagic.systems.magi1.published import NAMES, config_of
from animagic.systems.magi1.weights import _mixed_up, _recognise, transformer_from_config
from animagic.weights.files import StoredTensor, Weights
from animagic.weights.fit import Part, loading_dtype

TOLERANCE = 1e-4
TRAJECTORIES = ("t2v_base", "t2v_distill_8", "t2v_24b_style")


@pytest.fixture(scope="module")
def keys() -> dict:
    return json.loads(golden_path("magi1", "keys_dit.json").read_text())


def as_weights(tensors: dict, folder: Path = Path("inference_weight")) -> Weights:
    """What `Weights.open` would give for the published files: their names, shapes and dtypes."""
    file = folder / "model-00001-of-00001.safetensors"
    entries = {n: StoredTensor(file, n, getattr(torch, dtype), tuple(shape)) for n, (shape, dtype) in tensors.items()}
    return Weights(folder / "model.safetensors.index.json", (), entries)


@pytest.fixture(scope="module", params=NAMES)
def published(request, keys):
    """A published model: name, golden of its tensors, and our network on the meta device."""
    config = json.loads(golden_path("magi1", "configs", f"{request.param}_config.json").read_text())
    with torch.device("meta"):
        return request.param, keys[request.param], transformer_from_config(config)


def test_every_published_model_is_tested(keys):
    assert set(keys) == set(NAMES)


def test_our_configurations_are_the_published_ones():
    for name in NAMES:
        assert config_of(name) == json.loads(golden_path("magi1", "configs", f"{name}_config.json").read_text())


def test_names_and_shapes(published):
    _, golden, network = published
    ours = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    assert ours == {name: shape for name, (shape, _) in golden["tensors"].items()}
    assert sum(p.numel() for p in network.parameters()) == golden["parameters"]
    Part.checked(network, as_weights(golden["tensors"]))


def test_what_is_asked_for_as_bfloat16_gets_the_published_dtypes(published):
    _, golden, network = published
    kept = network._keep_in_fp32_modules
    ours = {
        name: str(loading_dtype(name, tensor.dtype, torch.bfloat16, kept)).removeprefix("torch.")
        for name, tensor in network.state_dict().items()
    }
    assert ours == {name: dtype for name, (_, dtype) in golden["tensors"].items()}


def test_the_model_is_recognised_from_its_tensors(published):
    name, golden, _ = published
    suffix = {"base": "", "distill": ".distill", "distill_quant": ".fp8.distill"}[name.split("_", 1)[1]]
    folder = Path(f"inference_weight{suffix}")
    assert _recognise(as_weights(golden["tensors"], folder), folder) == name
    if "quant" not in name:
        with pytest.raises(CheckpointError, match="base or distilled cannot be told from its tensors"):
            _recognise(as_weights(golden["tensors"]), Path("my_weights"))


@pytest.mark.parametrize(
    ("stored", "configured", "said"),
    [
        ("24B_base", "4.5B_base", "weights of the 24B model, and the configuration is that of 4.5B"),
        ("4.5B_distill", "24B_distill", "weights of the 4.5B model, and the configuration is that of 24B"),
        ("4.5B_distill_quant", "4.5B_distill", "these are FP8 weights, and engine_config.fp8_quant says otherwise"),
        ("24B_distill", "24B_distill_quant", "these are no FP8 weights, and engine_config.fp8_quant says otherwise"),
    ],
)
def test_mixed_up_models(keys, stored, configured, said):
    config = config_of(configured)
    with torch.device("meta"):
        network = transformer_from_config(config)
    weights = as_weights(keys[stored]["tensors"])
    with pytest.raises(CheckpointError, match=rf"model.*safetensors.*: the tensor \w+.* : ?.*{said}|{said}") as caught:
        Part.checked(network, weights, hint=_mixed_up(weights, config))
    assert "the tensor " in str(caught.value)
    assert ".safetensors" in str(caught.value)


def test_one_tensor_of_another_size_is_named(keys):
    config = config_of("4.5B_base")
    with torch.device("meta"):
        network = transformer_from_config(config)
    weights = as_weights(keys["4.5B_base"]["tensors"])
    name = "videodit_blocks.layers.7.mlp.linear_fc1.weight"
    weights.entries[name] = replace(weights.entries[name], shape=(12288, 6144))  # type: ignore[index]
    with pytest.raises(
        CheckpointError, match=rf"the tensor {name} has the shape \[12288, 6144\], not \[12288, 3072\]\.$"
    ):
        Part.checked(network, weights, hint=_mixed_up(weights, config))


# The original layout gives the original's numbers


def trajectory_error(pipe: Magi1Pipeline, tensors: dict[str, torch.Tensor]) -> float:
    """The relative error of all chunks of a golden trajectory."""
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        ours = pipe(
            prompt_embeds=tensors["caption"][:, 0],
            prompt_embeds_mask=tensors["caption_mask"],
            latents=tensors["noise"],
            output_type="latent",
        ).frames
    chunks = sorted((name for name in tensors if name.startswith("chunk_")), key=lambda name: int(name[6:]))
    return relative_error(ours, torch.cat([tensors[name] for name in chunks], dim=2))


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_a_checkpoint_in_the_original_layout_gives_the_original_trajectory(name, tmp_path):
    config, weights, tensors = golden(name)
    suffix = ".distill" if config["engine_config"]["distill"] else ""
    write_transformer(tmp_path / "ckpt" / f"inference_weight{suffix}", weights, shards=3, compressed=1)
    write_autoencoder(tmp_path / "vae")
    config["runtime_config"] |= {"load": "ckpt", "vae_pretrained": "vae"}
    (tmp_path / "config.json").write_text(json.dumps(config))

    pipe = Magi1Pipeline.from_original(tmp_path / "config.json", t5=None)
    assert trajectory_error(pipe, tensors) < TOLERANCE
    convert(tmp_path / "config.json", tmp_path / "out", t5=None, shard_bytes=500_000)
    assert len(list((tmp_path / "out" / "transformer").glob("*.safetensors"))) > 2
    direct = dict(pipe.transformer.state_dict())
    for loaded in (Magi1Pipeline.from_pretrained(tmp_path / "out"), animagic.load(tmp_path / "out")):
        converted = loaded.transformer.state_dict()
        assert all(torch.equal(converted[key], tensor) for key, tensor in direct.items())
        assert loaded.sampling == pipe.sampling
    assert trajectory_error(loaded, tensors) < TOLERANCE


# The page of figures


def test_the_page_of_parity_is_up_to_date():
    """What of it does not depend on the machine: names, shapes, dtypes, parameters. And that every target was met."""
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "magi1_parity.py"
    benchmark = runpy.run_path(str(script))
    page = benchmark["REPORT"].read_text("utf-8")
    for row in benchmark["published_rows"]():
        assert row in page.splitlines()
        assert "| 0 |" in row
        assert "(same)" in row
    assert page.count("| yes |") == len(benchmark["RUNS"])
