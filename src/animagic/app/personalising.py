"""The tab in which a model learns from a few pictures."""

from __future__ import annotations

import dataclasses
import html
import typing
from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import InputError
from ..systems import systems_with
from .controls import copied
from .forms import Form
from .learning import Learning
from .telling import told

FILLS = {"lora": "loras", "textual-inversion": "embeddings"}
"""What writes a file that the form takes -> the option that takes it."""
BASIC = ("pictures", "method", "prompt")


class Personalise:
    """The tab. form: where results can be used. fill: Gradio's tabs, and the id of the form's."""

    def __init__(self, learning: Learning, models: list[Any], form: Form, tabs: gr.Tabs, tab_id: int):
        self.learning, self.form, self.tab_id = learning, form, tab_id
        able = {system.name for system in systems_with("dreambooth")}  # they build on text-to-image models
        names = [model.name for model in models if model.system in able]
        gr.Markdown("Three to twenty pictures of a thing or in a style. What is learned moves at once.")
        pictures = gr.File(
            file_count="multiple", file_types=["image"], label="Pictures", height=140, elem_classes="am-pictures"
        )
        name = gr.Textbox("", label="Name", info="How the result is called.", placeholder="my drawings")
        prompt = gr.Textbox(
            "",
            label="Prompt",
            info="What a picture shows, with a word for what is new.",
            placeholder="a picture of sks ball",
            elem_classes="am-learn-prompt",
        )
        method = gr.Radio(list(FILLS), value="lora", label="Method", info="A new word is textual inversion.")
        with gr.Accordion("Advanced", open=False):
            model = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)
            self.settings = _settings()
        with gr.Row():
            start = gr.Button("Learn", variant="primary", elem_classes="am-make")
            cancel = gr.Button("Cancel", variant="stop", visible=False)
        self.progress = gr.HTML("", elem_id="am-learning", apply_default_css=False)
        self.timer = gr.Timer(1, active=False)
        with gr.Column(visible=False) as result:
            sheet = gr.Image(
                label="The pictures, and the model before and after", interactive=False, alt_text="Contact sheet"
            )
            file = gr.File(label="The file", interactive=False)
            use = gr.Button(f"Use it in {form.tab.title}")
        self.shown = [self.timer, self.progress, start, cancel, result, sheet, file]
        given = [name, pictures, model, method, prompt, *self.settings.values()]
        start.click(told(self._start), given, self.shown, concurrency_limit=1)
        cancel.click(told(self._cancel), None, self.shown)
        self.timer.tick(self.state, None, self.shown, show_progress="hidden")
        place = form.controls
        targets = [tabs, form.model, *(place[option].components[-1] for option in FILLS.values())]
        use.click(told(self._use), None, targets)

    def _start(self, name: str, pictures: Any, model: str, method: str, prompt: str, *values: Any) -> list[Any]:
        given = dict(zip(self.settings, values, strict=True))
        settings = {name: _number(name, value) for name, value in given.items() if value not in (None, "")}
        self.learning.start(name, pictures or [], model, method=method, prompt=prompt.strip() or None, **settings)
        return self.state()

    def _cancel(self) -> list[Any]:
        self.learning.cancel()
        return self.state()

    def state(self) -> list[Any]:
        """Values of `shown`."""
        about, running = self.learning.state(), self.learning.running
        done = about.get("stage") == "done"
        return [
            gr.Timer(active=running),
            _progress(about),
            gr.update(interactive=not running),
            gr.update(visible=running),
            gr.update(visible=done),
            copied(about["sheet"]) if done else None,
            copied(about["output"]) if done else None,
        ]

    def _use(self) -> list[Any]:
        about = self.learning.state()
        mine = FILLS[about["method"]]
        files = [[copied(about["output"])] if option == mine else gr.skip() for option in FILLS.values()]
        return [gr.Tabs(selected=self.tab_id), about["model"], *files]


def _kinds(name: str) -> set[Any]:
    """The types that a setting may have, but for None."""
    from ..training.personalization import Personalization

    hint = typing.get_type_hints(Personalization)[name]
    return set(typing.get_args(hint) or (hint,)) - {type(None)}


def _number(name: str, value: Any) -> Any:
    """What was written for a setting, as it takes it. Raises InputError."""
    for kind in _kinds(name) & {int, float}:
        try:
            return kind(value)
        except ValueError:
            words = "a whole number" if kind is int else "a number"
            raise InputError(f"{name.replace('_', ' ')} takes {words}, not {value!r}.") from None
    return value


def _settings() -> dict[str, Any]:
    """The other settings of a personalization, drawn from its fields."""
    from ..training.personalization import Personalization

    controls: dict[str, Any] = {}
    for field in dataclasses.fields(Personalization):
        if field.name in BASIC or field.name == "train_text_encoder":  # the latter is of a method with no file
            continue
        label = field.name.replace("_", " ").capitalize()
        kinds = _kinds(field.name)
        value: Any = field.default
        if kinds == {bool}:
            controls[field.name] = gr.Checkbox(value, label=label)
        else:
            number = kinds <= {int, float}
            about: dict[str, Any] = {"placeholder": "as the method" if number else "none"}
            about["elem_classes"] = [f"am-learn-{field.name}", *["am-number"] * number]
            controls[field.name] = gr.Textbox("" if value is None else f"{value:g}", label=label, **about)
    return controls


def _progress(about: dict[str, Any]) -> str:
    """Where the learning stands, as HTML."""
    if not about:
        return ""
    name, stage = html.escape(about["name"]), html.escape(about["stage"])
    if stage == "failed":
        return f'<p role="alert" class="am-failed">{name}: {html.escape(about["error"])}</p>'
    if stage in ("done", "cancelled"):
        return f'<p role="status">{name}: {stage}</p>'
    total = about.get("total") or 0
    bar = (
        f'<progress max="{total}" value="{about["done"]}" aria-label="How much is learned"></progress>' if total else ""
    )
    left = about.get("seconds_left")
    words = [f"{name}: {stage}"]
    if total:
        words.append(f"{about['done']} of {total}")
    if left:
        words.append(f"about {left:.0f} s left" if left < 90 else f"about {left / 60:.0f} min left")
    if about.get("loss") is not None:
        words.append(f"loss {about['loss']:.4f}")
    return f'<p role="status">{" · ".join(words)}</p>{bar}'


def folder_of(service: Any) -> Path:
    """Where results of learning lie."""
    return Path(service.settings.folder) / "personalised"
