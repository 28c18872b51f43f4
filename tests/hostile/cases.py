"""Hostile cases: what a user may type and a file may hold, kind by kind, made from a seed."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

NUMBERS = (
    "0", "-1", "1", "7", "1000000000", "9" * 5000, "nan", "inf", "-inf", "1e999", "0.0001", "1e-320", "-0", "٣",
    "0x10", "1_000", " 1", "1\n", "", "true", "2147483648", "18446744073709551616", "1.5", "1e3",
)  # fmt: skip
TEXTS = (
    "", " ", "\ud800", "a\0b", "x" * 30000, "\x1b[2J\x07", "\u202eevil", "🎬" * 50, "a" * 300, "../../x", "/dev/zero",
    "/dev/null", "/proc/self/mem", ".", "..", "-", "%d%s", "a/b", "a/b/c", "~", "\n", "file:///etc/passwd",
    "http://127.0.0.1:1/x", "C:\\x", "{}", "[1]", "a:b:c", "1:", ":1", "2:a", "1:a", "x" * 5000 + ".mp4", "photo.png",
    "clip.mp4", "folder", "new.mp4", "new.gif", "new/", "pipe", "no.png", "9" * 30 + ":a", "a:" + "9" * 400,
)  # fmt: skip
SIZES = ("64x64", "0x0", "-1x4", "16000x16000", "64x64\n", "x", "9" * 5000 + "x1", "1x1", "7x9", "64", "64x64x64")
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 10**9, 10**30, 1.5, 1e308, "", "x", "\x1b[2J", [], [1], {}, {"a": 1}, [[]], "9" * 400,
    {"": {}}, "magi1-tiny", "stranger/model", "/dev/zero", ["a"] * 2000, "NaN",
)  # fmt: skip


@dataclass
class Kit:
    """What cases are made from: good files. folder: where a case may write; it is new for each."""

    folder: Path
    photo: bytes
    clip: bytes
    made: dict[str, Any]
    model: Path
    lora: dict[str, torch.Tensor]
    recipe: dict[str, Any]
    config: dict[str, Any]
    commands: dict[str, list[tuple[str, bool]]]


_BOMB = zlib.compress(b"\0" * 5_000_000)
GENERATE = ("generate", "a red ball", "--frames", "8", "-o", "new.mp4", "--model")


def changed(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """A copy of JSON values in which one, somewhere, is another, is missing, or is new."""
    if isinstance(value, dict) and value and (depth == 0 or rng.random() < 0.8):
        copy, name = dict(value), rng.choice(list(value))
        way = rng.random()
        if way < 0.1:
            del copy[name]
        elif way < 0.2:
            copy[rng.choice(("", "new", "\x1b[2J", name + "x"))] = rng.choice(VALUES)
        else:
            copy[name] = changed(rng, value[name], depth + 1)
        return copy
    if isinstance(value, list) and value and rng.random() < 0.5:
        copy = list(value)
        copy[rng.randrange(len(copy))] = changed(rng, copy[0], depth + 1)
        return copy
    return rng.choice(VALUES)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Bytes that are cut, changed, mixed or doubled."""
    way, at = rng.randrange(6), rng.randrange(max(1, len(data)))
    if way == 0:
        return data[:at]
    if way == 1:
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if way == 2:
        return data[:at] + rng.randbytes(64) + data[at + 64 :]
    if way == 3:
        return data[: at % 200] + rng.randbytes(8) + data[at % 200 + 8 :]
    if way == 4:
        return data + data
    return rng.randbytes(200)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *more: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 200))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + rows + chunk(b"IEND", b"")


def pictures(rng: random.Random, kit: Kit) -> bytes:
    bomb = chunk(b"zTXt", b"comment\0\0" + _BOMB)
    note = chunk(b"tEXt", b"comment\0" + rng.choice((b"[" * 100_000, b"{}", b'{"animagic": 1}', b"\xff", b"9" * 5000)))
    specials = (
        lambda: png(8, 8, bomb),
        lambda: png(8, 8, note),
        lambda: png(2**31 - 1, 2**31 - 1),
        lambda: png(0, 0),
        lambda: png(100_000, 1000),
        lambda: b"P6 " + rng.choice((b"9" * 5000, b"-1 -1 255 ", b"x", b"8 8 99999999 ", b"99999 99999 255 ")),
        lambda: b"GIF89a" + rng.randbytes(50),
        lambda: b"",
        lambda: b"\x1b[2J" * 10,
        lambda: b"RIFF\xff\xff\xff\xffWEBPVP8X" + rng.randbytes(30),
        lambda: b"%!PS\n/x { } def",
        lambda: b"#EXTM3U\nhttp://127.0.0.1:1/x\n",
    )
    return rng.choice(specials)() if rng.random() < 0.5 else damaged(rng, rng.choice((kit.photo, kit.clip)))


