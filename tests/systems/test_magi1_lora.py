"""LoRA on MAGI-1: loaded from every naming, weighed, joined, fused, swapped and taken off again."""

import json

import pytest
import torch
from safetensors.torch import save_file

from animagic import CheckpointError, InputError, Magi1Pipeline

LAYER = "videodit_blocks.layers.1.self_attention.linear_qkv.q"
HUB_OFF = "huggingface_hub.constants.HF_HUB_OFFLINE"


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


# ---------------------------------------------------------------- numbers


def test_one_lora_is_the_change_computed_by_hand(pipe, make_lora, tiny_transformer):
    base = run(pipe)
    pipe.load_lora_weights(make_lora())
    assert (run(pipe) - base).norm() > 0.1 * base.norm()
    assert_close(run(pipe), run(with_changes(tiny_transformer(), (make_lora(), 1))))
    pipe.set_adapters("default_0", 0.0)
    assert torch.equal(run(pipe), base)


def test_two_loras_with_weights_are_the_sum_of_both(pipe, make_lora, tiny_transformer):
    one, two = make_lora(1), make_lora(2, rank=3, only=("linear_fc1", "linear_qkv.q"))  # q, and qx with it
    pipe.load_lora_weights(one, "one")
    pipe.load_lora_weights(two, "two")
    assert (pipe.get_active_adapters(), pipe.get_list_adapters()) == (["two"], {"transformer": ["one", "two"]})
    assert_close(run(pipe), run(with_changes(tiny_transformer(), (two, 1))))
    pipe.set_adapters(["one", "two"], [0.7, -0.4])
    assert pipe.get_active_adapters() == ["one", "two"]
    both = run(with_changes(tiny_transformer(), (one, 0.7), (two, -0.4)))
    assert_close(run(pipe), both)
    pipe.fuse_lora()
    assert_close(run(pipe), both)
    pipe.unfuse_lora()
    pipe.delete_adapters("two")
    pipe.set_adapters("one")
    assert_close(run(pipe), run(with_changes(tiny_transformer(), (one, 1))))
    assert pipe.get_list_adapters() == {"transformer": ["one"]}


def test_weights_of_single_blocks(pipe, make_lora, tiny_transformer):
    pipe.load_lora_weights(make_lora(), "a")
    pipe.set_adapters("a", {"videodit_blocks": 0.0, "videodit_blocks.layers.1": 0.5, LAYER: 2.0})
    expected = {}
    for name, tensor in make_lora().items():
        weight = 1.0 if not name.startswith("videodit") else 0.0 if ".0." in name[:26] else 0.5
        weight = 2.0 if name.startswith(f"{LAYER}.") else weight  # not qx, whose name begins the same
        expected[name] = tensor * weight if "lora_B" in name else tensor
    assert_close(run(pipe), run(with_changes(tiny_transformer(), (expected, 1))))
    with pytest.raises(InputError, match=r"no LoRA changes 'videodit_blocks\.layers\.7'"):
        pipe.set_adapters("a", {"videodit_blocks.layers.7": 1.0})


def test_disabled_it_is_the_model_alone(pipe, make_lora):
    base = run(pipe)
    pipe.load_lora_weights(make_lora())
    changed = run(pipe)
    pipe.disable_lora()
    assert torch.equal(run(pipe), base)
    pipe.enable_lora()
    assert torch.equal(run(pipe), changed)


def test_unloading_restores_the_model_bit_for_bit(pipe, make_lora):
    before = {name: tensor.clone() for name, tensor in pipe.transformer.state_dict().items()}
    pipe.load_lora_weights(make_lora(1))
    pipe.load_lora_weights(make_lora(2))
    pipe.unload_lora_weights()
    after = pipe.transformer.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert (pipe.get_active_adapters(), pipe.get_list_adapters()) == ([], {})


def test_fused_and_unfused(pipe, make_lora, tiny_transformer):
    pipe.load_lora_weights(make_lora())
    unfused = run(pipe)
    pipe.fuse_lora(lora_scale=0.5)
    assert (pipe.num_fused_loras, pipe.fused_loras) == (1, {"default_0"})
    assert_close(run(pipe), run(with_changes(tiny_transformer(), (make_lora(), 0.5))))
    for forbidden in (
        lambda: pipe.set_adapters("default_0", 0.1),
        lambda: pipe.load_lora_weights(make_lora(2)),
        lambda: pipe.delete_adapters("default_0"),
    ):
        with pytest.raises(InputError, match="fused"):
            forbidden()
    pipe.unfuse_lora()
    assert pipe.num_fused_loras == 0
    assert_close(run(pipe), unfused)  # with weight 1 again
    pipe.set_adapters("default_0", 0.0)
    assert_close(run(pipe), run(Magi1Pipeline(tiny_transformer())))


