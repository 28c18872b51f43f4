"""The published files of MAGI-1 are found, checked, read shard by shard and converted; what is wrong is named."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from originals import (
    INDEX,
    write_autoencoder,
    write_special_tokens,
    write_text_encoder,
    write_transformer,
)
from safetensors.torch import load_file, save, save_file

import animagic
from animagic import CheckpointError, InputError, Magi1Pipeline
from animagic.systems.magi1 import weights as module
from animagic.systems.magi1.conversion import convert
from animagic.systems.magi1.weights import read_special_tokens
from animagic.weights.files import Weights

# Of the tests' random transformer, in the form of the original configurations.
NETWORK = {
    "model_name": "videodit_ardf",
    "num_layers": 3,
    "hidden_size": 32,
    "ffn_hidden_size": 48,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "kv_channels": 8,
    "in_channels": 4,
    "out_channels": 4,
    "caption_channels": 32,
    "caption_max_length": 12,
    "params_dtype": "torch.float32",
}
open_original = partial(module.open_original, Magi1Pipeline)
ALONE = {"vae": None, "t5": None, "special_tokens": None}
TENSOR = "videodit_blocks.layers.1.mlp.linear_fc2.weight"


def config(fp8: bool = False, distill: bool = False, **fields) -> dict:
    runtime = {"cfg_number": 3, "num_steps": 4, "chunk_width": 2, "num_frames": 8, "load": "./ckpt"}
    engine = {"fp8_quant": fp8, "distill": distill, "cp_size": 8}
    return {"model_config": {**NETWORK, **fields}, "runtime_config": runtime, "engine_config": engine}


@pytest.fixture(scope="module")
def make_weights():
    """Random weights of the transformer in its original names; blocks in `dtype`, the rest in float32."""
    from animagic.systems.magi1.weights import transformer_from_config

    def make(dtype: torch.dtype = torch.float32, fp8: bool = False) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        weights = transformer_from_config(config(fp8)).state_dict()
        for name, tensor in weights.items():
            if tensor.dtype == torch.float8_e4m3fn:
                weights[name] = torch.randn(tensor.shape).to(torch.float8_e4m3fn)
            elif name.startswith("videodit_blocks") and "scale" not in name:
                weights[name] = (tensor + 0.1 * torch.randn(tensor.shape)).to(dtype)
        return weights

    return make


@pytest.fixture
def original(tmp_path, make_weights) -> Path:
    """The configuration file of a transformer in two plain shards and a compressed one, alone."""
    write_transformer(tmp_path / "ckpt" / "inference_weight", make_weights(), shards=3, compressed=1)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config()))
    return file


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make_weights) -> Path:
    """The configuration file of a checkpoint with all parts in bfloat16 or float32. Not to be changed."""
    folder = tmp_path_factory.mktemp("published")
    write_transformer(folder / "magi" / "4.5B" / "inference_weight", make_weights(torch.bfloat16))
    write_autoencoder(folder / "vae")
    write_text_encoder(folder / "t5" / "t5-v1_1-xxl")
    write_special_tokens(folder / "special_tokens.npz")
    fields = config()
    fields["runtime_config"] |= {"load": "./magi/4.5B", "t5_pretrained": "./t5", "vae_pretrained": "./vae"}
    (folder / "config.json").write_text(json.dumps(fields))
    return folder / "config.json"


def assert_equal(module: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Names, dtypes and values."""
    ours = module.state_dict()
    assert ours.keys() == weights.keys()
    for name, tensor in weights.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name].float(), tensor.float()), name


# Reading


