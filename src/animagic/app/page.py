"""The page: forms on the left, the video that is being made on the right."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from .. import requests
from ..errors import InputError
from ..media import read_metadata
from .controls import copied
from .forms import TABS, Form
from .learning import Learning
from .personalising import Personalise, folder_of
from .speakers import speaker_editor
from .telling import caller_of, static, told
from .watching import finished_video, library, request_of, watch_panel

TITLE = "Animagic"
_FONT = ["system-ui", "sans-serif"]  # nothing is fetched from elsewhere
_THEME: dict[str, Any] = {"primary_hue": "indigo", "neutral_hue": "slate", "radius_size": "md"}
_CONTRAST = {  # at least 4.5 : 1
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
    "body_text_color_subdued": "*neutral_600",
    "body_text_color_subdued_dark": "*neutral_300",
    "block_info_text_color": "*neutral_600",
    "block_info_text_color_dark": "*neutral_300",
    "input_placeholder_color": "*neutral_500",
    "block_border_width": "1px",
    "input_border_width": "1px",
    "input_border_color": "*neutral_300",
    "checkbox_border_width": "1px",
    "checkbox_border_color": "*neutral_500",
    "checkbox_border_color_dark": "*neutral_400",
}
_PLAIN_LABELS = {
    f"block_{part}{end}": value
    for part in ("title", "label")
    for end, value in {
        "_background_fill": "transparent", "_background_fill_dark": "transparent", "_text_color": "*body_text_color",
        "_text_color_dark": "*body_text_color", "_text_weight": "600",
    }.items()
}  # fmt: skip


def build(service: Any) -> gr.Blocks:
    """The page of a `jobs.Service`. `mount` puts it into a server, with its looks."""
    models = service.models()
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.HTML(static("head.html"), apply_default_css=False)
        with gr.Row(elem_classes="am-page"):
            with gr.Column(scale=5, min_width=320, elem_classes="am-left"), gr.Tabs(overflow_behavior="wrap") as tabs:
                forms: list[Form] = []
                for tab in TABS:
                    having = [model for model in models if model.command == tab.command]
                    if having:
                        with gr.Tab(tab.title, id=len(forms)):
                            forms.append(Form(tab, having, _beside))
                with gr.Tab("Personalise", id=len(forms)):
                    learning = Learning(folder_of(service))
                    personalise = Personalise(learning, models, forms[0], tabs, 0)
                with gr.Tab("Library", id=len(forms) + 1, render_children=True):
                    library(service)
            with gr.Column(scale=4, min_width=320, elem_classes="am-right"):
                panel = watch_panel(service)
                _with_video(service, panel, forms, tabs)
                _from_file(forms, tabs)
        for form in forms:
            make = told(_maker(service, form))
            form.make.click(make, [form.model, *form.components], panel, concurrency_limit=8, show_progress="hidden")
            for event in (form.model.input, page.load):
                event(told(form.for_model), form.model, [form.model, *form.components], show_progress="hidden")
        page.load(personalise.state, None, personalise.shown, show_progress="hidden")
    return page


def mount(api: Any, service: Any, path: str = "/", auth: Any = None) -> Any:
    """Put the page of a service into the FastAPI server that has its API; returns the server.

    auth: as Gradio takes it, pairs of a name and a password. It guards the page alone.
    """
    theme = gr.themes.Soft(font=_FONT, font_mono=["ui-monospace", "monospace"], **_THEME)
    theme.set(**_PLAIN_LABELS, block_title_padding="0", **_CONTRAST)
    return gr.mount_gradio_app(
        api,
        build(service),
        path,
        theme=theme,
        css=static("page.css"),
        footer_links=[],
        show_error=True,
        max_file_size=service.settings.limits.upload,
        auth=auth,
        ssr_mode=False,
        favicon_path=str(Path(__file__).parent / "static" / "icon.svg"),
    )


def _maker(service: Any, form: Form) -> Callable[..., dict[str, str]]:
    def make(request: gr.Request, model: str, *values: Any) -> dict[str, str]:
        return {"job": service.submit(form.request(model, *values), owner=caller_of(request)[0]).id}

    return make


def _beside(form: Form) -> None:
    """What only some tabs have."""
    if "say" in form.controls:
        speaker_editor(form)
    if form.tab.command == "animate":
        driving, person = (form.controls[name].components[0] for name in ("video", "image"))
        with gr.Accordion("The pose that is found", open=False):
            find = gr.Button("Find the pose in the video", size="sm")
            found = gr.Video(label="Pose over the video, and fitted to the person", interactive=False, height=250)
        find.click(told(_pose), [driving, person], found)


def _pose(driving: str | None, person: str | None) -> str:
    from ..requests.poses import make_poses

    if driving is None:
        raise InputError("there is no video to find a pose in; give one.")
    output = Path(tempfile.mkdtemp(prefix="animagic-")) / "pose.mp4"
    make_poses(driving, str(output), reference=person, show=True)
    return str(output)


def _with_video(service: Any, panel: gr.HTML, forms: list[Form], tabs: gr.Tabs) -> None:
    """Buttons for the video that is shown."""
    with gr.Row(elem_classes="am-with-video"):
        where = gr.Dropdown(
            [(form.tab.title, number) for number, form in enumerate(forms)], value=0, show_label=False,
            label="Where the video is used", elem_classes="am-where", container=False, min_width=150,
        )  # fmt: skip
        use = gr.Button("Use as input", size="sm", min_width=100)
        again = gr.Button("Take its settings", size="sm", min_width=100)
    videos = [form.controls["video"].components[0] for form in forms]

    def use_video(shown: Any, number: int, request: gr.Request) -> list[Any]:
        path = copied(finished_video(service, shown, caller_of(request)[1]))
        return [gr.Tabs(selected=number), *(path if number == i else gr.skip() for i in range(len(forms)))]

    def take(shown: Any, request: gr.Request) -> list[Any]:
        if not (shown or {}).get("job"):
            raise InputError("no video is shown; make one, or choose one in the library.")
        return _filled(forms, request_of(service.get(shown["job"], caller_of(request)[1])), with_files=True)

    use.click(told(use_video), [panel, where], [tabs, *videos])
    again.click(told(take), panel, _targets(forms, tabs))


def _from_file(forms: list[Form], tabs: gr.Tabs) -> None:
    """Settings from any file that was made by Animagic."""
    with gr.Accordion("Take the settings of a file", open=False):
        file = gr.File(label="A video that Animagic made", height=112, elem_classes="am-settings")

    def take(path: str | None) -> list[Any]:
        if path is None:
            return [gr.skip() for _ in _targets(forms, tabs)]
        # The files that it names lie where it was made, or are none of the sender's business.
        return _filled(forms, requests.from_metadata(read_metadata(path), Path(path).name), with_files=False)

    file.upload(told(take), file, _targets(forms, tabs))


def _targets(forms: list[Form], tabs: gr.Tabs) -> list[Any]:
    return [tabs, *(component for form in forms for component in [form.model, *form.components])]


def _filled(forms: list[Form], request: Any, with_files: bool) -> list[Any]:
    """Values of `_targets` for a request. Raises InputError."""
    command = requests.system_of(request.model).command
    number = next((i for i, form in enumerate(forms) if form.tab.command == command), None)
    if number is None or request.model not in [value for _, value in forms[number].model.choices]:
        raise InputError(f"its model, {request.model}, is not one of this server's.")
    values: list[Any] = [gr.Tabs(selected=number)]
    for i, form in enumerate(forms):
        if i == number:
            values += [request.model, *form.filled(request, with_files)]
        else:
            values += [gr.skip()] * (1 + len(form.components))
    return values