def test_fused_and_unloaded_it_stays_in_the_weights(pipe, make_lora, tmp_path):
    from animagic import Magi1Transformer3DModel

    pipe.load_lora_weights(make_lora())
    changed = run(pipe)
    with pytest.raises(InputError, match="before saving"):
        pipe.save_pretrained(tmp_path)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path)
    again = Magi1Transformer3DModel.from_pretrained(tmp_path / "transformer")
    assert_close(run(Magi1Pipeline(again)), changed)


def test_a_convolution_can_be_changed_too(pipe, tiny_transformer):
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 4, 1, 2, 2, generator=generator), torch.randn(32, 2, 1, 1, 1, generator=generator)
    pipe.load_lora_weights({"x_embedder.lora_A.weight": down, "x_embedder.lora_B.weight": up})
    expected = tiny_transformer()
    expected.x_embedder.weight += (up.flatten(1) @ down.flatten(1)).unflatten(1, down.shape[1:])
    assert_close(run(pipe), run(Magi1Pipeline(expected)))


# ---------------------------------------------------------------- swapping, compiling, offloading


@pytest.mark.parametrize("prepared", [False, True])
def test_a_hot_swapped_lora_is_the_same_as_a_fresh_one(pipe, make_lora, tiny_transformer, prepared):
    if prepared:
        pipe.enable_lora_hotswap(target_rank=8)
    pipe.load_lora_weights(make_lora(1, rank=4), "style")
    pipe.load_lora_weights(make_lora(2, rank=6, only=("mlp", "linear_qkv")), "style", hotswap=True)
    fresh = Magi1Pipeline(tiny_transformer())
    fresh.load_lora_weights(make_lora(2, rank=6, only=("mlp", "linear_qkv")))
    assert_close(run(pipe), run(fresh))
    pipe.set_adapters("style", 0.3)
    fresh.set_adapters("default_0", 0.3)
    assert_close(run(pipe), run(fresh))


def test_ranks_and_alphas_of_layers_may_differ_when_swapped(pipe, make_lora, tiny_transformer):
    mixed = make_lora(2, rank=2, only=("mlp",)) | make_lora(3, rank=4, only=("linear_proj",))
    scaled = {k: t * (6 / 2 if "mlp" in k else 1 / 4) if "lora_B" in k else t for k, t in mixed.items()}
    alphas = {name.replace("lora_A.weight", "alpha"): 6.0 if "mlp" in name else 1.0 for name in mixed if "_A" in name}
    pipe.load_lora_weights(make_lora(), "a")
    pipe.load_lora_weights(mixed | {k: torch.tensor(v) for k, v in alphas.items()}, "a", hotswap=True)
    assert_close(run(pipe), run(with_changes(tiny_transformer(), (scaled, 1))))


def test_what_cannot_be_swapped(pipe, make_lora):
    with pytest.raises(InputError, match="no LoRA 'a'; loaded are: none"):
        pipe.load_lora_weights(make_lora(), "a", hotswap=True)
    pipe.load_lora_weights(make_lora(1, only=("mlp",)), "a")
    before = run(pipe)
    with pytest.raises(CheckpointError, match="cannot be put in the place of 'a'"):
        pipe.load_lora_weights(make_lora(2), "a", hotswap=True)  # more layers than before
    assert torch.equal(run(pipe), before)
    pipe.load_lora_weights(make_lora(2), "ab")  # peft would empty it, taking it for a part of "a"
    with pytest.raises(InputError, match="also a part of"):
        pipe.load_lora_weights(make_lora(3, only=("mlp",)), "a", hotswap=True)


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


# ---------------------------------------------------------------- files and names