def test_all_parts_come_as_they_are_stored(whole, make_weights):
    pipe = Magi1Pipeline.from_original(whole, allow_pickle=True)
    assert_equal(pipe.transformer, make_weights(torch.bfloat16))
    assert_equal(pipe.vae, load_file(whole.parent / "vae" / "diffusion_pytorch_model.safetensors"))
    table = np.load(whole.parent / "special_tokens.npz")
    assert_equal(pipe.special_tokens, {name: torch.from_numpy(table[name]) for name in table})
    assert pipe.sampling.num_steps == 4
    assert not any(module.training for module in (pipe.transformer, pipe.vae, pipe.text_encoder))
    assert not any(
        p.is_meta for name in ("transformer", "vae", "text_encoder") for p in getattr(pipe, name).parameters()
    )
    text = pipe.embed_prompts("a red ball").at(0)
    assert text.embeds.shape[-1] == 32
    assert text.mask.sum() >= 4  # three words and the end


def test_the_text_encoder_is_the_one_that_was_stored(tmp_path, original):
    from transformers import T5EncoderModel

    weights = write_text_encoder(tmp_path / "t5")
    places = {"vae": None, "special_tokens": None, "allow_pickle": True}
    ours = Magi1Pipeline.from_original(original, t5=tmp_path / "t5", **places).text_encoder
    theirs = T5EncoderModel(ours.config)
    theirs.load_state_dict(weights)
    tokens = torch.tensor([[5, 9, 1]])
    assert torch.equal(ours(tokens).last_hidden_state, theirs.eval()(tokens).last_hidden_state)


def test_a_dtype_that_is_asked_for_leaves_float32_what_is_published_so(whole):
    pipe = Magi1Pipeline.from_original(whole, allow_pickle=True, torch_dtype=torch.bfloat16)
    kept = {"x_embedder", "t_embedder", "y_embedder", "rope", "final_linear"}
    for name, parameter in pipe.transformer.named_parameters():
        assert parameter.dtype == (torch.float32 if name.split(".")[0] in kept else torch.bfloat16), name
    for part in (pipe.vae, pipe.text_encoder, pipe.special_tokens):
        assert {p.dtype for p in part.parameters()} == {torch.bfloat16}


def test_the_pipelines_for_pictures_and_clips(original):
    for cls in (animagic.Magi1ImageToVideoPipeline, animagic.Magi1VideoToVideoPipeline):
        assert type(cls.from_original(original, **ALONE)) is cls


def test_paths_are_relative_to_the_configuration_or_the_working_directory(original, tmp_path, monkeypatch):
    elsewhere = tmp_path / "example" / "config.json"
    elsewhere.parent.mkdir()
    shutil.copy(original, elsewhere)
    monkeypatch.chdir(tmp_path)
    for source in (original, elsewhere, json.loads(original.read_text())):
        assert open_original(source, **ALONE).parts.keys() == {"transformer"}
    monkeypatch.chdir(elsewhere.parent)
    with pytest.raises(CheckpointError, match=r"runtime_config\.load is \./ckpt, but there is no folder ckpt; name"):
        open_original("config.json", **ALONE)
    assert open_original("config.json", transformer=tmp_path / "ckpt", **ALONE)


def test_a_folder_with_its_configuration(original, tmp_path):
    for folder in (tmp_path / "ckpt", tmp_path / "ckpt" / "inference_weight"):
        assert open_original(folder, config=original, **ALONE)
    with pytest.raises(InputError, match="a configuration already"):
        open_original(original, config=original, **ALONE)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.zst"])
def test_one_file_without_an_index(tmp_path, make_weights, name):
    import zstandard

    data = save(make_weights())
    (tmp_path / name).write_bytes(zstandard.compress(data) if name.endswith("zst") else data)
    assert_equal(Magi1Pipeline.from_original(tmp_path, config=config(), **ALONE).transformer, make_weights())


def test_parts_are_looked_for_beside_the_transformer(whole):
    files = open_original(whole.parent / "magi" / "4.5B", config=config(), allow_pickle=True)
    assert files.parts.keys() == {"transformer", "vae", "text_encoder"}
    assert files.pipeline.special_tokens is not None


