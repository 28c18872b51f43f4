"""LoRA on any pipeline: loaded from every naming, weighed, joined, fused, swapped and taken off again.

What every pipeline can do is tried on three: a toy that gives its parts only, MAGI-1 and AnimateDiff. What has nothing
to do with the network is tried on the toy.
"""

import copy
import json
import re

import pytest
import torch
from diffusers import ConfigMixin, DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import HunyuanVideoLoraLoaderMixin, PeftAdapterMixin
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

from animagic import AnimateDiffPipeline, CheckpointError, InputError, Magi1Pipeline
from animagic.weights.lora import LoraMixin, LoraPart, add_lora

FIRST, SECOND = "blocks.0.up", "blocks.1.down"


class Toy(ModelMixin, ConfigMixin, PeftAdapterMixin):
    @register_to_config
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.ModuleDict({"up": nn.Linear(6, 8)}), nn.ModuleDict({"down": nn.Linear(8, 5)})])
        self.norm = nn.LayerNorm(5)

    def forward(self, x):
        return self.norm(self.blocks[1]["down"](self.blocks[0]["up"](x).tanh()))


class ToyPipeline(LoraMixin, HunyuanVideoLoraLoaderMixin, DiffusionPipeline):
    """A third system: it gives one part, whose files may call the layers layer1 and layer2."""

    renames = (r"\blayer1$", FIRST), (r"\blayer2$", SECOND)
    lora_parts = (LoraPart("transformer", renames=renames, blocks={"first": "blocks.0"}),)

    def __init__(self, transformer):
        super().__init__()
        self.register_modules(transformer=transformer)


class Case:
    """A pipeline with what its tests need: random LoRAs for some of its layers, and what its network makes."""

    def __init__(self, pipe, component, layers, run):
        self.pipe, self.component, self.layers, self._run = pipe, component, layers, run
        self.start = copy.deepcopy(self.network)

    @property
    def network(self):
        return getattr(self.pipe, self.component)

    def run(self):
        return self._run(self.network)

    def make(self, seed=1, rank=4, layers=None):
        """A random LoRA under the network's own names."""
        generator, tensors = torch.Generator().manual_seed(seed), {}
        for layer in layers or self.layers:
            weight = self.start.get_submodule(layer).weight
            ones = [1] * (weight.ndim - 2)
            tensors[f"{layer}.lora_A.weight"] = torch.randn(rank, *weight.shape[1:], generator=generator) * 0.2
            tensors[f"{layer}.lora_B.weight"] = torch.randn(len(weight), rank, *ones, generator=generator) * 0.2
        return tensors

    def expect(self, *changes):
        """What a network with W + weight * B @ A, computed by hand, makes."""
        network = copy.deepcopy(self.start)
        for tensors, weight in changes:
            for name in tensors:
                if name.endswith(".lora_A.weight"):
                    down, up = tensors[name].flatten(1), tensors[name.replace("lora_A", "lora_B")].flatten(1)
                    changed = network.get_submodule(name.removesuffix(".lora_A.weight")).weight
                    changed += weight * (up @ down).view_as(changed)
        return self._run(network)


def make_toy():
    torch.manual_seed(0)
    return Toy().eval()


def run_toy(network):
    return network(torch.randn(3, 6, generator=torch.Generator().manual_seed(5)))


def run_transformer(network):
    generator = torch.Generator().manual_seed(5)
    latents, text = torch.randn(1, 4, 4, 4, 4, generator=generator), torch.randn(1, 2, 12, 8, generator=generator)
    return network(latents, torch.tensor([[0.1, 0.4]]), text).sample


def run_unet(network):
    generator = torch.Generator().manual_seed(5)
    sample, text = torch.randn(1, 4, 3, 8, 8, generator=generator), torch.randn(1, 5, 16, generator=generator)
    return network(sample, 500, text).sample


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def networks(tiny_transformer, animatediff_parts):
    self_only = {"motion_attention_block_types": ("Temporal_Self", "Temporal_Self")}
    return {"toy": make_toy(), "magi1": tiny_transformer(), "animatediff": animatediff_parts(**self_only)["unet"]}