def case_values(rng: random.Random, kit: Kit) -> list[str]:
    """Options with values that nobody means."""
    command = rng.choice(("generate", "animate", "talk", "plan", "doctor"))
    words = {
        "generate": ["generate", rng.choice(("a red ball", *TEXTS))],
        "animate": ["animate", rng.choice(("photo.png", *TEXTS)), rng.choice(("clip.mp4", *TEXTS))],
        "talk": ["talk", rng.choice(("photo.png", *TEXTS))],
        "plan": ["plan"],
        "doctor": ["doctor"],
    }[command]
    for flag, is_flag in rng.sample(kit.commands[command], rng.randint(1, 3)):
        if flag not in ("--live", "--help", "--enhance"):
            pool = SIZES if flag == "--size" else NUMBERS if rng.random() < 0.5 else TEXTS
            words += [flag] if is_flag else [flag, rng.choice(pool)]
    return words


def case_media(rng: random.Random, kit: Kit) -> list[str]:
    """Pictures and films that are damaged, hostile, or none."""
    name = rng.choice(("x.png", "x.mp4", "x.gif", "x.jpg", "x.webp", "x.ppm", "x", "x.wav", "\x1b[2J.png"))
    (kit.folder / name).write_bytes(pictures(rng, kit))
    info = ["info", name, *rng.choice(([], ["--json"]))]
    return rng.choice(
        (info, info, [*GENERATE, str(kit.model), "--image", name], [*GENERATE, str(kit.model), "--video", name])
    )


def case_places(rng: random.Random, kit: Kit) -> list[str]:
    """Pipes, devices, folders, links and long names in place of files."""
    os.mkfifo(kit.folder / "pipe.png")
    (kit.folder / "loop.png").symlink_to("loop.png")
    (kit.folder / "gone.mp4").symlink_to("nowhere")
    names = ("pipe.png", "loop.png", "gone.mp4", "/dev/zero", "/dev/null", "folder", "photo.png/x", "x" * 300 + ".png",
             "/proc/self/mem", "x/" * 2100 + "y.png", "", ".", "/", "*.png")  # fmt: skip
    place = rng.choice(names)
    flags = ("--image", "--video", "-o", "--lora", "--contact-sheet", "--model")
    return rng.choice(
        (
            ["info", place],
            ["reproduce", place],
            ["train", place],
            ["pose", place, "-o", "new.mp4"],
            ["convert", place, "-o", "new"],
            ["personalize", place, "-o", "new.safetensors"],
            ["plan", "-o", place],
            [*GENERATE, str(kit.model), rng.choice(flags), place],
        )
    )


def case_requests(rng: random.Random, kit: Kit) -> list[str]:
    """Videos whose stored request is not one."""
    from animagic.media import write_image

    stored = changed(rng, kit.made)
    stored = changed(rng, stored) if rng.random() < 0.3 and isinstance(stored, dict) else stored
    metadata = stored if isinstance(stored, dict) else {"request": stored}
    write_image(kit.folder / "evil.png", np.zeros((8, 8, 3), np.uint8), metadata)
    return rng.choice((["info", "evil.png"], ["reproduce", "evil.png", "-o", "new.gif"]))


def case_models(rng: random.Random, kit: Kit) -> list[str]:
    """Model folders with a file that is damaged, changed, missing or of another kind."""
    model = shutil.copytree(kit.model, kit.folder / "model")
    file = rng.choice([path for path in sorted(model.rglob("*")) if path.is_file()])
    way = rng.random()
    if file.suffix == ".json" and way < 0.7:
        file.write_text(json.dumps(changed(rng, json.loads(file.read_text()))))
    elif file.suffix == ".safetensors" and way < 0.7:
        tensors = strange(rng, load_file(file))
        if rng.random() < 0.2:
            file.unlink()
            torch.save(tensors, file.with_suffix(".bin"))
        else:
            save_file(tensors, file, {"format": "pt"})
    elif way < 0.8:
        file.unlink()
    else:
        file.write_bytes(damaged(rng, file.read_bytes()))
    return [*GENERATE, "./model"]