def test_a_part_that_is_absent_must_be_left_out_in_so_many_words(original, tmp_path):
    with pytest.raises(CheckpointError, match=rf"no autoencoder .*looked in .*{tmp_path}/vae.*none to do without"):
        open_original(original)
    with pytest.raises(CheckpointError, match=rf"no text encoder .*{tmp_path}/t5.*none to do without"):
        open_original(original, vae=None)
    files = open_original(original, vae=None, t5=None)
    assert files.parts.keys() == {"transformer"}
    assert files.pipeline.special_tokens is None


@pytest.mark.parametrize(("fp8", "distill"), [(False, False), (False, True), (True, False), (True, True)])
def test_the_configuration_chooses_the_folder(tmp_path, make_weights, fp8, distill):
    suffixes = {(False, False): "", (False, True): ".distill", (True, False): ".fp8", (True, True): ".fp8.distill"}
    for kind, suffix in suffixes.items():
        write_transformer(tmp_path / f"inference_weight{suffix}", make_weights(fp8=kind[0]))
    files = open_original(tmp_path, config=config(fp8, distill), **ALONE)
    assert files.parts["transformer"].weights.source.parent.name == f"inference_weight{suffixes[fp8, distill]}"
    with pytest.raises(CheckpointError, match=r"holds inference_weight and inference_weight\.distill"):
        open_original(tmp_path, **ALONE)

    shutil.rmtree(files.parts["transformer"].weights.source.parent)
    with pytest.raises(CheckpointError, match="the configuration asks for inference_weight"):
        open_original(tmp_path, config=config(fp8, distill), **ALONE)


def test_fp8_stays_fp8(tmp_path, make_weights):
    weights = make_weights(torch.bfloat16, fp8=True)
    assert sum(tensor.dtype == torch.float8_e4m3fn for tensor in weights.values()) == 7
    write_transformer(tmp_path / "inference_weight.fp8.distill", weights)
    fields = config(fp8=True, distill=True)
    assert_equal(Magi1Pipeline.from_original(tmp_path, config=fields, **ALONE).transformer, weights)
    for dtype in (torch.bfloat16, torch.float32):
        network = Magi1Pipeline.from_original(tmp_path, config=fields, torch_dtype=dtype, **ALONE).transformer
        assert {name for name, p in network.named_parameters() if p.dtype == torch.float8_e4m3fn} == {
            name for name, tensor in weights.items() if tensor.dtype == torch.float8_e4m3fn
        }
        assert {p.dtype for name, p in network.named_parameters() if name.endswith("_scale")} == {torch.float32}

    convert(tmp_path, tmp_path / "out", config=fields, **ALONE)
    assert_equal(Magi1Pipeline.from_pretrained(tmp_path / "out", dtype=torch.bfloat16).transformer, weights)
    widest = animagic.load(tmp_path / "out").transformer  # float32, but for FP8
    eight = {name: tensor for name, tensor in weights.items() if tensor.dtype == torch.float8_e4m3fn}
    assert_equal(widest, {name: weights[name] if name in eight else weights[name].float() for name in weights})


def test_checking_reads_headers_only(original, monkeypatch):
    monkeypatch.setattr(Weights, "read", lambda self: pytest.fail("read"))
    assert open_original(original, **ALONE).parts.keys() == {"transformer"}


# Converting