def make_case(system, networks):
    network = copy.deepcopy(networks[system])
    if system == "toy":
        return Case(ToyPipeline(network), "transformer", [FIRST, SECOND], run_toy)
    if system == "magi1":
        layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
        return Case(Magi1Pipeline(network), "transformer", [*layers, "x_embedder"], run_transformer)
    ends = re.compile(r".*(attn1\.to_q|to_out\.0|proj_in|conv1|time_emb_proj|downsamplers\.0\.conv)")
    layers = [name for name, _ in network.named_modules() if ends.fullmatch(name)]
    return Case(AnimateDiffPipeline(unet=network), "unet", layers, run_unet)


@pytest.fixture(params=["toy", "magi1", "animatediff"])
def case(request, networks):
    return make_case(request.param, networks)


@pytest.fixture
def toy(networks):
    return make_case("toy", networks)


def assert_close(one, other, tolerance=1e-5):
    assert (one - other).norm() <= tolerance * other.norm()


# ---------------------------------------------------------------- numbers


def test_one_lora_is_the_change_computed_by_hand(case):
    base = case.run()
    case.pipe.load_lora_weights(case.make())
    assert (case.run() - base).norm() > 0.1 * base.norm()
    assert_close(case.run(), case.expect((case.make(), 1)))
    case.pipe.set_adapters("default_0", 0.0)
    assert_close(case.run(), base, 1e-6)


def test_two_loras_with_weights_are_the_sum_of_both(case):
    pipe, one, two = case.pipe, case.make(1), case.make(2, rank=3, layers=case.layers[:1])
    pipe.load_lora_weights(one, "one")
    pipe.load_lora_weights(two, "two")
    assert (pipe.get_active_adapters(), pipe.get_list_adapters()) == (["two"], {case.component: ["one", "two"]})
    assert_close(case.run(), case.expect((two, 1)))
    pipe.set_adapters(["one", "two"], [0.7, -0.4])
    assert pipe.get_active_adapters() == ["one", "two"]
    both = case.expect((one, 0.7), (two, -0.4))
    assert_close(case.run(), both)
    pipe.fuse_lora()
    assert_close(case.run(), both)
    pipe.unfuse_lora()
    assert_close(case.run(), both)
    pipe.delete_adapters("two")
    assert_close(case.run(), case.expect((one, 0.7)))
    assert (pipe.get_active_adapters(), pipe.get_list_adapters()) == (["one"], {case.component: ["one"]})


def test_one_is_added_to_those_in_use(case):
    one, two, three = case.make(1), case.make(2), case.make(3, layers=case.layers[-1:])
    case.pipe.load_lora_weights(two, "unused")
    case.pipe.load_lora_weights(one, "one")
    case.pipe.set_adapters("one", 0.5)
    case.pipe.add_lora(three, "three", 2.0)
    assert_close(case.run(), case.expect((one, 0.5), (three, 2)))
    assert case.pipe.get_active_adapters() == ["one", "three"]


def test_the_one_in_use_deleted_another_takes_its_place_everywhere(case):
    one, two = case.make(1), case.make(2, layers=case.layers[:1])
    case.pipe.load_lora_weights(one, "one")
    case.pipe.load_lora_weights(two, "two")
    case.pipe.delete_adapters("two")
    assert case.pipe.get_active_adapters() == ["one"]
    assert_close(case.run(), case.expect((one, 1)))


def test_disabled_it_is_the_model_alone(case):
    base = case.run()
    case.pipe.load_lora_weights(case.make())
    changed = case.run()
    case.pipe.disable_lora()
    assert_close(case.run(), base, 1e-6)
    case.pipe.enable_lora()
    assert torch.equal(case.run(), changed)


