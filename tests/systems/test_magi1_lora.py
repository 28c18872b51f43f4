"""LoRA on MAGI-1: beside FP8, compiled, offloaded, and from the command line.

tests/weights/test_lora.py has what every system can do."""

import json

import pytest
import torch
from safetensors.torch import save_file

from animagic import CheckpointError, InputError, Magi1Pipeline

LAYER = "videodit_blocks.layers.1.self_attention.linear_qkv.q"


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def pipe(tiny_transformer):
    return Magi1Pipeline(tiny_transformer())


def linear_layers(network) -> dict:
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear)}


@pytest.fixture
def make_lora(tiny_transformer):
    """A random LoRA for the linear layers whose names contain one of `only`, under the original names."""
    layers = linear_layers(tiny_transformer())

    def make(seed: int = 1, rank: int = 4, only=("",)) -> dict[str, torch.Tensor]:
        generator, tensors = torch.Generator().manual_seed(seed), {}
        for name, layer in layers.items():
            if any(part in name for part in only):
                tensors[f"{name}.lora_A.weight"] = torch.randn(rank, layer.in_features, generator=generator) * 0.2
                tensors[f"{name}.lora_B.weight"] = torch.randn(layer.out_features, rank, generator=generator) * 0.2
        return tensors

    return make


def run(pipe) -> torch.Tensor:
    """One forward of two chunks."""
    generator = torch.Generator().manual_seed(5)
    latents, text = torch.randn(1, 4, 4, 4, 4, generator=generator), torch.randn(1, 2, 12, 8, generator=generator)
    return pipe.transformer(latents, torch.tensor([[0.1, 0.4]]), text).sample


def with_changes(transformer, *changes: tuple[dict, float]) -> Magi1Pipeline:
    """The transformer with W + weight * B @ A computed by hand."""
    for tensors, weight in changes:
        for name, layer in linear_layers(transformer).items():
            if f"{name}.lora_A.weight" in tensors:
                layer.weight += weight * tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
    return Magi1Pipeline(transformer)


