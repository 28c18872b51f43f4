"""MAGI-1 in FP8: the published layout, what loading and casting leave alone, and how a model gets there."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from goldens import golden_path, relative_error
from safetensors.torch import load_file, save_file

import animagic
from animagic import CheckpointError, InputError, MediaError
from animagic.checkpoints import from_original
from animagic.layers.fp8 import FP8, Fp8Linear
from animagic.systems.magi1.quantize import check_quantizable, quantize
from animagic.systems.magi1.schema import ModelConfig
from animagic.systems.magi1.transformer import Magi1Transformer3DModel
from animagic.systems.magi1.weights import transformer_from_config
from animagic.weights.quantize import Quantized, folder_of, measure_activations, quantize_network, recorded_maxima

QUANTISED = {"self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2"} | {
    f"self_attention.linear_qkv.{name}" for name in ("q", "qx", "k", "v")
}
SMOOTHED = {"self_attention.linear_proj", "mlp.linear_fc2"}
FEW = {"num_frames": 16, "num_steps": 4}


def call(transformer, seed=0) -> torch.Tensor:
    torch.manual_seed(seed)
    latents, times, text = torch.randn(1, 4, 4, 4, 6), torch.rand(1, 2), torch.randn(1, 2, 12, 8)
    with torch.no_grad():
        return transformer(latents, times, text).sample


def tensors(module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_equal(ours: dict, expected: dict) -> None:
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name].float(), tensor.float()), name


@pytest.fixture(scope="module")
def quantized(make_four_layers):
    """A random transformer of four layers, and the same in FP8."""
    transformer = make_four_layers()
    with recorded_maxima(transformer) as maxima:
        for seed in range(4):
            call(transformer, seed)
    return transformer, quantize_network(transformer, maxima)


@pytest.fixture(scope="module")
def make_four_layers(tiny_transformer):
    return lambda **settings: tiny_transformer(**{"num_layers": 4, **settings})


@pytest.fixture(scope="module")
def folder(make_four_layers, tiny_pipe, tmp_path_factory) -> Path:
    """A random model of four layers, stored in float16."""
    parts = {name: tiny_pipe.components[name] for name in ("vae", "text_encoder", "tokenizer")}
    config = {**tiny_pipe.config.config, "engine_config": {"fp8_quant": False}}
    target = tmp_path_factory.mktemp("fp8") / "float"
    animagic.Magi1Pipeline(make_four_layers().half(), **parts, config=config).save_pretrained(target)
    (target / "LICENSE").write_text("as you like")
    return target


def load(folder):
    pipe = animagic.load(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


# The published layout


@pytest.mark.parametrize("name", ["4.5B_distill_quant", "24B_distill_quant"])
def test_names_shapes_and_dtypes_of_the_published_quantised_transformers(name):
    config = json.loads(golden_path("magi1", "configs", f"{name}_config.json").read_text())
    golden = json.loads(golden_path("magi1", "keys_dit.json").read_text())[name]
    with torch.device("meta"):
        transformer = transformer_from_config(config)
    assert transformer.config.fp8
    kept = set(transformer._keep_in_fp32_modules)
    ours = {}
    for key, tensor in transformer.to(torch.bfloat16).state_dict().items():
        dtype = torch.float32 if kept & set(key.split(".")) else tensor.dtype  # as from_pretrained loads them
        ours[key] = [list(tensor.shape), str(dtype).removeprefix("torch.")]
    assert ours == golden["tensors"]
    assert sum(p.numel() for p in transformer.parameters()) == golden["parameters"]


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
def test_all_layers_but_the_first_and_the_last(make_four_layers, num_layers):
    transformer = make_four_layers(num_layers=num_layers, fp8=True)
    for i, block in enumerate(transformer.videodit_blocks.layers):
        found = {name: module for name, module in block.named_modules() if isinstance(module, Fp8Linear)}
        assert found.keys() == (QUANTISED if 0 < i < num_layers - 1 else set())
        assert {name for name, module in found.items() if module.smooth_scale is not None} == SMOOTHED & found.keys()
    assert not any(isinstance(module, Fp8Linear) for module in make_four_layers(num_layers=num_layers).modules())


def test_original_weights_come_back_as_they_were(quantized):
    _, transformer = quantized
    fields = {name: value for name, value in transformer.config.items() if name in ModelConfig.model_fields}
    config = {
        "model_config": {"model_name": "videodit_ardf", **fields},
        "runtime_config": {"chunk_width": 2},
        "engine_config": {"fp8_quant": True},
    }
    published = {  # bfloat16 where the published files have it
        name: tensor.bfloat16() if tensor.dtype == torch.float32 and not name.endswith("_scale") else tensor
        for name, tensor in transformer.state_dict().items()
    }
    loaded = from_original("magi1", "transformer", published, config)
    assert_equal(
        tensors(loaded), {n: t if t.dtype == FP8 or n.endswith("_scale") else t.float() for n, t in published.items()}
    )
    with pytest.raises(CheckpointError, match=r"linear_qkv\.q\.weight_scale"):
        from_original(
            "magi1", "transformer", {k: v for k, v in published.items() if not k.endswith("q.weight_scale")}, config
        )
    name = "videodit_blocks.layers.1.self_attention.linear_qkv.q.weight"
    with pytest.raises(CheckpointError, match=rf"{name} has the shape \[1, 32, 32\], not \[32, 32\]"):
        from_original("magi1", "transformer", published, {**config, "engine_config": {}})


# Loading and casting


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shards", ["5GB", "20KB"], ids=["one file", "shards"])
def test_saved_and_loaded_it_is_the_same(quantized, tmp_path, dtype, shards):
    _, transformer = quantized
    before = tensors(transformer)
    transformer.save_pretrained(tmp_path, max_shard_size=shards)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shards == "20KB")
    loaded = Magi1Transformer3DModel.from_pretrained(tmp_path, **({} if dtype is None else {"torch_dtype": dtype}))
    assert loaded.config.fp8
    after = tensors(loaded)
    kept = set(transformer._keep_in_fp32_modules)
    for name, tensor in before.items():
        if tensor.dtype == torch.float32 and not kept & set(name.split(".")) and dtype is not None:
            tensor = tensor.to(dtype)
        assert after[name].dtype == tensor.dtype, name
        assert torch.equal(after[name].float(), tensor.float()), name
    assert {t.dtype for n, t in after.items() if n.endswith("_scale")} == {torch.float32}
    assert loaded.dtype == (dtype or torch.float32)
    if dtype in (None, torch.float32):
        # Where tensors lie in memory moves the last bits of sums, and one such bit can move an e4m3 value to the next.
        assert relative_error(call(loaded), call(transformer)) < 0.01


@pytest.mark.parametrize(
    "cast", [lambda m: m.half().float(), lambda m: m.to(torch.float16), lambda m: m.to(dtype=torch.float64)]
)
def test_casting_the_model_leaves_fp8_alone(quantized, cast):
    _, transformer = quantized
    copy = Magi1Transformer3DModel(**{k: v for k, v in transformer.config.items() if not k.startswith("_")})
    copy.load_state_dict(transformer.state_dict())
    after = tensors(cast(copy))
    for name, tensor in transformer.state_dict().items():
        if tensor.dtype == FP8 or name.endswith("_scale"):
            assert after[name].dtype == tensor.dtype, name
            assert torch.equal(after[name].float(), tensor.float()), name


def test_offloading_layer_by_layer_leaves_fp8_alone(quantized):
    from accelerate import cpu_offload

    _, transformer = quantized
    expected = call(transformer)
    copy = Magi1Transformer3DModel(**{k: v for k, v in transformer.config.items() if not k.startswith("_")})
    copy.load_state_dict(transformer.state_dict())
    cpu_offload(copy.eval(), execution_device=torch.device("cpu"))
    assert {p.device.type for p in copy.parameters()} == {"meta"}
    for _ in range(2):
        assert relative_error(call(copy), expected) < 0.01


def test_the_transformer_is_one_graph(make_four_layers):
    transformer = make_four_layers(num_layers=3)
    with recorded_maxima(transformer) as maxima:
        call(transformer)
    transformer = quantize_network(transformer, maxima)
    torch.compiler.reset()
    compiled = torch.compile(transformer, fullgraph=True, backend="eager")
    assert relative_error(call(compiled), call(transformer)) < 0.01


# Quantising


def test_the_quantised_transformer_is_close_to_the_float_one(quantized):
    transformer, ours = quantized
    assert ours.config.fp8
    assert not transformer.config.fp8
    for seed in (0, 7):  # one that was measured on, and one that was not
        error = relative_error(call(ours, seed), call(transformer, seed))
        assert 1e-4 < error < 0.1


def test_input_scales_are_one_number_a_layer(quantized):
    """As the published GEMM demands, which takes one scale for all channels."""
    for module in quantized[1].modules():
        if isinstance(module, Fp8Linear):
            assert len(module.input_scale.unique()) == 1


def test_the_float_transformer_is_left_as_it_was(make_four_layers):
    transformer = make_four_layers()
    before = tensors(transformer)
    with recorded_maxima(transformer) as maxima:
        call(transformer)
    quantize_network(transformer, maxima)
    assert_equal(tensors(transformer), before)
    assert all(not module._forward_pre_hooks for module in transformer.modules())
    first = maxima["videodit_blocks.layers.1.mlp.linear_fc1"].clone()
    call(transformer, 1)
    assert torch.equal(maxima["videodit_blocks.layers.1.mlp.linear_fc1"], first), "still measured"


def test_every_call_raises_the_maxima(make_four_layers):
    transformer = make_four_layers()
    alone = []
    for seeds in ((0,), (1,), (0, 1)):
        with recorded_maxima(transformer) as maxima:
            for seed in seeds:
                call(transformer, seed)
        assert len(maxima) == 2 * len(QUANTISED)
        alone.append(maxima)
    for name, both in alone[2].items():
        assert torch.equal(both, torch.maximum(alone[0][name], alone[1][name]))


def test_what_cannot_be_quantised(make_four_layers, quantized):
    with pytest.raises(InputError, match="has 2 layers; at least 3 are needed"):
        check_quantizable(make_four_layers(num_layers=2))
    with pytest.raises(InputError, match="quantised already"):
        quantize_network(quantized[1], {})


def test_a_damaged_model_is_named(folder):
    pipe = load(folder)
    with torch.no_grad():
        pipe.transformer.videodit_blocks.layers[1].mlp.layer_norm.weight[0] = float("nan")
    with pytest.raises(CheckpointError, match=r"layers\.1\.\S+ is given numbers that are not finite"):
        measure_activations(pipe, pipe.transformer, ["a red ball"], **FEW)


def test_from_folder_to_folder(folder, tmp_path):
    pipe, seen = load(folder), []
    before = tensors(pipe.transformer)
    prompts = ["a red ball bounces", "a blue cat rolls"]
    result = quantize(
        pipe, tmp_path / "fp8", prompts, **FEW, original=True, on_progress=lambda i, p: seen.append((i, p.step))
    )
    assert_equal(tensors(pipe.transformer), before)
    assert {i for i, _ in seen} == {0, 1}
    assert isinstance(result, Quantized)
    assert result.output == str(tmp_path / "fp8")

    # What is not quantised is there byte for byte, or keeps its dtype.
    for part in ("vae", "text_encoder", "tokenizer"):
        for file in (folder / part).iterdir():
            assert (tmp_path / "fp8" / part / file.name).read_bytes() == file.read_bytes()
    assert (tmp_path / "fp8" / "LICENSE").read_text() == "as you like"
    assert json.loads((tmp_path / "fp8" / "model_index.json").read_text())["config"]["engine_config"]["fp8_quant"]
    stored = load_file(tmp_path / "fp8" / "transformer" / "diffusion_pytorch_model.safetensors")
    given = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    for name in given.keys() & stored.keys():
        if stored[name].dtype != FP8:
            assert torch.equal(stored[name].float(), given[name].float())
    assert {t.dtype for n, t in stored.items() if ".layers.0." in n} == {torch.float16}
    assert {t.dtype for n, t in stored.items() if t.ndim == 3 and ".layers." in n} == {FP8}
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())

    # The published layout holds the same.
    published = tmp_path / "fp8" / "inference_weight.fp8"
    index = json.loads((published / "model.safetensors.index.json").read_text())
    shards = {file: load_file(published / file) for file in set(index["weight_map"].values())}
    assert_equal({name: shards[file][name] for name, file in index["weight_map"].items()}, stored)
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in stored.values())

    # It makes video, close to what the float model makes of the same noise.
    again = load(tmp_path / "fp8")
    assert again.transformer.config.fp8
    videos = [
        p("a red ball bounces", num_frames=16, output_type="latent", generator=torch.Generator().manual_seed(3)).frames
        for p in (again, pipe)
    ]
    assert 1e-4 < relative_error(*videos) < 0.1
    with pytest.raises(InputError, match="quantised already"):
        quantize(again, tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_a_distilled_model_says_so_in_the_published_layout(folder, tmp_path):
    source = shutil.copytree(folder, tmp_path / "distilled")
    index = json.loads((source / "model_index.json").read_text())
    index["config"]["engine_config"] = {"distill": True, "fp8_quant": False}
    index["config"]["runtime_config"]["cfg_number"] = 1
    (source / "model_index.json").write_text(json.dumps(index))
    quantize(load(source), tmp_path / "fp8", ["a red ball"], num_frames=8, num_steps=4, original=True)
    assert (tmp_path / "fp8" / "inference_weight.fp8.distill" / "model.safetensors.index.json").exists()


@pytest.mark.parametrize("moment", ["measuring", "writing"])
def test_an_interrupted_run_leaves_nothing(folder, tmp_path, monkeypatch, moment):
    def stop(*_, **__):
        raise KeyboardInterrupt

    if moment == "writing":
        monkeypatch.setattr(Magi1Transformer3DModel, "save_pretrained", stop)
    (tmp_path / "there").mkdir()
    for name in ("there", "new"):
        with pytest.raises(KeyboardInterrupt):
            quantize(
                load(folder), tmp_path / name, ["a red ball"], **FEW,
                on_progress=stop if moment == "measuring" else None,
            )  # fmt: skip
    assert [(path.name, list(path.iterdir())) for path in tmp_path.iterdir()] == [("there", [])]


def test_a_pipeline_of_parts_has_no_folder(quantized, tiny_pipe, tmp_path):
    parts = {name: tiny_pipe.components[name] for name in ("vae", "text_encoder", "tokenizer")}
    pipe = animagic.Magi1Pipeline(quantized[0], **parts, config=tiny_pipe.config.config)
    with pytest.raises(InputError, match="save it with save_pretrained"):
        quantize(pipe, tmp_path / "fp8")
    assert folder_of(load(tmp_path_of(tiny_pipe))) == tmp_path_of(tiny_pipe)


def tmp_path_of(pipe) -> Path:
    return Path(pipe.config._name_or_path)


def test_a_full_folder_and_empty_prompts(folder, tmp_path):
    pipe = load(folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("something")
    with pytest.raises(MediaError, match="is not an empty folder"):
        quantize(pipe, tmp_path / "full")
    for prompts in ([], ["a red ball", " "]):
        with pytest.raises(InputError, match="a prompt to measure with is empty"):
            quantize(pipe, tmp_path / "new", prompts)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_the_benchmark(folder, monkeypatch, capsys):
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "fp8.py"
    few = ["--videos", "2", "--frames", "8", "--steps", "4", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [str(script), "--model", str(folder), *few])
    runpy.run_path(str(script), run_name="__main__")
    rows = dict(line.strip("| ").split(" | ", 1) for line in capsys.readouterr().out.splitlines()[2:])
    assert [*rows] == [
        "transformer on disk", "PSNR, 2 videos", "PSNR of another seed", "velocity, relative error",
        "seconds a video on cpu",
    ]  # fmt: skip
    assert float(rows["PSNR, 2 videos"].split()[0]) > float(rows["PSNR of another seed"].split()[0])


# The command line


def test_the_command(run, folder, tmp_path):
    ran = run("quantize", folder, "-o", "fp8", "--prompt", "a red ball", "--frames", 16, "--steps", 4, "--json")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert said.keys() == {"output", "bytes", "bytes_before", "seconds"}
    assert said["output"] == "fp8"
    assert ran.err == "measuring 1 of 1: a red ball\n"
    (tmp_path / "prompts.txt").write_text("a red ball\n\n a blue cat \n")
    ran = run("quantize", folder, "-o", "again", "--prompts", "prompts.txt", "--frames", 8, "--steps", 4, "--original")
    assert (ran.code, ran.out) == (0, "again\n")
    assert ran.err.startswith("measuring 1 of 2: a red ball\nmeasuring 2 of 2: a blue cat\ntransformer: ")
    assert (tmp_path / "again" / "inference_weight.fp8").is_dir()
    ran = run("generate", "a red ball", "--model", "fp8", "-o", "ball.mp4", "--frames", 8, "--seed", 1)
    assert ran.code == 0, ran.err
    assert (tmp_path / "ball.mp4").stat().st_size > 0
    run("quantize", "fp8", "-o", "twice").refused("quantised already")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompt", " "], "a --prompt is empty"),
        (["--prompt", "a", "--prompts", "words.txt"], "either --prompt or --prompts"),
        (["--prompts", "no.txt"], "no.txt cannot be read"),
        (["--prompts", "blank.txt"], "hold no line of words"),
        (["--prompts", "binary.txt"], "not text in UTF-8"),
        (["--prompts", "full"], "full cannot be read"),
        (["--frames", "0"], "--frames is 0; it must lie between"),
        (["--steps", "-1"], "--steps is -1; it must lie between"),
        (["--steps", "3", "--prompt", "a red ball"], "at least 4, not 3"),
        (["--seed", "-1"], "--seed is -1; it must lie between"),
        (["--seed", "x"], "--seed"),
        (["-o", "full"], "full exists already and is not an empty folder"),
        (["-o", "words.txt"], "words.txt exists already"),
        (["-o", "no/fp8"], "no is not a folder"),
        (["--device", "abacus"], "the device abacus cannot be used here"),
    ],
)
def test_wrong_input(run, folder, tmp_path, words, said):
    (tmp_path / "words.txt").write_text("a red ball")
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00a")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("something")
    before = sorted(tmp_path.rglob("*"))
    target = [] if "-o" in words else ["-o", "fp8"]
    run("quantize", folder, *target, *words).refused(said)
    assert sorted(tmp_path.rglob("*")) == before


def test_wrong_models(run, tiny_model, folder, tmp_path):
    run("quantize", tiny_model, "-o", "fp8").refused("has 2 layers; at least 3 are needed")
    run("quantize", "no-such-model", "-o", "fp8").refused("there is no model 'no-such-model'")
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    file = damaged / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["videodit_blocks.layers.1.mlp.linear_fc1.weight"]
    save_file(weights, file)
    run("quantize", damaged, "-o", "fp8").refused("videodit_blocks.layers.1.mlp.linear_fc1.weight")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]