def test_unloading_restores_the_model_bit_for_bit(case):
    before = {name: tensor.clone() for name, tensor in case.network.state_dict().items()}
    case.pipe.load_lora_weights(case.make(1))
    case.pipe.load_lora_weights(case.make(2))
    case.pipe.unload_lora_weights()
    after = case.network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert (case.pipe.get_active_adapters(), case.pipe.get_list_adapters()) == ([], {})


def test_fused_and_unfused(case):
    case.pipe.load_lora_weights(case.make())
    unfused = case.run()
    case.pipe.fuse_lora(lora_scale=0.5)
    assert (case.pipe.num_fused_loras, case.pipe.fused_loras) == (1, {"default_0"})
    assert_close(case.run(), case.expect((case.make(), 0.5)))
    for forbidden in (
        lambda: case.pipe.set_adapters("default_0", 0.1),
        lambda: case.pipe.load_lora_weights(case.make(2)),
        lambda: case.pipe.delete_adapters("default_0"),
        lambda: case.pipe.using_loras({"x": 1.0}).__enter__(),
    ):
        with pytest.raises(InputError, match="fused"):
            forbidden()
    case.pipe.unfuse_lora()
    assert case.pipe.num_fused_loras == 0
    assert_close(case.run(), unfused)  # with weight 1 again
    case.pipe.set_adapters("default_0", 0.0)
    assert_close(case.run(), case.expect())


def test_fused_one_after_another(toy):
    one, two = toy.make(1), toy.make(2)
    for name, tensors in (("one", one), ("two", two)):
        toy.pipe.load_lora_weights(tensors, name)
    toy.pipe.set_adapters(["one", "two"])
    both = toy.run()
    for name in ("one", "two"):
        toy.pipe.fuse_lora(lora_scale=0.5, adapter_names=[name])
    assert toy.pipe.fused_loras == {"one", "two"}
    assert_close(toy.run(), toy.expect((one, 0.5), (two, 0.5)))
    toy.pipe.unfuse_lora()
    assert_close(toy.run(), both)
    with pytest.raises(InputError, match="no LoRA changes 'vae'; choose transformer"):
        toy.pipe.fuse_lora(["vae"])


def test_fused_and_unloaded_it_stays_in_the_weights(case, tmp_path):
    case.pipe.load_lora_weights(case.make())
    changed = case.run()
    with pytest.raises(InputError, match="before saving"):
        case.pipe.save_pretrained(tmp_path)
    case.pipe.fuse_lora()
    case.pipe.unload_lora_weights()
    case.network.save_pretrained(tmp_path)
    assert_close(case._run(type(case.network).from_pretrained(tmp_path)), changed)


def test_weights_of_single_modules(toy, networks):
    tensors = toy.make()
    toy.pipe.load_lora_weights(tensors, "a")

    def weighed(first, second):
        factors = {FIRST: first, SECOND: second}
        scaled = {k: t * factors[k.split(".lora_")[0]] if "lora_B" in k else t for k, t in tensors.items()}
        return toy.expect((scaled, 1))

    for weights, expected in (
        ({"blocks": 0.5}, (0.5, 0.5)),
        ({"blocks.1": 0.5}, (1, 0.5)),
        ({"blocks": 0.0, SECOND: 2.0}, (0, 2)),
        ({"transformer": 3}, (3, 3)),
        ({"transformer": {"blocks": {"0": 2, "1": {"down": 3}}}}, (2, 3)),
        ({"first": 0.5}, (0.5, 1)),
        ({"blocks": {"block_1": 0.5}}, (1, 0.5)),
    ):
        toy.pipe.set_adapters("a", weights)
        assert_close(toy.run(), weighed(*expected))
    for weights, words in (
        ({"blocks.7": 1.0}, r"no LoRA changes 'transformer\.blocks\.7'; one changes 'transformer\.blocks\.0\.up'"),
        ({"block": 1.0}, "no LoRA changes 'transformer.block'"),  # a part of a word
        ({"blocks": {"0": [1.0]}}, r"no LoRA changes 'transformer\.blocks\.0\.attentions\.0'"),
        ({"blocks": "much"}, "the weight of a LoRA in transformer.blocks is 'much'; a number is needed"),
        ({"transformer": 1.0, "vae": 1.0}, "cannot be weighed for 'vae'; parts are transformer"),
    ):
        with pytest.raises(InputError, match=words):
            toy.pipe.set_adapters("a", weights)


