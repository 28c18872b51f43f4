"""A model folder is loaded as it is, or refused: no tensor is left out, made up, or read from a pickle unasked."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import animagic
from animagic.errors import AnimagicError

NETWORKS = ("transformer", "vae", "text_encoder")


@pytest.fixture
def model(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


def weights(model, part):
    return next((model / part).glob("*.safetensors"))


def change(model, part, edit):
    file = weights(model, part)
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, {"format": "pt"})


def refusal(model) -> str:
    with pytest.raises(AnimagicError) as caught:
        animagic.load(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_value(value):
    def edit(tensors):
        name = next(name for name, tensor in tensors.items() if tensor.ndim > 1)
        tensors[name] = tensors[name].clone()
        tensors[name].view(-1)[-1] = value

    return edit


@pytest.mark.parametrize("part", NETWORKS)
@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda tensors: tensors.update(extra=torch.zeros(2)), "extra is unexpected"),
        (lambda tensors: tensors.pop(next(iter(tensors))), "lacks the tensor"),
        (
            lambda tensors: tensors.update({k: v.to(torch.int64) for k, v in tensors.items()}),
            "is stored as torch.int64",
        ),
        (lambda tensors: tensors.update({k: v > 0 for k, v in tensors.items()}), "is stored as torch.bool"),
        (lambda tensors: tensors.update({next(iter(tensors)): torch.zeros(1, 1, 7)}), "(shape|size)"),
        (with_value(float("nan")), "holds NaN or infinity"),
        (with_value(float("-inf")), "holds NaN or infinity"),
    ],
)
def test_tensors_that_are_not_those_of_the_network(model, part, edit, said):
    change(model, part, edit)
    assert re.search(said, refusal(model))


@pytest.mark.parametrize("part", NETWORKS)
def test_a_pickle_is_not_read_unless_it_is_allowed(model, part):
    file = weights(model, part)
    pickle = file.with_name("pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin")
    torch.save(load_file(file), pickle)
    file.unlink()
    assert "allow_pickle" in refusal(model)
    assert animagic.load(model, use_safetensors=None).vae is not None


@pytest.mark.parametrize("part", NETWORKS)
def test_a_pickle_among_the_shards_is_not_read(model, part):
    file = weights(model, part)
    tensors = load_file(file)
    shard = file.with_name("shard.bin")
    torch.save(tensors, shard)
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, shard.name)}
    file.with_name(f"{file.name}.index.json").write_text(json.dumps(index))
    file.unlink()
    assert "allow_pickle" in refusal(model)


@pytest.mark.parametrize(
    ("part", "field"), [("transformer", "num_layers"), ("transformer", "hidden_size"), ("vae", "depth")]
)
def test_sizes_that_no_machine_holds(model, part, field):
    file = model / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: 10**9}))
    assert f"{field} is 1000000000" in refusal(model)
