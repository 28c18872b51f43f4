"""Readers of the values that are written behind flags of the command line."""

from __future__ import annotations

import re
from typing import Any

from ..errors import InputError
from ..wording import spell

ENDLESS = "endless"
_COUNT = "[0-9]{1,18}"  # more digits than any bound has, and fewer than Python refuses
_WHOLE = f"-?{_COUNT}"


class Fields(dict[str, Any]):
    """The values of several fields, which one flag sets."""


def read_size(text: str) -> Fields:
    """ "WIDTHxHEIGHT" to height and width; raises InputError."""
    sides = re.fullmatch(rf" *({_WHOLE}) *[xX] *({_WHOLE}) *", text)
    if sides is None:
        raise InputError(f"the size {spell(text)!r} is not understood; write it as WIDTHxHEIGHT, for example 64x64.")
    return Fields(height=int(sides[2]), width=int(sides[1]))


def read_frames(text: str) -> Fields:
    """A number of frames, or "endless"; raises InputError."""
    if text == ENDLESS:
        return Fields(endless=True)
    if not re.fullmatch(_WHOLE, text):
        raise InputError(f"--frames takes an integer or {ENDLESS}, not {spell(text)!r}.")
    return Fields(frames=int(text))


def read_prompts_at(values: list[str]) -> dict[int, str]:
    """["N:TEXT", ...] to {n: text}; raises InputError."""
    prompts: dict[int, str] = {}
    for value in values:
        start, colon, text = value.partition(":")
        if not colon or not re.fullmatch(rf" *{_COUNT} *", start) or not text.strip():
            raise InputError(
                f"{spell(value)!r} is not understood; write --prompt-at N:TEXT with the number of a chunk or "
                "frame, for example 2:'it falls'."
            )
        if int(start) in prompts:
            raise InputError(f"there are two prompts at {int(start)}; give one --prompt-at for a chunk or frame.")
        prompts[int(start)] = text.strip()
    return prompts


def read_weights(values: list[str]) -> dict[str, float]:
    """["NAME", "NAME:WEIGHT", ...] to {name: weight}; raises InputError. What follows the last colon is a weight only
    if it is a number: C:\\styles\\ink.safetensors has none."""
    weights: dict[str, float] = {}
    for value in values:
        name, _, number = value.rpartition(":")
        try:
            weight = float(number)
        except ValueError:
            name, weight = "", 1.0
        name = name or value
        if name in weights:
            raise InputError(f"the LoRA {name} is given twice; give it once, with its weight.")
        weights[name] = weight
    return weights


def read_controls(values: list[str]) -> dict[int, str]:
    """["FILE@FRAME", ...] to {frame: file}; raises InputError."""
    controls: dict[int, str] = {}
    for value in values:
        file, _, frame = value.rpartition("@")
        if not file or not re.fullmatch(_COUNT, frame):
            raise InputError(
                f"{spell(value)!r} is not understood; write --control FILE@FRAME, for example sketch.png@0."
            )
        if int(frame) in controls:
            raise InputError(f"frame {frame} has two pictures; give one --control for a frame.")
        controls[int(frame)] = file
    return controls