# ---------------------------------------------------------------- for a while


def test_for_a_while(case, tmp_path):
    pipe, changes = case.pipe, [case.make(seed, layers=case.layers[:2]) for seed in (1, 2)]
    files = [str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]
    for tensors, file in zip(changes, files, strict=True):
        save_file(tensors, file)
    base, expected = case.run(), case.expect((changes[0], 0.5), (changes[1], 2))
    with pipe.using_loras({files[0]: 0.5, files[1]: 2.0}):
        assert_close(case.run(), expected)
    assert_close(case.run(), base, 1e-6)
    assert not pipe.get_list_adapters()

    pipe.load_lora_weights(case.make(3), "mine")
    pipe.load_lora_weights(case.make(4), "other")
    pipe.set_adapters("mine", {case.component: {case.layers[0]: 0.3}})
    mine = case.run()
    pipe.disable_lora()
    with pipe.using_loras({files[0]: 0.5, files[1]: 2.0}):
        assert_close(case.run(), expected)  # though what was there before is off
        pipe.set_adapters("mine", 9.0)
    with pytest.raises(ZeroDivisionError), pipe.using_loras({files[0]: 0.5}):
        raise ZeroDivisionError
    assert_close(case.run(), base, 1e-6)
    pipe.enable_lora()
    assert_close(case.run(), mine, 1e-6)
    with pytest.raises(InputError, match="no LoRA"), pipe.using_loras({files[0]: 1.0, "missing.safetensors": 1.0}):
        pass
    with pipe.using_loras({}):
        assert_close(case.run(), mine, 1e-6)
    kept = {case.component: ["mine", "other"]}
    assert (pipe.get_active_adapters(), pipe.get_list_adapters()) == (["mine"], kept)
    assert_close(case.run(), mine, 1e-6)


# ---------------------------------------------------------------- swapping


@pytest.mark.parametrize("prepared", [False, True])
def test_a_hot_swapped_lora_is_the_same_as_a_fresh_one(case, prepared):
    linear = [name for name in case.layers if isinstance(case.network.get_submodule(name), nn.Linear)]
    one, two = case.make(1, 4, linear), case.make(2, 6, linear[:-1])
    if prepared:
        case.pipe.enable_lora_hotswap(target_rank=8)
    case.pipe.load_lora_weights(one, "style")
    case.pipe.load_lora_weights(two, "style", hotswap=True)
    assert_close(case.run(), case.expect((two, 1)))
    case.pipe.set_adapters("style", 0.3)
    assert_close(case.run(), case.expect((two, 0.3)))


def test_ranks_and_alphas_of_layers_may_differ_when_swapped(toy):
    mixed = toy.make(2, 2, [FIRST]) | toy.make(3, 4, [SECOND])
    alphas = {f"{FIRST}.alpha": torch.tensor(6.0), f"{SECOND}.alpha": torch.tensor(1.0)}
    scaled = {k: t * (6 / 2 if FIRST in k else 1 / 4) if "lora_B" in k else t for k, t in mixed.items()}
    toy.pipe.load_lora_weights(toy.make(), "a")
    toy.pipe.load_lora_weights(mixed | alphas, "a", hotswap=True)
    assert_close(toy.run(), toy.expect((scaled, 1)))