NAMINGS = {
    "original": lambda name: name,
    "diffusers": lambda name: f"transformer.{name}",
    "peft": lambda name: f"base_model.model.{name}",
    "peft of a pipeline": lambda name: f"base_model.model.transformer.{name}",
    "live peft": lambda name: name.replace(".weight", ".default.weight"),
    "diffusion_model": lambda name: f"diffusion_model.{name}",
    "down and up": lambda name: f"diffusion_model.{name}".replace("lora_A", "lora_down").replace("lora_B", "lora_up"),
    "older diffusers": lambda name: name.replace("lora_A", "lora.down").replace("lora_B", "lora.up"),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_is_understood(naming, pipe, make_lora, tiny_transformer, tmp_path):
    save_file({NAMINGS[naming](name): t for name, t in make_lora().items()}, tmp_path / "style.safetensors")
    pipe.load_lora_weights(tmp_path / "style.safetensors")
    assert_close(run(pipe), run(with_changes(tiny_transformer(), (make_lora(), 1))))


def test_alpha_is_in_the_scale(pipe, make_lora, tiny_transformer):
    alphas = {f"{LAYER}.alpha": torch.tensor(8.0)}  # over a rank of 4
    pipe.load_lora_weights(make_lora(only=("layers.1.",)) | alphas)
    expected = {k: t * 2 if k == f"{LAYER}.lora_B.weight" else t for k, t in make_lora(only=("layers.1.",)).items()}
    assert_close(run(pipe), run(with_changes(tiny_transformer(), (expected, 1))))


def trained_with_peft(transformer, rslora: bool = False):
    """A transformer with a random adapter of peft's own making: alphas and ranks differ between layers."""
    from peft import LoraConfig

    config = LoraConfig(
        r=4, lora_alpha=6, use_rslora=rslora, target_modules=["q", "linear_fc1", "linear_proj"],
        rank_pattern={"linear_fc1": 2}, alpha_pattern={r"layers\.1\..*\.q": 12}, init_lora_weights=False,
    )  # fmt: skip
    transformer.add_adapter(config, "mine")
    return transformer


@pytest.mark.parametrize("rslora", [False, True])
def test_saved_by_us_by_diffusers_and_by_peft_it_loads_the_same(tiny_transformer, tmp_path, rslora):
    from peft import get_peft_model_state_dict

    trained = trained_with_peft(tiny_transformer(), rslora)
    expected, tensors = run(Magi1Pipeline(trained)), get_peft_model_state_dict(trained, adapter_name="mine")
    config = trained.peft_config["mine"]
    Magi1Pipeline.save_lora_weights(
        tmp_path / "ours", tensors, weight_name="a.safetensors", transformer_lora_adapter_metadata=config.to_dict()
    )
    trained.save_lora_adapter(tmp_path / "diffusers", adapter_name="mine")
    config.save_pretrained(tmp_path / "peft")
    save_file({f"base_model.model.{k}": t for k, t in tensors.items()}, tmp_path / "peft" / "adapter_model.safetensors")
    for folder in ("ours", "diffusers", "peft"):
        pipe = Magi1Pipeline(tiny_transformer())
        pipe.load_lora_weights(tmp_path / folder)
        assert_close(run(pipe), expected)
    canonical = Magi1Pipeline.lora_state_dict(tmp_path / "peft")
    Magi1Pipeline.save_lora_weights(
        tmp_path / "again", {k.removeprefix("transformer."): t for k, t in canonical.items()}
    )
    pipe = Magi1Pipeline(tiny_transformer())
    pipe.load_lora_weights(tmp_path / "again" / "pytorch_lora_weights.safetensors", adapter_name="again")
    assert_close(run(pipe), expected)


def test_which_file_of_a_folder(pipe, make_lora, tmp_path):
    with pytest.raises(InputError, match=r"has no \.safetensors file"):
        pipe.load_lora_weights(tmp_path)
    for seed, name in enumerate(("a", "b")):
        save_file(make_lora(seed), tmp_path / f"{name}.safetensors")
    with pytest.raises(InputError, match=r"several files.*a\.safetensors, b\.safetensors"):
        pipe.load_lora_weights(tmp_path)
    with pytest.raises(InputError, match=r"has no file c\.safetensors"):
        pipe.load_lora_weights(tmp_path, weight_name="c.safetensors")
    pipe.load_lora_weights(tmp_path, weight_name="b.safetensors")
    pipe.load_lora_weights(tmp_path.parent, subfolder=tmp_path.name, weight_name="b.safetensors")
    assert pipe.get_list_adapters() == {"transformer": ["default_0", "default_1"]}


def test_a_hub_id(pipe, make_lora, tmp_path, monkeypatch):
    asked = {}

    def snapshot_download(source, **arguments):
        asked.update(arguments, source=source)
        return str(tmp_path)

    save_file(make_lora(), tmp_path / "style.safetensors")
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    pipe.load_lora_weights("someone/style", revision="v2")
    assert (asked["source"], asked["revision"], asked["ignore_patterns"]) == ("someone/style", "v2", ["*/*"])
    monkeypatch.undo()
    monkeypatch.setattr(HUB_OFF, True)
    with pytest.raises(InputError, match="there is no LoRA someone/other here, and it cannot be fetched"):
        pipe.load_lora_weights("someone/other")


def test_pickles_only_if_that_is_said(pipe, make_lora, tmp_path):
    torch.save(make_lora(), tmp_path / "style.bin")
    with pytest.raises(CheckpointError, match=r"style\.bin is a pickle"):
        pipe.load_lora_weights(tmp_path / "style.bin")
    pipe.load_lora_weights(tmp_path, allow_pickle=True)
    torch.save({"a": print}, tmp_path / "hostile.pt")
    with pytest.raises(CheckpointError, match=r"hostile\.pt cannot be read"):
        pipe.load_lora_weights(tmp_path / "hostile.pt", allow_pickle=True)
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="more than tensors"):
        pipe.load_lora_weights(tmp_path / "list.pt", allow_pickle=True)