def test_the_converted_folder_is_a_pipeline(whole, tmp_path, make_weights):
    said = []
    out = tmp_path / "out"
    result = convert(whole, out, allow_pickle=True, on_written=said.append, shard_bytes=30_000)
    assert result.parts == ("special_tokens", "text_encoder", "tokenizer", "transformer", "vae")
    assert result.model is None
    assert [one.done for one in said] == sorted(one.done for one in said)
    assert said[-1].done == said[-1].total == result.bytes

    shards = sorted((out / "transformer").glob("*.safetensors"))
    assert len(shards) >= 2
    assert shards[0].name == f"diffusion_pytorch_model-00001-of-{len(shards):05d}.safetensors"
    listed = json.loads((out / "transformer" / "diffusion_pytorch_model.safetensors.index.json").read_text())
    stored = make_weights(torch.bfloat16)
    assert listed["metadata"]["total_size"] == sum(tensor.nbytes for tensor in stored.values())
    written = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    assert written.keys() == listed["weight_map"].keys() == stored.keys()
    assert all(written[name].dtype == tensor.dtype for name, tensor in stored.items())
    assert {path.name for path in out.iterdir()} == {*result.parts, "model_index.json"}
    assert list(tmp_path.iterdir()) == [out]

    direct = Magi1Pipeline.from_original(whole, allow_pickle=True, torch_dtype=torch.float32)
    for loaded in (Magi1Pipeline.from_pretrained(out), animagic.load(out)):
        for part in ("transformer", "vae", "text_encoder", "special_tokens"):
            assert_equal(getattr(loaded, part), getattr(direct, part).state_dict())
        assert loaded.sampling == direct.sampling
        words = "a red ball bounces"
        assert torch.equal(loaded.embed_prompts(words).at(0).embeds, direct.embed_prompts(words).at(0).embeds)
    assert type(animagic.load(out, task="image")) is animagic.Magi1ImageToVideoPipeline


def test_the_converted_tokenizer_needs_no_spiece_model(whole, tmp_path, monkeypatch):
    convert(whole, tmp_path / "out", allow_pickle=True)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "sentencepiece" else find(name, *a)
    )
    with pytest.raises(InputError, match=r"spiece\.model.*pip install 'animagic\[convert\]'"):
        open_original(whole, allow_pickle=True)
    assert not list((tmp_path / "out").rglob("spiece.model"))
    assert animagic.load(tmp_path / "out").tokenizer("a red ball").input_ids


# What is wrong is refused: in Python by an error, on the command line with exit code 2, one sentence and nothing left.


def cut(file: Path, keep: float) -> None:
    os.truncate(file, int(file.stat().st_size * keep))


def rewrite(shard: Path, change) -> None:
    weights = load_file(shard)
    change(weights)
    save_file(weights, shard)


def reshaped(weights: dict) -> None:
    name = next(name for name in weights if name.endswith(".weight") and weights[name].ndim == 2)
    weights[name] = weights[name][:, 1:].contiguous()


def in_index(index: Path, old: str, new: str) -> None:
    text = index.read_text()
    assert old in text
    index.write_text(text.replace(old, new))


FIRST = "model-00001-of-00003.safetensors"
BAD_TRANSFORMERS = {
    "cut off": (lambda f: cut(f / FIRST, 0.9), (FIRST, "cut off in the tensor")),
    "a tensor of another size": (
        lambda f: rewrite(f / FIRST, reshaped),
        (FIRST, "t_embedder", "has the shape [8, 7], not [8, 8]"),
    ),
    "a tensor less": (
        lambda f: (
            rewrite(f / FIRST, lambda w: w.pop("x_embedder.weight")),
            in_index(f / INDEX, f'"x_embedder.weight": "{FIRST}", ', ""),
        ),
        (INDEX, "the tensor x_embedder.weight is missing"),
    ),
    "a tensor more": (
        lambda f: rewrite(f / FIRST, lambda w: w.update({"more.weight": torch.zeros(2)})),
        (FIRST, "the tensor more.weight is unexpected"),
    ),
    "no weights": (lambda f: shutil.rmtree(f), ("ckpt", "inference_weight")),
}


@pytest.mark.parametrize("case", BAD_TRANSFORMERS)
def test_bad_weights(case, original, tmp_path, run):
    damage, words = BAD_TRANSFORMERS[case]
    damage(tmp_path / "ckpt" / "inference_weight")
    with pytest.raises(CheckpointError) as caught:
        Magi1Pipeline.from_original(original, **ALONE)
    for word in words:
        assert word in str(caught.value)
    before = set(tmp_path.iterdir())
    ran = run("convert", original, "-o", "out", "--vae", "none", "--t5", "none", "--special-tokens", "none")
    ran.refused(*words)
    assert str(caught.value) in ran.err
    assert set(tmp_path.iterdir()) == before


