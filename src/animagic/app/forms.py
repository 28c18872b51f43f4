"""A tab that makes videos: its form is drawn from the options of the systems that it is for."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from .. import requests, zoo
from ..errors import AnimagicError
from ..systems import SYSTEMS
from .controls import Control
from .fields import fields_of

EXAMPLES = Path(__file__).parent / "examples"


@dataclass(frozen=True)
class Tab:
    """A tab. command: the command that makes the same videos; examples: of them, values of options by name."""

    title: str
    command: str
    intro: str
    examples: tuple[dict[str, Any], ...] = ()


TABS = (
    Tab(
        "Words & pictures",
        "generate",
        "Say what happens, or give a picture that begins to move or a clip that goes on.",
        (
            {"prompt": "a red ball bounces on a green floor"},
            {"prompt": "a blue cat walks to the right on a yellow floor"},
            {"prompt": "a green square falls, then it lies still"},
        ),
    ),
    Tab(
        "Animate a person",
        "animate",
        "A picture of a person, and a video of somebody who moves.",
        ({"image": str(EXAMPLES / "person.png"), "video": str(EXAMPLES / "dance.mp4")},),
    ),
    Tab(
        "Talking portrait",
        "talk",
        "A portrait, and a voice or a text to say. A video in place of the portrait gets another voice.",
        ({"image": str(EXAMPLES / "portrait.png"), "say": "Hello, nice to see you.", "prompt": "smiling, nodding"},),
    ),
)


class Form:
    """The controls of a tab.

    Args:
        tab: which. models: of the service, those whose videos it makes.
    Attributes:
        model: the choice of the model. make: the button. controls: by option.
    """

    def __init__(self, tab: Tab, models: list[Any]):
        self.tab = tab
        systems = [system for system in SYSTEMS.values() if system.command == tab.command]
        names = [model.name for model in models]
        fields = fields_of(systems)
        self.controls: dict[str, Control] = {}
        first = zoo.system_of(names[0])
        gr.Markdown(tab.intro, elem_classes="am-intro")
        choices = [(f"{model.name}: {model.title}", model.name) for model in models]
        self.model = gr.Dropdown(choices, value=names[0], label="Model", visible=len(names) > 1)
        basic = [field for field in fields if field.option.basic]
        uploads = [field for field in basic if field.kind in ("image", "video")]
        for field in (field for field in basic if field.kind == "text"):
            self._add(Control(field))
        with gr.Row(elem_classes="am-uploads"):
            for field in uploads:
                self._add(Control(field))
        for field in basic:
            if field.name not in self.controls:
                self._add(Control(field))
        self.after_basic = gr.Column()
        with gr.Accordion("Advanced", open=False, elem_classes="am-advanced"):
            for field in fields:
                if field.name not in self.controls:
                    self._add(Control(field))
        self.make = gr.Button("Make the video", variant="primary", elem_classes="am-make")
        for control in self.controls.values():
            for component, update in zip(control.components, control.about(names[0], first, None), strict=True):
                component.visible = update["visible"]
        if tab.examples:
            named = list(dict.fromkeys(name for example in tab.examples for name in example))
            rows = [[example.get(name) for name in named] for example in tab.examples]
            gr.Examples(rows, [self.controls[name].components[0] for name in named], label="Try one of these")

    def _add(self, control: Control) -> None:
        self.controls[control.field.name] = control

    @property
    def components(self) -> list[Any]:
        return [component for control in self.controls.values() for component in control.components]

    def request(self, model: str, *values: Any) -> Any:
        """The request that the values of `components` stand for. Raises InputError, CheckpointError."""
        system, options = zoo.system_of(model), {}
        for control, given in self._dealt(values):
            if system in control.field.owners:
                options |= control.read(model, *given)
        return requests.build_request(options.pop("prompt", ""), model, **options)

    def _dealt(self, values: tuple[Any, ...]) -> Iterator[tuple[Control, tuple[Any, ...]]]:
        start = 0
        for control in self.controls.values():
            stop = start + len(control.components)
            yield control, values[start:stop]
            start = stop

    def for_model(self, model: str) -> list[Any]:
        """Updates of `components` for a model: only what it has, and what it does by itself."""
        system, own = zoo.system_of(model), sampling_of(model)
        return [
            gr.update(**update) for control in self.controls.values() for update in control.about(model, system, own)
        ]

    def filled(self, request: Any, with_files: bool) -> list[Any]:
        """Values of `components` for a request."""
        return [value for control in self.controls.values() for value in control.shown(request, with_files)]


@functools.lru_cache
def sampling_of(model: str) -> Any:
    """The sampling settings that a model has by itself; None if they cannot be read."""
    try:
        return zoo.pipeline_class(model).sampling_of(zoo.settings(model) or None)
    except AnimagicError:
        return None
