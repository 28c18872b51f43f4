"""Weights are found in every layout and read tensor by tensor; a file that is damaged is named, and no code is run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from originals import INDEX, write_transformer
from safetensors.torch import load_file, save_file

from animagic import CheckpointError, InputError
from animagic.weights.files import Weights, open_file, read_json, read_tensors, write_shards

TENSORS = {
    "embedder.weight": torch.randn(8, 4),
    **{f"blocks.{i}.{name}": torch.randn(64, 32) for i in range(4) for name in ("a.weight", "b.weight")},
}
FIRST, ZST = "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors.zst"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two plain shards and a compressed one, with their index."""
    return write_transformer(tmp_path / "weights", TENSORS, shards=3, compressed=1)


def assert_equal(given: dict, expected: dict) -> None:
    assert given.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (given[name].dtype, given[name].shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(given[name].float(), tensor.float()), name


# Reading


def test_shards_plain_and_compressed(folder):
    opened = Weights.open(folder)
    assert_equal(dict(opened.read()), TENSORS)
    assert opened.nbytes == sum(tensor.nbytes for tensor in TENSORS.values())
    few = opened.renamed({"blocks.3.a.weight": "a", "embedder.weight": "b"})
    assert_equal(dict(few.read()), {"a": TENSORS["blocks.3.a.weight"], "b": TENSORS["embedder.weight"]})


def test_an_index_that_names_the_compressed_file(folder):
    in_index(folder / INDEX, f'"{ZST.removesuffix(".zst")}"', f'"{ZST}"')
    assert_equal(dict(Weights.open(folder).read()), TENSORS)


def test_every_kind_of_tensor_is_read_as_safetensors_reads_it(tmp_path):
    weights = {
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "half": torch.randn(3, 5).half(),
        "brain": torch.randn(7).bfloat16(),
        "eight": torch.randn(4, 4).to(torch.float8_e4m3fn),
        "double": torch.randn(1, 1, 2).double(),
        "whole": torch.arange(5),
        "bool": torch.tensor([True, False]),
    }
    save_file(weights, tmp_path / "model.safetensors", metadata={"made": "by a test"})
    opened = Weights.open(tmp_path)
    assert_equal(dict(opened.read()), load_file(tmp_path / "model.safetensors"))
    assert opened.nbytes == sum(tensor.nbytes for tensor in weights.values())


# Writing, and how much is in memory


@pytest.mark.parametrize("limit", [10**9, 20_000, 100], ids=["one file", "shards", "a file a tensor"])
def test_what_is_written_is_what_transformers_and_diffusers_read(tmp_path, limit):
    from diffusers.models.model_loading_utils import load_state_dict

    told: list[int] = []
    write_shards(TENSORS, TENSORS.items(), tmp_path, "model", told.append, limit)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert sum(told) == sum(tensor.nbytes for tensor in TENSORS.values())
    assert_equal({name: tensor for file in files for name, tensor in load_state_dict(file).items()}, TENSORS)
    if limit == 10**9:
        assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
        return
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"] == {"total_size": sum(told)}
    assert all(name in load_file(tmp_path / file) for name, file in index["weight_map"].items())
    assert_equal(dict(Weights.open(tmp_path).read()), TENSORS)


def test_one_file_with_an_index(tmp_path):
    write_shards(TENSORS, TENSORS.items(), tmp_path, "model", always_index=True)
    assert set(json.loads((tmp_path / INDEX).read_text())["weight_map"].values()) == {"model.safetensors"}


def test_from_shards_to_shards_holds_about_one(folder, tmp_path, alive):
    weights, limit, largest = Weights.open(folder), 16384, 8192
    (tmp_path / "out").mkdir()
    write_shards(weights.entries, alive.counted(weights.read()), tmp_path / "out", "model", limit=limit)
    assert alive.bytes == 0
    assert limit / 2 < alive.peak <= limit + largest
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 3


def test_a_disk_that_is_full(mount, tmp_path):
    disk = mount(tmp_path / "small", "size=40k")
    with pytest.raises(OSError, match="No space left"):
        write_shards({"a": torch.zeros(20000)}, [("a", torch.zeros(20000))], disk, "model")


# What is damaged


def cut(file: Path, keep: float) -> None:
    os.truncate(file, int(file.stat().st_size * keep))


def rewrite(shard: Path, change) -> None:
    weights = load_file(shard)
    change(weights)
    save_file(weights, shard)


def in_index(index: Path, old: str, new: str) -> None:
    text = index.read_text()
    assert old in text
    index.write_text(text.replace(old, new))


DAMAGE = {
    "a shard is missing": (lambda f: (f / FIRST).unlink(), (FIRST, "is missing", "embedder.weight")),
    "a compressed shard is missing": (lambda f: (f / ZST).unlink(), ("model-00003-of-00003", "is missing")),
    "the index is missing": (lambda f: (f / INDEX).unlink(), ("weights", INDEX)),
    "cut off in its data": (lambda f: cut(f / FIRST, 0.9), (FIRST, "cut off in the tensor")),
    "cut off by a byte": (
        lambda f: os.truncate(f / FIRST, (f / FIRST).stat().st_size - 1),
        (FIRST, "cut off in the tensor"),
    ),
    "cut off in its header": (lambda f: os.truncate(f / FIRST, 100), (FIRST, "cut off in its header")),
    "cut off in its length": (lambda f: os.truncate(f / FIRST, 5), (FIRST, "cut off in its header")),
    "empty": (lambda f: os.truncate(f / FIRST, 0), (FIRST, "cut off")),
    "compressed, cut off in its data": (lambda f: cut(f / ZST, 0.8), (ZST, "cut off in the tensor")),
    "compressed, cut off in its header": (lambda f: os.truncate(f / ZST, 30), (ZST, "cut off in its header")),
    "compressed, empty": (lambda f: os.truncate(f / ZST, 0), (ZST, "cut off")),
    "compressed, but not with zstd": (lambda f: (f / ZST).write_bytes(b"no zstd" * 9), (ZST, "damaged")),
    "too long": (lambda f: (f / FIRST).open("ab").write(b"more"), (FIRST, "longer than its header says")),
    "no safetensors file": (lambda f: (f / FIRST).write_bytes(b"\xff" * 99), (FIRST, "not a safetensors file")),
    "a Git LFS pointer": (
        lambda f: (f / FIRST).write_text("version https://git-lfs.github.com/spec/v1\n"),
        (FIRST, "git lfs pull"),
    ),
    "a tensor less, against the index": (
        lambda f: rewrite(f / FIRST, lambda w: w.pop("embedder.weight")),
        (FIRST, "lacks", "embedder.weight", INDEX),
    ),
    "a tensor twice": (
        lambda f: rewrite(
            f / FIRST, lambda w: w.update(list(load_file(f / FIRST.replace("1-of", "2-of")).items())[:1])
        ),
        ("model-00002-of-00003.safetensors holds the tensor", FIRST),
    ),
    "a shard above its folder": (
        lambda f: in_index(f / INDEX, FIRST, f"../{FIRST}"),
        (INDEX, f"'../{FIRST}'", "beside"),
    ),
    "a shard anywhere": (
        lambda f: in_index(f / INDEX, FIRST, "/etc/passwd"),
        (INDEX, "'/etc/passwd'", "embedder.weight"),
    ),
    "a shard above, for Windows": (
        lambda f: in_index(f / INDEX, FIRST, "..\\\\secret.safetensors"),
        (INDEX, "beside its index"),
    ),
    "an index that is no JSON": (lambda f: (f / INDEX).write_text("{not"), (INDEX, "is not valid JSON")),
    "an index that is no text": (lambda f: (f / INDEX).write_bytes(b"\xff\xfe\x00"), (INDEX, "is not text")),
    "an index that is a list": (lambda f: (f / INDEX).write_text("[]"), (INDEX, "an object in braces is needed")),
    "an index without a map": (lambda f: (f / INDEX).write_text("{}"), (INDEX, "weight_map")),
    "no weights": (lambda f: shutil.rmtree(f), ("weights", "holds no weights")),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_weights(case, folder):
    damage, words = DAMAGE[case]
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        dict(Weights.open(folder).read())
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def header_of(fields: dict, data: bytes = b"") -> bytes:
    raw = json.dumps(fields).encode()
    return len(raw).to_bytes(8, "little") + raw + data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            header_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
            "does not agree with the tensor a",
        ),
        (header_of({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678"), "the tensor a"),
        (header_of({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, b"1234"), "the tensor a"),
        (header_of({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, b"1234"), "the tensor a"),
        (header_of({"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 2**64]}}), "cut off in the tensor a"),
        (header_of({"a": {"dtype": "I4", "shape": [1], "data_offsets": [0, 4]}}, b"1234"), "the type 'I4'"),
        (header_of({"a": 1}), "its header cannot be read"),
        (header_of({"a": {"dtype": "F32"}}), "its header cannot be read"),
        ((2).to_bytes(8, "little") + b"{]", "its header cannot be read"),
        ((2).to_bytes(8, "little") + b"[]", "its header cannot be read"),
    ],
)
def test_damaged_headers(tmp_path, data, words):
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors.*{words}"):
        Weights.open(tmp_path)


def test_json_that_cannot_be_read(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.json cannot be read: No such file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"deep\.json is nested too deeply"):
        read_json(tmp_path / "deep.json", InputError)


# Pickles


class Hostile:
    def __reduce__(self):
        return os.system, ("touch was-run",)


@pytest.mark.parametrize("name", ["model.bin", "pytorch_model.bin"])
def test_pickles_are_read_only_when_they_are_allowed(tmp_path, name):
    torch.save(TENSORS, tmp_path / name)
    with pytest.raises(InputError, match=rf"{name} is a pickle.*--allow-pickle"):
        Weights.open(tmp_path)
    assert_equal(dict(Weights.open(tmp_path, allow_pickle=True).read()), TENSORS)


def test_what_trainers_write_around_the_tensors(tmp_path):
    torch.save({"state_dict": {**TENSORS, "epoch": 3}, "global_step": 7}, tmp_path / "a.ckpt")
    assert_equal(read_tensors(tmp_path / "a.ckpt", allow_pickle=True), TENSORS)


@pytest.mark.parametrize("legacy", [False, True])
def test_no_code_in_a_pickle_is_run(tmp_path, monkeypatch, legacy):
    monkeypatch.chdir(tmp_path)
    torch.save({"shared.weight": Hostile()}, "a.bin", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"a\.bin cannot be read as tensors and nothing else"):
        open_file(Path("a.bin"), allow_pickle=True)
    assert not Path("was-run").exists()


def test_what_is_no_file_of_weights(tmp_path):
    torch.save([1], tmp_path / "list.pt")
    (tmp_path / "notes.txt").write_text("")
    for name, words in (
        ("list.pt", "holds something else than tensors"),
        ("notes.txt", "is no file of weights"),
        ("none.ckpt", "there is no file"),
    ):
        with pytest.raises(CheckpointError, match=words):
            open_file(tmp_path / name, allow_pickle=True)