BAD_CONFIGS = {
    "no JSON": (lambda c: "{", ("config.json is not valid JSON",)),
    "no object": (lambda c: [], ("config.json holds a JSON list",)),
    "an unknown section": (lambda c: {**c, "other": {}}, ("config.json", "'other'")),
    "a section that is none": (lambda c: {**c, "engine_config": 3}, ("config.json", "'engine_config'")),
    "an unknown field": (
        lambda c: {**c, "model_config": {**c["model_config"], "experts": 8}},
        ("config.json", "model_config.experts is unknown"),
    ),
    "an unknown field that is not of the network": (
        lambda c: {**c, "engine_config": {"cuda": 1}},
        ("config.json", "engine_config.cuda is unknown"),
    ),
    "no network": (lambda c: {"runtime_config": c["runtime_config"]}, ("config.json", "lacks model_config")),
    "no folder": (lambda c: {**c, "runtime_config": {}}, ("config.json lacks runtime_config.load",)),
    "a folder that is not there": (lambda c: {**c, "runtime_config": {"load": "./gone"}}, ("config.json", "./gone")),
    "a size that is a word": (
        lambda c: {**c, "model_config": {**c["model_config"], "hidden_size": "wide"}},
        ("config.json",),
    ),
    "heads that do not fit": (
        lambda c: {**c, "model_config": {**c["model_config"], "num_query_groups": 3}},
        ("config.json", "groups evenly"),
    ),
    "another network": (
        lambda c: {**c, "model_config": {**c["model_config"], "hidden_size": 64}},
        (FIRST, "x_embedder.weight has the shape [32, 4, 1, 2, 2], not [64, 4, 1, 2, 2]"),
    ),
    "more layers": (
        lambda c: {**c, "model_config": {**c["model_config"], "num_layers": 4}},
        (INDEX, "the tensor videodit_blocks.layers.3.", "is missing"),
    ),
    "fewer layers": (
        lambda c: {**c, "model_config": {**c["model_config"], "num_layers": 2}},
        ("-of-00003.safetensors", "the tensor videodit_blocks.layers.2.", "is unexpected"),
    ),
    "the wrong folder": (
        lambda c: {**c, "engine_config": {"distill": True}},
        ("asks for inference_weight.distill", "inference_weight;"),
    ),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_bad_configurations(case, original, run):
    change, words = BAD_CONFIGS[case]
    changed = change(config())
    original.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    before = set(original.parent.iterdir())
    run("convert", original, "-o", "out", "--vae", "none", "--t5", "none").refused(*words)
    assert set(original.parent.iterdir()) == before


@pytest.mark.parametrize(("stored", "said"), [(True, "these are FP8 weights"), (False, "these are no FP8 weights")])
def test_fp8_and_other_weights_mixed_up(tmp_path, make_weights, stored, said):
    write_transformer(tmp_path / "weights", make_weights(fp8=stored))
    with pytest.raises(CheckpointError, match=f"the tensor videodit_blocks.layers.1.*: {said}"):
        open_original(tmp_path / "weights", config=config(fp8=not stored), **ALONE)


def test_a_model_that_is_none_of_the_published_ones_needs_its_configuration(original, tmp_path):
    with pytest.raises(CheckpointError, match=r"none of the six published models \(3 layers.*give the configuration"):
        open_original(tmp_path / "ckpt", **ALONE)
    with pytest.raises(CheckpointError, match="there is no folder and no configuration"):
        open_original(tmp_path / "gone", **ALONE)


BAD_AUTOENCODERS = {
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json is not valid JSON"),
    "another class": (
        lambda f: (f / "config.json").write_text('{"_class_name": "AutoencoderKL"}'),
        "_class_name ViTVAE",
    ),
    "an unknown field": (
        lambda f: (f / "config.json").write_text('{"ddconfig": {}, "colour": 1}'),
        "config.json has an unknown field 'colour'",
    ),
    "an unknown field inside": (
        lambda f: (f / "config.json").write_text('{"ddconfig": {"colour": 1}}'),
        "config.json cannot be used.*'colour'",
    ),
    "no weights": (
        lambda f: (f / "diffusion_pytorch_model.safetensors").unlink(),
        r"diffusion_pytorch_model\.safetensors",
    ),
}


@pytest.mark.parametrize("case", BAD_AUTOENCODERS)
def test_bad_autoencoders(case, original, tmp_path):
    damage, words = BAD_AUTOENCODERS[case]
    damage(write_autoencoder(tmp_path / "vae"))
    with pytest.raises(CheckpointError, match=words):
        open_original(original, t5=None)


# The text encoder, and pickles


class Hostile:
    def __reduce__(self):
        return os.system, ("touch was-run",)


def test_pickles_are_refused_unless_they_are_allowed(whole, run):
    ran = run("convert", whole, "-o", "out")
    ran.refused("pytorch_model.bin.index.json is a pickle", "--allow-pickle")
    assert not Path("out").exists()
    assert run("convert", whole, "-o", "out", "--allow-pickle").code == 0


def test_the_text_encoder_from_safetensors(original, tmp_path):
    weights = write_text_encoder(tmp_path / "t5", pickled=False)
    files = open_original(original, vae=None)
    twin = "encoder.embed_tokens.weight"
    assert files.parts["text_encoder"].weights.entries.keys() == weights.keys() - {twin}
    assert_equal(files.parts["text_encoder"].load(), {**weights, twin: weights["shared.weight"]})


BAD_TEXT_ENCODERS = {
    "another kind": (
        lambda f: (f / "config.json").write_text('{"model_type": "bert"}'),
        "config.json is not that of a T5",
    ),
    "no tokenizer": (lambda f: (f / "spiece.model").unlink(), "holds no tokenizer"),
    "a damaged tokenizer": (
        lambda f: (f / "spiece.model").write_bytes(b"\x00" * 50),
        "the tokenizer in .*t5 cannot be read",
    ),
    "a shard missing": (
        lambda f: (f / "pytorch_model-00001-of-00002.bin").unlink(),
        "00001-of-00002.bin is missing: .* shared.weight",
    ),
}


@pytest.mark.parametrize("case", BAD_TEXT_ENCODERS)
def test_bad_text_encoders(case, original, tmp_path):
    damage, words = BAD_TEXT_ENCODERS[case]
    write_text_encoder(tmp_path / "t5")
    damage(tmp_path / "t5")
    with pytest.raises(CheckpointError, match=words):
        open_original(original, vae=None, allow_pickle=True)


def test_a_text_encoder_of_another_width(original, tmp_path):
    write_text_encoder(tmp_path / "t5", channels=16)
    with pytest.raises(
        CheckpointError, match=r"config\.json describes a text encoder of 16 channels; the transformer reads 32"
    ):
        open_original(original, vae=None, allow_pickle=True)


# Special tokens


def test_special_tokens(tmp_path):
    table = write_special_tokens(tmp_path / "special_tokens.npz", 8)
    tokens = read_special_tokens(tmp_path / "special_tokens.npz", 8)
    assert torch.equal(tokens.row("hq"), torch.from_numpy(table["other_tokens"][1]))
    assert torch.equal(tokens.row("logo"), torch.from_numpy(table["logo_token"][0]))
    flat = {name: rows[0] if len(rows) == 1 else rows for name, rows in table.items()}
    np.savez(tmp_path / "flat.npz", **flat)
    assert_equal(read_special_tokens(tmp_path / "flat.npz", 8), tokens.state_dict())


GOOD_TOKENS = {"caption_token": np.ones((1, 8)), "logo_token": np.ones((1, 8)), "other_tokens": np.ones((100, 8))}
BAD_TOKENS = {
    "one missing": ({k: v for k, v in GOOD_TOKENS.items() if k != "logo_token"}, "the tensor logo_token is missing"),
    "other width": ({**GOOD_TOKENS, "other_tokens": np.ones((100, 4))}, r"other_tokens has the shape \[100, 4\]"),
    "two rows": ({**GOOD_TOKENS, "logo_token": np.ones((2, 8))}, r"logo_token has the shape \[2, 8\]"),
    "few rows": (
        {**GOOD_TOKENS, "other_tokens": np.ones((5, 8))},
        r"other_tokens has the shape \[5, 8\], not \[17, 8\]",
    ),
    "whole numbers": ({**GOOD_TOKENS, "logo_token": np.ones((1, 8), int)}, "logo_token is stored as torch.int64"),
    "objects": ({**GOOD_TOKENS, "logo_token": np.array([[Hostile()] * 8])}, "cannot be read as a table"),
}


@pytest.mark.parametrize("case", BAD_TOKENS)
def test_bad_special_tokens(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays, words = BAD_TOKENS[case]
    np.savez("special_tokens.npz", **arrays)
    with pytest.raises(CheckpointError, match=rf"special_tokens\.npz.*{words}"):
        read_special_tokens(Path("special_tokens.npz"), 8)
    assert not Path("was-run").exists()


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04 no archive either"])
def test_damaged_special_tokens(tmp_path, data):
    (tmp_path / "t.npz").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"t\.npz cannot be read as a table"):
        read_special_tokens(tmp_path / "t.npz", 8)
    np.savez(tmp_path / "cut.npz", **GOOD_TOKENS)
    cut(tmp_path / "cut.npz", 0.7)
    with pytest.raises(CheckpointError, match=r"cut\.npz cannot be read as a table"):
        read_special_tokens(tmp_path / "cut.npz", 8)


# The command line


def test_the_command_line(original, tmp_path, run, make_weights):
    ran = run(
        "convert", tmp_path / "ckpt", "-o", "out", "--config", original, "--vae", "none", "--t5", "none", "--json"
    )
    assert (ran.code, ran.err) == (0, "")
    answer = json.loads(ran.out)
    size = sum(tensor.nbytes for tensor in make_weights().values())
    assert (answer["output"], answer["parts"], answer["bytes"]) == ("out", ["transformer"], size)
    assert_equal(animagic.load("out").transformer, make_weights())

    ran = run("convert", original, "-o", "other", "--vae", "none", "--t5", "none")
    assert (ran.code, ran.out) == (0, "other\n")
    assert "transformer; 0.00 GB in" in ran.err


def test_what_is_there_is_left_alone(original, tmp_path, run):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "note.txt").write_text("mine")
    run("convert", original, "-o", "out", "--vae", "none", "--t5", "none").refused("out", "not an empty folder")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["note.txt"]
    (tmp_path / "out" / "note.txt").unlink()
    assert run("convert", original, "-o", "out", "--vae", "none", "--t5", "none").code == 0
    run("convert", original, "-o", "no/such/folder").refused("no/such", "is not a folder")


def test_ctrl_c_leaves_nothing(original, tmp_path, run, monkeypatch):
    before, read = set(tmp_path.iterdir()), Weights.read

    def interrupted(self):
        for count, tensor in enumerate(read(self)):
            if count > 20:
                raise KeyboardInterrupt
            yield tensor

    monkeypatch.setattr(Weights, "read", interrupted)
    assert run("convert", original, "-o", "out", "--vae", "none", "--t5", "none").code == 130
    assert set(tmp_path.iterdir()) == before


def test_a_disk_that_is_full(original, mount, tmp_path, run, monkeypatch):
    disk = mount(tmp_path / "small", "size=40k")
    words = ("convert", original, "-o", disk / "out", "--vae", "none", "--t5", "none")
    run(*words).refused("out needs 0.0 GB, and only 0.0 GB are free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, 10**12))
    run(*words).refused("out cannot be written: the disk is full")
    assert list(disk.iterdir()) == []