# ---------------------------------------------------------------- what is refused


def faulty(make_lora, fault: str) -> dict[str, torch.Tensor]:
    tensors = make_lora(only=("layers.1.self_attention.linear_qkv.q",))
    down, up = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"
    if fault == "another size":
        tensors[down] = torch.zeros(4, 64)
    elif fault == "another output":
        tensors[up] = torch.zeros(64, 4)
    elif fault == "more layers":
        tensors = {name.replace("layers.1.", "layers.40."): tensor for name, tensor in tensors.items()}
    elif fault == "not linear":
        tensors = {name.replace("linear_qkv.q", "q_layernorm"): tensor for name, tensor in tensors.items()}
    elif fault == "a text encoder's":
        tensors["text_encoder.layer.bias"] = torch.zeros(3)
    elif fault == "without partner":
        del tensors[up]
    elif fault == "other rank":
        tensors[up] = torch.zeros(32, 5)
    elif fault == "alpha alone":
        tensors[f"{LAYER}x.y.alpha"] = torch.tensor(1.0)
    elif fault == "alpha of many":
        tensors[f"{LAYER}.alpha"] = torch.ones(2)
    elif fault == "twice":
        tensors[f"transformer.{down}"] = tensors[down].clone()
    else:
        tensors = {}
    return tensors


FAULTS = {
    "another size": (f"{LAYER}.lora_A.weight", "[4, 64]", "[4, 32]", "another size"),
    "another output": (f"{LAYER}.lora_B.weight", "[64, 4]", "[32, 4]"),
    "more layers": ("layers.40.self_attention.linear_qkv.q.lora_A.weight", "another size"),
    "not linear": ("q_layernorm.lora_A.weight", "not a linear layer"),
    "a text encoder's": ("text_encoder.layer.bias", "none of a LoRA"),
    "without partner": (f"{LAYER}.lora_A.weight", "partner"),
    "other rank": (f"{LAYER}.lora_B.weight", "ranks differ"),
    "alpha alone": (f"{LAYER}x.y.alpha", "partner"),
    "alpha of many": (f"{LAYER}.alpha", "one number"),
    "twice": (f"transformer.{LAYER}.lora_A.weight", "same thing"),
    "nothing": ("is empty",),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_lora_is_refused_with_file_and_tensor_named(fault, pipe, make_lora, tmp_path):
    before = list(pipe.transformer.state_dict())
    save_file(faulty(make_lora, fault), tmp_path / "bad.safetensors")
    with pytest.raises(CheckpointError) as raised:
        pipe.load_lora_weights(tmp_path / "bad.safetensors")
    for words in ("bad.safetensors", *FAULTS[fault]):
        assert words in str(raised.value)
    assert list(pipe.transformer.state_dict()) == before


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


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "changes the model itself"),
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"use_dora": True}, "DoRA"),
        ({"lora_alpha": "much"}, "cannot be understood"),
        ({"alpha_pattern": {"(": 1}}, "cannot be understood"),
    ],
)
def test_settings_that_mean_something_else(settings, words, pipe, make_lora, tmp_path):
    save_file(make_lora(), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=words):
        pipe.load_lora_weights(tmp_path)


