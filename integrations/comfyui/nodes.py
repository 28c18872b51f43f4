"""The nodes, in ComfyUI's V3 contract: thin, each over a function of `functions`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import folder_paths
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import ComfyAPISync, ComfyExtension, InputImpl, io, ui

from animagic import zoo
from animagic.systems import SYSTEMS

from . import functions
from .inputs import OPEN, Widget, inputs_of

CATEGORY = "Animagic"
Model = io.Custom("ANIMAGIC_MODEL")
Preview = io.Custom("ANIMAGIC_PREVIEW")


def _input(widget: Widget) -> Any:
    """An input of ours as ComfyUI has it."""
    about: dict[str, Any] = {"tooltip": widget.help, "optional": True}
    if widget.kind in ("IMAGE", "VIDEO", "AUDIO", "MASK"):
        return getattr(io, widget.kind.title()).Input(widget.name, **about)
    about |= {"default": widget.default, "extra_dict": {"advanced": widget.advanced}}
    if widget.kind == "COMBO":
        return io.Combo.Input(widget.name, options=list(widget.choices), **about)
    if widget.kind == "BOOLEAN":
        return io.Boolean.Input(widget.name, **about)
    if widget.kind == "STRING":
        return io.String.Input(widget.name, multiline=widget.multiline, **about)
    about |= {"min": widget.least, "max": widget.most}
    if widget.kind == "INT":
        return io.Int.Input(widget.name, control_after_generate=widget.seed or None, **about)
    return io.Float.Input(widget.name, step=0.05, **about)


class Load(io.ComfyNode):
    """A model, from the register or elsewhere."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        other = "A folder, a hub id (owner/name) or an original configuration file, in place of the name."
        return io.Schema(
            node_id="AnimagicLoad",
            display_name="Animagic: load model",
            category=CATEGORY,
            inputs=[
                io.Combo.Input("name", options=zoo.names(), tooltip="An embedded model."),
                io.String.Input("other", default="", optional=True, tooltip=other),
                io.Combo.Input("device", options=[OPEN, "cuda", "mps", "cpu"], default=OPEN, optional=True),
            ],
            outputs=[Model.Output(display_name="model")],
        )

    @classmethod
    def execute(cls, name: str, other: str = "", device: str = OPEN) -> io.NodeOutput:
        return io.NodeOutput(functions.load(name, other, device))


class Generate(io.ComfyNode):
    """A video of one system; every system has such a node, with its own options."""

    system: Any

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"Animagic{cls.system.name.title()}",
            display_name=f"Animagic: {cls.system.title}",
            category=CATEGORY,
            inputs=[
                Model.Input("model"),
                Preview.Input("preview", optional=True, tooltip="A node that shows the video while it is made."),
                *map(_input, inputs_of([cls.system])),
            ],
            outputs=[io.Video.Output(display_name="video"), io.Image.Output(display_name="frames")],
        )

    @classmethod
    def execute(cls, model: Any, preview: dict[str, Any] | None = None, **values: Any) -> io.NodeOutput:
        model.check(cls.system)
        progress = ComfyAPISync().execution

        def on_step(step: int, steps: int | None, picture: Any) -> None:
            throw_exception_if_processing_interrupted()
            # Its own bar; and the picture where somebody wants to see it.
            progress.set_progress(step, steps or step + 1, preview_image=None if preview else picture)
            if preview and picture is not None:
                progress.set_progress(step, steps or step + 1, node_id=preview["node"], preview_image=picture)

        folder = Path(folder_paths.get_temp_directory())
        folder.mkdir(parents=True, exist_ok=True)
        output = folder / f"animagic-{time.time_ns()}.mp4"
        every = preview["every"] if preview else 0.5
        made = functions.make(model, inputs_of([cls.system]), values, output, on_step, every)
        return io.NodeOutput(InputImpl.VideoFromFile(str(made.path)), made.frames)


class StreamPreview(io.ComfyNode):
    """Shows a video while it is made: the newest finished frame, and until there is one, what is to become of them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        every = "Seconds from one picture to the next, until there are finished frames."
        return io.Schema(
            node_id="AnimagicStreamPreview",
            display_name="Animagic: stream preview",
            category=CATEGORY,
            inputs=[io.Float.Input("every", default=0.5, min=0.1, max=60.0, step=0.1, tooltip=every)],
            outputs=[Preview.Output(display_name="preview")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, every: float) -> io.NodeOutput:
        return io.NodeOutput({"node": cls.hidden.unique_id, "every": every})


class Plan(io.ComfyNode):
    """Draws which frames are denoised together, at which noise level, in which order."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AnimagicPlan",
            display_name="Animagic: plan viewer",
            category=CATEGORY,
            inputs=[Model.Input("model"), *map(_input, inputs_of(SYSTEMS.values(), plan=True))],
            outputs=[io.Image.Output(display_name="plan"), io.String.Output(display_name="counts")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: Any, **values: Any) -> io.NodeOutput:
        picture, counts = functions.draw_plan(model, inputs_of(SYSTEMS.values(), plan=True), values)
        return io.NodeOutput(picture, counts, ui=ui.PreviewImage(picture, cls=cls))


def _generators() -> list[type[Generate]]:
    return [type(f"Generate{row.name.title()}", (Generate,), {"system": row}) for row in SYSTEMS.values()]


class Extension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [Load, *_generators(), StreamPreview, Plan]


async def comfy_entrypoint() -> Extension:
    return Extension()