def assert_close(one: torch.Tensor, other: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert (one - other).norm() <= tolerance * other.norm()


def test_compiled_whole_and_swapped_without_compiling_again(make_lora, tiny_transformer):
    here = ("layers.0", "final_linear")
    pipe, fresh = (Magi1Pipeline(tiny_transformer(num_layers=1)) for _ in range(2))
    fresh.load_lora_weights(make_lora(2, rank=6, only=here))
    pipe.enable_lora_hotswap(target_rank=6)
    pipe.load_lora_weights(make_lora(1, only=here), "a")
    uncompiled = run(pipe)
    torch._dynamo.reset()
    pipe.transformer = torch.compile(pipe.transformer, backend="eager", fullgraph=True)
    assert_close(run(pipe), uncompiled)
    with torch._dynamo.config.patch(error_on_recompile=True):
        pipe.load_lora_weights(make_lora(2, rank=6, only=here), "a", hotswap=True)
        assert_close(run(pipe), run(fresh))
    pipe.set_adapters("a", 0.0)
    fresh.unload_lora_weights()
    assert torch.equal(run(pipe), run(fresh))
    pipe.unload_lora_weights()
    assert torch.equal(run(pipe), run(fresh))
    torch._dynamo.reset()


def test_group_offloading_goes_on(pipe, make_lora, tiny_transformer):
    here = torch.device("cpu")
    pipe.transformer.enable_group_offload(onload_device=here, offload_device=here, offload_type="leaf_level")
    pipe.load_lora_weights(make_lora())
    assert_close(run(pipe), run(with_changes(tiny_transformer(), (make_lora(), 1))))
    pipe.unload_lora_weights()
    assert torch.equal(run(pipe), run(Magi1Pipeline(tiny_transformer())))


def test_in_the_dtype_of_each_layer(pipe, make_lora):
    pipe.transformer.videodit_blocks.to(torch.bfloat16)
    pipe.load_lora_weights({name: tensor.half() for name, tensor in make_lora().items()})
    layers = pipe.transformer.get_submodule(LAYER), pipe.transformer.final_linear.linear
    assert [layer.lora_A["default_0"].weight.dtype for layer in layers] == [torch.bfloat16, torch.float32]


def test_beside_layers_in_fp8(pipe, make_lora):
    from animagic.layers.fp8 import Fp8Linear

    for name, layer in linear_layers(pipe.transformer).items():
        if name.endswith(("linear_qkv.q", "linear_proj", "linear_fc1")):
            maxima = torch.full((layer.in_features,), 5.0)
            quantised = Fp8Linear.from_float(layer.weight, maxima, smoothed=name.endswith("linear_proj"))
            pipe.transformer.set_submodule(name, quantised)
    base, tensors = run(pipe), make_lora()
    pipe.load_lora_weights(tensors, "a")
    assert (run(pipe) - base).norm() > 0.1 * base.norm()
    layer, x = pipe.transformer.get_submodule(LAYER), torch.randn(3, 32)
    change = x @ tensors[f"{LAYER}.lora_A.weight"].T @ tensors[f"{LAYER}.lora_B.weight"].T
    assert_close(layer(x), layer.base_layer(x) + change)
    with pytest.raises(InputError, match="cannot be fused into FP8"):
        pipe.fuse_lora()
    assert pipe.num_fused_loras == 0
    pipe.load_lora_weights(make_lora(2, rank=2), "a", hotswap=True)
    swapped = run(pipe)
    pipe.unload_lora_weights()
    assert isinstance(pipe.transformer.get_submodule(LAYER), Fp8Linear)
    assert torch.equal(run(pipe), base)
    pipe.load_lora_weights(make_lora(2, rank=2))
    assert_close(run(pipe), swapped)


def test_a_lora_of_the_24b_model_on_the_4_5b_model(tmp_path):
    from animagic.systems.magi1.published import config_of
    from animagic.systems.magi1.weights import transformer_from_config

    def network(name):
        config = config_of(name)
        config["model_config"]["num_layers"] = 2
        with torch.device("meta"):
            return transformer_from_config(config)

    layer = network("24B").get_submodule(LAYER)
    down, up = torch.zeros(1, layer.in_features), torch.zeros(layer.out_features, 1)
    save_file({f"{LAYER}.lora_A.weight": down, f"{LAYER}.lora_B.weight": up}, tmp_path / "large.safetensors")
    with pytest.raises(CheckpointError, match=rf"large\.safetensors.*{LAYER}\.lora_A.*\[1, 6144\].*\[1, 3072\]"):
        Magi1Pipeline(network("4.5B")).load_lora_weights(tmp_path / "large.safetensors")


def test_weights_on_the_command_line():
    from animagic.pipelines.flags import read_weights

    given = [r"C:\styles\ink.safetensors", r"D:\a.safetensors:0.5", "owner/name", "owner/other:-1", "x:y", "b:2e-1"]
    assert list(read_weights(given).items()) == [
        (r"C:\styles\ink.safetensors", 1),
        (r"D:\a.safetensors", 0.5),
        ("owner/name", 1),
        ("owner/other", -1),
        ("x:y", 1),
        ("b", 0.2),
    ]
    with pytest.raises(InputError, match="twice"):
        read_weights(["a:1", "a:2"])


def test_generate_and_reproduce(generate, run, make_lora, frames_of, tmp_path):
    from animagic.media import read_metadata

    save_file({name: 3 * tensor for name, tensor in make_lora().items()}, tmp_path / "style.safetensors")
    sizes = ("--frames", 8, "--steps", 4)
    for name, words in {"base": (), "none": ("--lora", "style.safetensors:0"), "style": ("--lora", ".:0.8")}.items():
        assert generate("-o", f"{name}.mp4", *sizes, *words).code == 0
    assert (frames_of("none.mp4") == frames_of("base.mp4")).all()
    assert (frames_of("style.mp4") != frames_of("base.mp4")).any()
    stored = read_metadata("style.mp4")
    assert stored["request"]["loras"] == {".": 0.8}
    assert len(stored["inputs"]["LoRA ."]) == 64

    again = run("reproduce", "style.mp4", "--json")
    assert json.loads(again.out) == {"output": "style-again.mp4", "equal_frames": 8, "frames": 8}
    save_file(make_lora(2), tmp_path / "style.safetensors")
    run("reproduce", "style.mp4").refused("LoRA .", "changed")
    (tmp_path / "style.safetensors").unlink()
    run("reproduce", "style.mp4").refused("no .safetensors file")


def test_a_shared_pipeline_is_left_as_it_was(tiny_pipe, tiny_model, make_lora, tmp_path):
    from animagic.requests import build_request, generate

    before = {name: tensor.clone() for name, tensor in tiny_pipe.transformer.state_dict().items()}
    save_file(make_lora(), tmp_path / "style.safetensors")
    request = build_request("a red ball", str(tiny_model), frames=8, steps=4, loras={str(tmp_path): 0.7})
    generate(request, tmp_path / "a.mp4", pipe=tiny_pipe)
    after = tiny_pipe.transformer.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_wrong_loras_on_the_command_line(generate, make_lora, tmp_path):
    generate("--lora", "styles/ink.safetensors").refused("no LoRA styles/ink.safetensors")
    generate("--lora", "ink").refused("no LoRA ink")
    generate("--lora", "a.safetensors:1", "--lora", "a.safetensors").refused("twice")
    generate("--lora", "a.safetensors:nan").refused("--lora", "a.safetensors")
    generate("--lora", "someone/style").refused("no LoRA someone/style", "fetched")
    save_file({"transformer.x.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    generate("--lora", "other.safetensors", "--resume", "-o", "a.mp4").refused("other.safetensors", "x.weight")
    torch.save(make_lora(), tmp_path / "style.pt")
    generate("--lora", "style.pt").refused("style.pt", "pickle")
    assert {file.name for file in tmp_path.iterdir()} == {"other.safetensors", "style.pt"}