def test_damaged_files(pipe, make_lora, tmp_path):
    save_file(make_lora(), tmp_path / "whole.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors cannot be read"):
        pipe.load_lora_weights(tmp_path / "cut.safetensors")
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"whole\.safetensors cannot be read"):
        pipe.load_lora_weights(tmp_path / "whole.safetensors")
    with pytest.raises(InputError, match=r"no LoRA styles/ink\.safetensors"):
        pipe.load_lora_weights("styles/ink.safetensors")


def test_names(pipe, make_lora):
    for name in ("", "a.b", "keys"):
        with pytest.raises(InputError, match="cannot be called"):
            pipe.load_lora_weights(make_lora(), name)
    pipe.load_lora_weights(make_lora(), "a")
    with pytest.raises(InputError, match="'a' already"):
        pipe.load_lora_weights(make_lora(), "a")
    for call in (lambda: pipe.set_adapters(["a", "b"]), lambda: pipe.delete_adapters("b")):
        with pytest.raises(InputError, match="no LoRA 'b'; loaded are: a"):
            call()
    with pytest.raises(InputError, match="1 LoRAs need 1 weights, not 2"):
        pipe.set_adapters("a", [1.0, 2.0])
    with pytest.raises(InputError, match="safetensors only"):
        pipe.save_lora_weights("x", make_lora(), safe_serialization=False)


# ---------------------------------------------------------------- for a while, and from the command line


def test_for_a_while(pipe, make_lora, tmp_path, tiny_transformer):
    files = [str(tmp_path / f"{seed}.safetensors") for seed in (1, 2)]
    for seed, file in enumerate(files, start=1):
        save_file(make_lora(seed, only=("mlp",)), file)
    base = run(pipe)
    expected = run(
        with_changes(tiny_transformer(), (make_lora(1, only=("mlp",)), 0.5), (make_lora(2, only=("mlp",)), 2))
    )
    with pipe.using_loras({files[0]: 0.5, files[1]: 2.0}):
        assert_close(run(pipe), expected)
    assert torch.equal(run(pipe), base)
    assert not pipe.get_list_adapters()

    pipe.load_lora_weights(make_lora(3), "mine")
    pipe.load_lora_weights(make_lora(4), "other")
    pipe.set_adapters("mine", 0.3)
    mine = run(pipe)
    pipe.disable_lora()
    with pytest.raises(AssertionError), pipe.using_loras({files[0]: 0.5, files[1]: 2.0}):
        assert_close(run(pipe), base)  # fails: they are on, though what was there before is off
    assert torch.equal(run(pipe), base)
    pipe.enable_lora()
    assert torch.equal(run(pipe), mine)
    with pytest.raises(InputError, match="no LoRA"), pipe.using_loras({files[0]: 1.0, "missing.safetensors": 1.0}):
        pass
    assert (pipe.get_active_adapters(), pipe.get_list_adapters()) == (["mine"], {"transformer": ["mine", "other"]})
    assert torch.equal(run(pipe), mine)


def test_weights_on_the_command_line():
    from animagic.cli.options import parse_lora

    given = [r"C:\styles\ink.safetensors", r"D:\a.safetensors:0.5", "owner/name", "owner/other:-1", "x:y", "b:2e-1"]
    assert list(parse_lora(given).items()) == [
        (r"C:\styles\ink.safetensors", 1),
        (r"D:\a.safetensors", 0.5),
        ("owner/name", 1),
        ("owner/other", -1),
        ("x:y", 1),
        ("b", 0.2),
    ]
    with pytest.raises(InputError, match="twice"):
        parse_lora(["a:1", "a:2"])


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
    generate("--lora", "a.safetensors:nan").refused("number")
    generate("--lora", "someone/style").refused("no LoRA someone/style", "fetched")
    save_file({"transformer.x.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    generate("--lora", "other.safetensors", "--resume", "-o", "a.mp4").refused("other.safetensors", "x.weight")
    torch.save(make_lora(), tmp_path / "style.pt")
    generate("--lora", "style.pt").refused("style.pt", "pickle")
    assert {file.name for file in tmp_path.iterdir()} == {"other.safetensors", "style.pt"}
