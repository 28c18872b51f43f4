"""A tab that makes videos: its form is drawn from the options of the systems that it is for."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
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
    """A tab. command: the command that makes the same videos; examples: by their names, values of options."""

    title: str
    command: str
    intro: str
    examples: dict[str, dict[str, Any]]


TABS = (
    Tab(
        "Words & pictures",
        "generate",
        "Say what happens, or give a picture that begins to move or a clip that goes on.",
        {
            prompt: {"prompt": prompt}
            for prompt in (
                "a red ball bounces on a green floor",
                "a blue star spins at night",
                "a yellow rocket rises in front of green hills",
            )
        },
    ),
    Tab(
        "Animate a person",
        "animate",
        "A picture of a person, and a video of somebody who moves.",
        {"A person, and a dance": {"image": str(EXAMPLES / "person.png"), "video": str(EXAMPLES / "dance.mp4")}},
    ),
    Tab(
        "Talking portrait",
        "talk",
        "A portrait, and a voice or a text to say. A video in place of the portrait gets another voice.",
        {
            "A portrait that says hello": {
                "image": str(EXAMPLES / "portrait.png"),
                "say": "Hello, nice to see you.",
                "prompt": "smiling, nodding",
            }
        },
    ),
)


class Form:
    """The controls of a tab.

    Args:
        tab: which. models: of the service, those whose videos it makes.
        beside: puts in front of what is advanced what only this tab has.
    Attributes:
        model: the choice of the model. make: the button. controls: by option.
    """

    def __init__(self, tab: Tab, models: list[Any], beside: Callable[[Form], None] = lambda form: None):
        self.tab = tab
        systems = [system for system in SYSTEMS.values() if system.command == tab.command]
        names = [model.name for model in models]
        fields = fields_of(systems)
        self._fields = {field.name: field for field in fields}
        self.controls: dict[str, Control] = {}
        first = zoo.system_of(names[0])
        gr.Markdown(tab.intro, elem_classes="am-intro")
        self._about = {model.name: f"It makes {model.summary}." for model in models}
        self.model = gr.Dropdown(
            names, value=names[0], label="Model", info=self._about[names[0]], visible=len(names) > 1
        )
        basic = [field for field in fields if field.option.basic]
        for media, together in itertools.groupby(basic, lambda field: field.kind in ("image", "video")):
            with gr.Row() if media else gr.Column():
                for field in together:
                    self.add(field.name)
        beside(self)
        with gr.Accordion("Advanced", open=False, elem_classes="am-advanced"):
            for field in fields:
                if field.name not in self.controls:
                    self.add(field.name)
            for control in self.controls.values():
                control.fold()
        self.make = gr.Button("Make the video", variant="primary", elem_classes="am-make")
        for control in self.controls.values():
            for component, update in zip(control.components, control.about(names[0], first, None), strict=True):
                component.visible = update["visible"]
        named = list(dict.fromkeys(name for example in tab.examples.values() for name in example))
        gr.Examples(
            [[example.get(name) for name in named] for example in tab.examples.values()],
            [self.controls[name].components[0] for name in named],
            example_labels=list(tab.examples),
            label="Try one of these",
        )

    def add(self, name: str) -> Control:
        """Put the control of an option here."""
        self.controls[name] = Control(self._fields[name])
        return self.controls[name]

    @property
    def components(self) -> list[Any]:
        return [component for control in self.controls.values() for component in control.components]

    def request(self, model: str, *values: Any) -> Any:
        """The request that the values of `components` stand for. Raises InputError, CheckpointError."""
        system = zoo.system_of(model)
        options: dict[str, Any] = {}
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
        """Updates of `model` and `components` for a model: only what it has, and what it does by itself."""
        system, own = zoo.system_of(model), sampling_of(model)
        return [
            gr.update(info=self._about[model]),
            *(gr.update(**one) for control in self.controls.values() for one in control.about(model, system, own)),
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