def strange(rng: random.Random, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of which one is another."""
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    name = rng.choice(list(tensors))
    tensor = tensors[name]
    way = rng.randrange(9)
    if way == 0:
        del tensors[name]
    elif way == 1:
        tensors[rng.choice(("extra", "\x1b[2J", name + ".x"))] = torch.zeros(2)
    elif way == 2:
        tensors[name] = tensor.to(rng.choice((torch.int64, torch.bool, torch.uint8)))
    elif way == 3:
        tensors[name] = tensor.float().flatten()
        tensors[name][0] = rng.choice((float("nan"), float("inf"), -float("inf")))
        tensors[name] = tensors[name].reshape(tensor.shape)
    elif way == 4:
        tensors[name] = torch.zeros(rng.choice(((), (0,), (1,), (3, 5), (2, 3, 4, 5))))
    elif way == 5:
        tensors[name] = tensor.float() * 1e38
    elif way == 6:
        tensors = {}
    elif way == 7:
        tensors = {key + "x": value for key, value in tensors.items()}
    else:
        tensors[name] = torch.zeros_like(tensor)
    return tensors


def case_loras(rng: random.Random, kit: Kit) -> list[str]:
    """LoRAs and embeddings of other shapes, kinds and names, as safetensors and as pickles."""
    tensors: Any = strange(rng, kit.lora)
    if rng.random() < 0.6:
        metadata = rng.choice((None, {"lora_adapter_metadata": rng.choice(("[1]", "{", "1", '{"lora_alpha": "x"}'))}))
        save_file(tensors, kit.folder / "x.safetensors", metadata)
        if rng.random() < 0.3:
            data = (kit.folder / "x.safetensors").read_bytes()
            (kit.folder / "x.safetensors").write_bytes(damaged(rng, data))
        name = "x.safetensors"
    else:
        name = rng.choice(("x.ckpt", "x.pt", "x.bin"))
        content: Any = (tensors, [tensors], {"state_dict": tensors}, {"state_dict": 1}, {1: torch.zeros(1)}, "text",
                   {"a": torch.eye(2).to_sparse()}, {"string_to_param": 1}, {"a": {"b": 1}}, None)  # fmt: skip
        torch.save(rng.choice(content), kit.folder / name)
    if rng.random() < 0.2:
        (kit.folder / "adapter_config.json").write_text(json.dumps(rng.choice(VALUES)))
    pickle = rng.choice(([], ["--allow-pickle"]))
    return [*GENERATE, str(kit.model), "--lora", name + rng.choice(("", ":2", ":nan", ":1e9")), *pickle]


YAML = ("a: &a [*a]", "!!python/object/apply:os.system [id]", "{[", "- 1", "1", "", "\0", "a: 2020-01-01",
        "a: !!set {x}", "? [a]\n: b", "a: " + "9" * 5000, "[" * 50_000,
        "a: 1\na: 2", "\t", "%YAML 9.9\n---\n", "a: !x 1",
        "a: .nan", "<<: 1")  # fmt: skip


def case_recipes(rng: random.Random, kit: Kit) -> list[str]:
    """Recipes with values of other kinds, sizes and names."""
    import yaml

    recipe = kit.recipe
    for _ in range(rng.choice((1, 1, 2))):
        recipe = changed(rng, recipe) if isinstance(recipe, dict) else recipe
    text = rng.choice(YAML) if rng.random() < 0.3 else yaml.safe_dump(recipe)
    (kit.folder / "x.yaml").write_text(text)
    return ["train", "x.yaml", "--folder", "run", *rng.choice(([], ["--steps", rng.choice(NUMBERS)]))]


def case_configurations(rng: random.Random, kit: Kit) -> list[str]:
    """Original configurations with values of other kinds, sizes and names."""
    if rng.random() < 0.3:
        name, text = rng.choice((("x.json", rng.choice(YAML)), ("x.yaml", rng.choice(YAML))))
    else:
        name, text = "x.json", json.dumps(changed(rng, kit.config))
    (kit.folder / name).write_text(text)
    setting = rng.choice(([], ["--set", rng.choice(("runtime_config.num_steps=" + rng.choice(NUMBERS), *TEXTS))]))
    return ["magi", "--config_file", name, "--prompt", "a ball", "--output_path", "new.mp4", *setting]


def case_kept_runs(rng: random.Random, kit: Kit) -> list[str]:
    """Kept runs whose files are damaged, missing or those of another run."""
    folder = kit.folder / "new.mp4.resume"
    folder.mkdir()
    for name in rng.sample(("request.json", "state.safetensors", "clean-00000000.safetensors", ".animagic"), 3):
        way = rng.randrange(4)
        if way == 0:
            (folder / name).write_bytes(rng.choice((b"", b"{", b"{}", b"[" * 100_000, rng.randbytes(100))))
        elif way == 1:
            (folder / name).write_text(json.dumps(changed(rng, kit.made["request"])))
        elif way == 2:
            save_file({"clean_frames": torch.tensor(rng.choice((0, 1, -1, 10**12)))}, folder / name)
        else:
            (folder / name).mkdir()
    return [*GENERATE, str(kit.model), "--resume"]


KINDS: dict[str, tuple[Callable[[random.Random, Kit], list[str]], int]] = {
    "values": (case_values, 40),
    "media": (case_media, 16),
    "places": (case_places, 10),
    "requests": (case_requests, 10),
    "recipes": (case_recipes, 8),
    "configurations": (case_configurations, 8),
    "kept runs": (case_kept_runs, 3),
    "loras": (case_loras, 3),
    "models": (case_models, 2),
}
"""Kind -> what makes a case, and its share of a hundred."""