def test_what_cannot_be_swapped(toy):
    with pytest.raises(InputError, match="no LoRA 'a'; loaded are: none"):
        toy.pipe.load_lora_weights(toy.make(), "a", hotswap=True)
    toy.pipe.load_lora_weights(toy.make(1, layers=[FIRST]), "a")
    before = toy.run()
    with pytest.raises(CheckpointError, match="cannot be put in the place of 'a'"):
        toy.pipe.load_lora_weights(toy.make(2), "a", hotswap=True)  # more layers than before
    assert torch.equal(toy.run(), before)
    toy.pipe.load_lora_weights(toy.make(2), "ab")  # peft would empty it, taking it for a part of "a"
    with pytest.raises(CheckpointError, match="also a part of"):
        toy.pipe.load_lora_weights(toy.make(3, layers=[FIRST]), "a", hotswap=True)


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
    "kohya": lambda name: f"lora_unet_{name.split('.lora_')[0].replace('.', '_')}.lora_{name.split('.lora_')[1]}",
}


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("system", ["toy", "magi1"])
def test_every_naming_is_understood(system, naming, networks, tmp_path):
    case = make_case(system, networks)
    save_file({NAMINGS[naming](name): t for name, t in case.make().items()}, tmp_path / "style.safetensors")
    case.pipe.load_lora_weights(tmp_path / "style.safetensors")
    assert_close(case.run(), case.expect((case.make(), 1)))


def test_names_of_a_system_are_data(toy):
    new = {f"{FIRST}.": "layer1.", f"{SECOND}.": "transformer.layer2."}
    renamed = {
        new[re.match(r".*(up|down)\.(?=lora)", name)[0]] + name.split(".", 3)[3]: t for name, t in toy.make().items()
    }
    toy.pipe.load_lora_weights(renamed)
    assert_close(toy.run(), toy.expect((toy.make(), 1)))


def test_alpha_is_in_the_scale(toy):
    toy.pipe.load_lora_weights(toy.make() | {f"{FIRST}.alpha": torch.tensor(8.0)})  # over a rank of 4
    scaled = {k: t * 2 if k == f"{FIRST}.lora_B.weight" else t for k, t in toy.make().items()}
    assert_close(toy.run(), toy.expect((scaled, 1)))


@pytest.mark.parametrize("rslora", [False, True])
def test_saved_by_us_by_diffusers_and_by_peft_it_loads_the_same(networks, tmp_path, rslora):
    trained = copy.deepcopy(networks["toy"])
    config = LoraConfig(
        r=4, lora_alpha=6, use_rslora=rslora, target_modules=["up", "down"],
        rank_pattern={"up": 2}, alpha_pattern={r"blocks\.1\..*": 12}, init_lora_weights=False,
    )  # fmt: skip
    trained.add_adapter(config, "mine")
    expected, tensors = run_toy(trained), get_peft_model_state_dict(trained, adapter_name="mine")
    settings = trained.peft_config["mine"].to_dict()
    ToyPipeline.save_lora_weights(
        tmp_path / "ours", tensors, weight_name="a.safetensors", transformer_lora_adapter_metadata=settings
    )
    trained.save_lora_adapter(tmp_path / "diffusers", adapter_name="mine")
    config.save_pretrained(tmp_path / "peft")
    save_file({f"base_model.model.{k}": t for k, t in tensors.items()}, tmp_path / "peft" / "adapter_model.safetensors")
    for folder in ("ours", "diffusers", "peft"):
        with_one = make_case("toy", networks)
        with_one.pipe.load_lora_weights(tmp_path / folder)
        assert_close(with_one.run(), expected)


def test_what_is_trained_is_the_lora_alone():
    network = make_toy()
    add_lora(network, ["up"], 2, "mine", alpha=4, start="gaussian")
    assert {name for name, p in network.named_parameters() if p.requires_grad} == {
        f"{FIRST}.lora_A.mine.weight",
        f"{FIRST}.lora_B.mine.weight",
    }
    assert network.get_submodule(FIRST).scaling == {"mine": 2.0}
    assert torch.equal(run_toy(network), run_toy(make_toy()))


