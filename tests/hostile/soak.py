"""Tries hostile cases in this process.

A case is broken unless the command ends with exit code 0, or 2 with one sentence on stderr and nothing on stdout;
in either case no file that was there has changed, nothing half-written is left, no control character reached the
terminal, and nothing was fetched.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import tempfile
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
from cases import KINDS, Kit

SECONDS = 60
"""The longest that a case may take."""
LINKS = ("gone.mp4", "loop.png")
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class TooLong(BaseException):
    """A case that hangs."""


def commands() -> dict[str, list[tuple[str, bool]]]:
    """Command -> its flags, and whether they take no value."""
    import typer

    from animagic.cli import command_line

    found = typer.main.get_command(command_line()).commands  # type: ignore[attr-defined]
    return {
        name: [(p.opts[0], bool(getattr(p, "is_flag", False))) for p in one.params if p.opts[0].startswith("--")]
        for name, one in found.items()
    }


def kit_of(model: Path, folder: Path, recipe: dict) -> Kit:
    """Good files, made with a quick model."""
    from animagic import requests
    from animagic.media import VideoWriter, read_metadata, write_image

    frames = (np.indices((8, 32, 48)).sum(0)[..., None] * [1, 2, 3] % 255).astype(np.uint8)
    write_image(folder / "photo.png", frames[0])
    with VideoWriter(folder / "clip.mp4", 24) as writer:
        writer.write(frames)
    requests.generate(requests.build_request("a red ball", str(model), frames=8, seed=1), folder / "made.mp4")
    lora = lora_of(model)
    config = json.loads((model / "model_index.json").read_text())["config"]
    transformer = json.loads((model / "transformer" / "config.json").read_text())
    config = {"model_config": {k: v for k, v in transformer.items() if k[0] != "_"}, **config, "engine_config": {}}
    return Kit(
        Path(), (folder / "photo.png").read_bytes(), (folder / "clip.mp4").read_bytes(),
        read_metadata(folder / "made.mp4"), model, lora, recipe, config, commands(),
    )  # fmt: skip


def lora_of(model: Path) -> dict:
    import torch

    from animagic.weights.files import read_tensors

    tensors = read_tensors(model / "transformer", "diffusion_pytorch_model")
    name, weight = next((n, t) for n, t in tensors.items() if "q" in n and t.ndim == 2 and n.endswith("weight"))
    layer = f"transformer.{name.removesuffix('.weight')}"
    return {
        f"{layer}.lora_A.weight": torch.zeros(2, weight.shape[1]),
        f"{layer}.lora_B.weight": torch.zeros(weight.shape[0], 2),
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        for path in folder.rglob("*")
    }


def fault_of(code: object, out: str, err: str, before: dict[str, bytes], folder: Path) -> str | None:
    """What is wrong with the way that a command has ended; None: nothing."""
    if code not in (0, 2):
        return f"exit code {code}"
    if code == 2 and (out or err.count("\n") != 1 or not err.startswith("animagic: ") or not err[10:].strip()):
        return "not one sentence"
    if "Traceback" in err or _STEERING.search(out + err):
        return "a traceback or a control character"
    after = contents(folder)
    # An output that is named may be replaced, here a link that leads nowhere or to itself.
    kept = {name: data for name, data in before.items() if ".resume" not in name and name not in LINKS}
    if lost := [name for name, data in kept.items() if after.get(name) != data]:
        return f"{lost[0]} has changed"
    if left := [name for name in after if ".part-" in name]:
        return f"{left[0]} is left"
    if code == 2 and (new := [name for name in after if name not in before and ".resume" not in name]):
        return f"{new[0]} was written"
    return None


def try_case(kind: str, seed: str, kit: Kit) -> tuple[list[str], str | None, str]:
    """Run one case; returns its words, what is wrong, and what was said."""
    from animagic.cli import main

    rng, here = random.Random(seed), Path.cwd()
    folder = Path(tempfile.mkdtemp())
    out, err = io.StringIO(), io.StringIO()
    words: list[str] = []

    def late(*_: object) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, late)
    try:
        os.chdir(folder)
        (folder / "photo.png").write_bytes(kit.photo)
        (folder / "clip.mp4").write_bytes(kit.clip)
        (folder / "folder").mkdir()
        kit.folder = folder
        words = KINDS[kind][0](rng, kit)
        before = contents(folder)
        signal.alarm(SECONDS)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code: object = main(words)
        signal.alarm(0)
        fault = fault_of(code, out.getvalue(), err.getvalue(), before, folder)
    except TooLong:
        fault = f"took more than {SECONDS} s"
    except BaseException as error:
        fault = f"raised {type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        os.chdir(here)
        shutil.rmtree(folder, ignore_errors=True)
    return words, fault, err.getvalue()


@contextlib.contextmanager
def prepared(model: Path):
    """Inside, the quick model is loaded once, any other is not, and nothing is fetched."""
    import animagic
    from animagic.errors import InputError
    from animagic.pipelines.job import Job

    pipe = animagic.load(model)
    pipe.set_progress_bar_config(disable=True)
    load = Job.load

    def quick(job, *arguments, **named):
        request = job.request
        if request.model == str(model) and (request.frames or 8) <= 64:
            return pipe
        if request.model != "./model":
            raise InputError(f"the model {request.model[:50]!r} would be loaded now.")
        return load(job, *arguments, **named)

    def refuse(*_, **__):
        raise OSError("no network in this test")

    offline = mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with mock.patch.object(Job, "load", quick), mock.patch.object(socket.socket, "connect", refuse), offline:
        yield


def soak(kit: Kit, cases: int, seed: int = 0, kinds: list[str] | None = None) -> tuple[Counter, list[str]]:
    """How many cases of each kind were tried, and a line for each that is broken."""
    tried: Counter = Counter()
    broken: list[str] = []
    chosen = {kind: share for kind, (_, share) in KINDS.items() if kinds is None or kind in kinds}
    with prepared(kit.model):
        for kind, share in chosen.items():
            for number in range(max(1, cases * share // sum(chosen.values()))):
                words, fault, said = try_case(kind, f"{seed} {kind} {number}", kit)
                tried[kind] += 1
                if os.environ.get("SOAK_VERBOSE"):
                    print(f"{kind} {number}: {ascii(words)[:150]} -> {said.strip()[:250]}")
                if fault is not None:
                    broken.append(f"{kind} {number}: {fault}: {ascii(words)[:300]}: {ascii(said)[:400]}")
                    print("broken:", broken[-1], flush=True)
    return tried, broken
