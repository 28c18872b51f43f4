"""Faces of speakers, drawn with the mouse."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from ..errors import InputError
from ..media import read_image, write_image
from .forms import Form
from .telling import told

COLOURS: list[Any] = ["#ffd666", "#5ec8f2", "#f28ab2", "#8fd694"]


def speaker_editor(form: Form) -> None:
    """A picture to draw on: each layer is the face of a speaker, and fills the options for boxes or masks."""
    portrait = form.controls["image"].components[0]
    with gr.Accordion("Several speakers: draw their faces", open=False) as place:
        gr.Markdown(
            "Paint over the face of the first speaker, add a layer and paint over the face of the second, and so on: "
            "in the order of the voices."
        )
        editor = gr.ImageEditor(
            type="numpy",
            sources=(),
            transforms=(),
            brush=gr.Brush(colors=COLOURS, default_color=COLOURS[0], default_size="auto"),
            layers=gr.LayerOptions(layers=["speaker 1", "speaker 2"]),
            label="Faces",
            show_label=False,
            height=360,
        )
        with gr.Row():
            as_masks = gr.Button("Use as masks", size="sm")
            as_boxes = gr.Button("Use as boxes", size="sm")
        masks, boxes = (form.add(name).components[0] for name in ("mask", "face"))
    place.expand(_background, portrait, editor)
    portrait.change(_background, portrait, editor, show_progress="hidden")
    as_masks.click(told(lambda drawn, path: [mask_files(drawn, path), ""]), [editor, portrait], [masks, boxes])
    as_boxes.click(told(lambda drawn, path: [None, box_lines(drawn, path)]), [editor, portrait], [masks, boxes])


def _background(portrait: str | None) -> dict[str, Any] | None:
    return None if portrait is None else {"background": portrait, "layers": [], "composite": None}


def painted(drawn: dict[str, Any] | None, portrait: str | None) -> list[np.ndarray]:
    """Where each layer is painted: bool (height, width), of the size of the portrait. Raises InputError."""
    if portrait is None:
        raise InputError("there is no portrait to draw on; give one first.")
    height, width = read_image(portrait).shape[:2]
    found = []
    for layer in (drawn or {}).get("layers") or ():
        if layer[..., 3].any():
            image = Image.fromarray(layer[..., 3]).resize((width, height), Image.Resampling.BILINEAR)
            found.append(np.asarray(image) > 127)
    if not found:
        raise InputError("nothing is drawn; paint over the face of each speaker, each in a layer of its own.")
    return found


def mask_files(drawn: dict[str, Any] | None, portrait: str | None) -> list[str]:
    """A picture for each speaker, white where the face is."""
    folder = Path(tempfile.mkdtemp(prefix="animagic-"))
    paths = []
    for number, mask in enumerate(painted(drawn, portrait), 1):
        paths.append(str(folder / f"speaker-{number}.png"))
        write_image(paths[-1], np.repeat(mask[..., None] * np.uint8(255), 3, axis=2))
    return paths


def box_lines(drawn: dict[str, Any] | None, portrait: str | None) -> str:
    """A line x,y,width,height for each speaker: the box around what is painted."""
    lines = []
    for mask in painted(drawn, portrait):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = int(columns[0]), int(rows[0])
        lines.append(f"{x},{y},{int(columns[-1]) + 1 - x},{int(rows[-1]) + 1 - y}")
    return "\n".join(lines)