def test_which_file_of_a_folder(toy, tmp_path):
    with pytest.raises(InputError, match=r"has no \.safetensors file"):
        toy.pipe.load_lora_weights(tmp_path)
    for seed, name in enumerate(("a", "b")):
        save_file(toy.make(seed), tmp_path / f"{name}.safetensors")
    with pytest.raises(InputError, match=r"several files.*a\.safetensors, b\.safetensors"):
        toy.pipe.load_lora_weights(tmp_path)
    with pytest.raises(InputError, match=r"has no file c\.safetensors"):
        toy.pipe.load_lora_weights(tmp_path, weight_name="c.safetensors")
    toy.pipe.load_lora_weights(tmp_path, weight_name="b.safetensors", low_cpu_mem_usage=True)
    assert_close(toy.run(), toy.expect((toy.make(1), 1)))
    toy.pipe.load_lora_weights(tmp_path.parent, subfolder=tmp_path.name, weight_name="b.safetensors")
    assert toy.pipe.get_list_adapters() == {"transformer": ["default_0", "default_1"]}


def test_a_hub_id(toy, tmp_path, monkeypatch):
    asked = {}

    def snapshot_download(source, **arguments):
        asked.update(arguments, source=source)
        return str(tmp_path)

    save_file(toy.make(), tmp_path / "style.safetensors")
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    toy.pipe.load_lora_weights("someone/style", revision="v2")
    assert (asked["source"], asked["revision"], asked["ignore_patterns"]) == ("someone/style", "v2", ["*/*"])
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="there is no LoRA someone/other here, and it cannot be fetched"):
        toy.pipe.load_lora_weights("someone/other")


def test_pickles_only_if_that_is_said(toy, tmp_path):
    torch.save(toy.make(), tmp_path / "style.bin")
    with pytest.raises(CheckpointError, match=r"style\.bin is a pickle"):
        toy.pipe.load_lora_weights(tmp_path / "style.bin")
    toy.pipe.load_lora_weights(tmp_path, allow_pickle=True)
    assert_close(toy.run(), toy.expect((toy.make(), 1)))
    torch.save({"a": print}, tmp_path / "hostile.pt")
    with pytest.raises(CheckpointError, match=r"hostile\.pt cannot be read"):
        toy.pipe.load_lora_weights(tmp_path / "hostile.pt", allow_pickle=True)
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match=r"list\.pt"):
        toy.pipe.load_lora_weights(tmp_path / "list.pt", allow_pickle=True)


# ---------------------------------------------------------------- what is refused


def faulty(toy, fault):
    tensors, down, up = toy.make(layers=[FIRST]), f"{FIRST}.lora_A.weight", f"{FIRST}.lora_B.weight"
    if fault == "another size":
        tensors[down] = torch.zeros(4, 64)
    elif fault == "another output":
        tensors[up] = torch.zeros(64, 4)
    elif fault == "more layers":
        tensors = {name.replace("blocks.0.", "blocks.40."): tensor for name, tensor in tensors.items()}
    elif fault == "not linear":
        tensors = {name.replace(FIRST, "norm"): tensor for name, tensor in tensors.items()}
    elif fault == "an unknown word":
        tensors["lora_unet_nowhere.lora_down.weight"] = torch.zeros(4, 6)
        tensors["lora_unet_nowhere.lora_up.weight"] = torch.zeros(8, 4)
    elif fault == "a text encoder's":
        tensors["text_encoder.layer.bias"] = torch.zeros(3)
    elif fault == "without partner":
        del tensors[up]
    elif fault == "other rank":
        tensors[up] = torch.zeros(8, 5)
    elif fault == "alpha alone":
        tensors[f"{SECOND}.alpha"] = torch.tensor(1.0)
    elif fault == "alpha of many":
        tensors[f"{FIRST}.alpha"] = torch.ones(2)
    elif fault == "twice":
        tensors[f"transformer.{down}"] = tensors[down].clone()
    else:
        tensors = {}
    return tensors


FAULTS = {
    "another size": (f"{FIRST}.lora_A.weight", "[4, 64]", "[4, 6]", "another size"),
    "another output": (f"{FIRST}.lora_B.weight", "[64, 4]", "[8, 4]"),
    "more layers": ("blocks.40.up.lora_A.weight", "another size"),
    "not linear": ("norm.lora_A.weight", "not a linear layer"),
    "an unknown word": ("lora_unet_nowhere.lora_down.weight", "this model has no nowhere"),
    "a text encoder's": ("text_encoder.layer.bias", "none of a LoRA"),
    "without partner": (f"{FIRST}.lora_A.weight", "partner"),
    "other rank": (f"{FIRST}.lora_B.weight", "ranks differ"),
    "alpha alone": (f"{SECOND}.alpha", "partner"),
    "alpha of many": (f"{FIRST}.alpha", "one number"),
    "twice": (f"transformer.{FIRST}.lora_A.weight", "same thing"),
    "nothing": ("is empty",),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_lora_is_refused_with_file_and_tensor_named(fault, toy, tmp_path):
    before = list(toy.network.state_dict())
    save_file(faulty(toy, fault), tmp_path / "bad.safetensors")
    with pytest.raises(CheckpointError) as raised:
        toy.pipe.load_lora_weights(tmp_path / "bad.safetensors")
    for words in ("bad.safetensors", *FAULTS[fault]):
        assert words in str(raised.value)
    assert list(toy.network.state_dict()) == before


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
def test_settings_that_mean_something_else(settings, words, toy, tmp_path):
    save_file(toy.make(), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=words):
        toy.pipe.load_lora_weights(tmp_path)


def test_damaged_files(toy, tmp_path):
    save_file(toy.make(), tmp_path / "whole.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
        toy.pipe.load_lora_weights(tmp_path / "cut.safetensors")
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json is not valid JSON"):
        toy.pipe.load_lora_weights(tmp_path / "whole.safetensors")
    with pytest.raises(InputError, match=r"no LoRA styles/ink\.safetensors"):
        toy.pipe.load_lora_weights("styles/ink.safetensors")


def test_names_and_arguments(toy):
    for name in ("", "a.b", "keys"):
        with pytest.raises(InputError, match="cannot be called"):
            toy.pipe.load_lora_weights(toy.make(), name)
    toy.pipe.load_lora_weights(toy.make(), "a")
    with pytest.raises(InputError, match="'a' already"):
        toy.pipe.load_lora_weights(toy.make(), "a")
    for call in (lambda: toy.pipe.set_adapters(["a", "b"]), lambda: toy.pipe.delete_adapters("b")):
        with pytest.raises(InputError, match="no LoRA 'b'; loaded are: a"):
            call()
    with pytest.raises(InputError, match="1 LoRAs need 1 weights, not 2"):
        toy.pipe.set_adapters("a", [1.0, 2.0])
    with pytest.raises(InputError, match="not loaded with 'weigth_name'; choose weight_name"):
        toy.pipe.load_lora_weights(toy.make(), weigth_name="a.safetensors")


def test_it_is_written_as_safetensors_by_one_process(toy, tmp_path):
    with pytest.raises(InputError, match="safetensors only"):
        toy.pipe.save_lora_weights(tmp_path, toy.make(), safe_serialization=False)
    toy.pipe.save_lora_weights(tmp_path, toy.make(), is_main_process=False)
    assert not list(tmp_path.iterdir())
    toy.pipe.save_lora_weights(tmp_path, toy.make())
    assert set(load_file(tmp_path / "pytorch_lora_weights.safetensors")) == {f"transformer.{n}" for n in toy.make()}
