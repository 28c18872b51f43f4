"""Options as fields of a form, and the values of their controls as options again."""

from __future__ import annotations

import pytest

gradio = pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'animagic[app]'")

from animagic import requests  # noqa: E402 - only if Gradio is there
from animagic.app.controls import Control  # noqa: E402
from animagic.app.fields import fields_of, without_flags  # noqa: E402
from animagic.errors import InputError  # noqa: E402
from animagic.pipelines.options import default_of, option_of  # noqa: E402
from animagic.systems import SYSTEMS  # noqa: E402

COMMANDS = ("generate", "animate", "talk")


def fields(command: str) -> dict:
    return {field.name: field for field in fields_of(s for s in SYSTEMS.values() if s.command == command)}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_that_is_stored_has_a_field_and_no_other(command):
    stored = {
        name
        for system in SYSTEMS.values()
        for name, info in system.options_class.model_fields.items()
        if system.command == command and not info.exclude and (option := option_of(info)) is not None
        if option.flag is not None or option.positional
    }
    assert set(fields(command)) == stored
    assert not {"live", "memory", "endless"} & stored


@pytest.mark.parametrize("command", COMMANDS)
def test_each_control_left_alone_says_nothing(command):
    with gradio.Blocks():
        for field in fields(command).values():
            control = Control(field)
            values = [component.value for component in control.components]
            assert control.read(MODELS[command], *values) == {}, field.name


MODELS = {"generate": "animatediff-tiny", "animate": "magicanimate-tiny", "talk": "magicinfinite-tiny"}
WRITTEN = [
    ("generate", "frames", ["24"], {"frames": 24}),
    ("generate", "frames", ["endless"], {"endless": True}),
    ("generate", "width", ["64x48"], {"width": 64, "height": 48}),
    ("generate", "guidance", ["2.5"], {"guidance": 2.5}),
    ("generate", "seed", [str(2**63 + 1)], {"seed": 2**63 + 1}),
    ("generate", "prompts_at", ["2: it falls\n\n4: it rises"], {"prompts_at": {2: "it falls", 4: "it rises"}}),
    ("generate", "loras", [["watercolour:0.5"], ["/a/my.safetensors"]],
     {"loras": {"watercolour": 0.5, "/a/my.safetensors": 1.0}}),
    ("generate", "controls", [["a.png", "b.png"], "0, 8"], {"controls": {0: "a.png", 8: "b.png"}}),
    ("generate", "free_noise", [True], {"free_noise": True}),
    ("generate", "fit", ["pad"], {"fit": "pad"}),
    ("animate", "retarget", ["no"], {"retarget": False}),
    ("talk", "say", ["Yes.\nNo."], {"say": ("Yes.", "No.")}),
    ("talk", "audio", ["a.wav", ["b.wav"]], {"audio": ("a.wav", "b.wav")}),
]  # fmt: skip


@pytest.mark.parametrize(("command", "name", "values", "options"), WRITTEN, ids=[row[1] for row in WRITTEN])
def test_what_is_written_is_read(command, name, values, options):
    with gradio.Blocks():
        assert Control(fields(command)[name]).read(MODELS[command], *values) == options


@pytest.mark.parametrize("name", ["frames", "guidance", "width", "prompts_at", "loras", "seed", "fit", "tiling"])
def test_a_request_is_shown_as_it_would_be_written(name):
    options = {
        "frames": 24, "guidance": 2.5, "width": 64, "height": 48, "prompts_at": {2: "it falls"}, "seed": 7,
        "loras": {"watercolour": 0.5}, "fit": "pad", "tiling": True,
    }  # fmt: skip
    request = requests.build_request("a ball", MODELS["generate"], **options)
    with gradio.Blocks():
        control = Control(fields("generate")[name])
        again = control.read(request.model, *control.shown(request, with_files=False))
    assert again == {key: options[key] for key in again}
    assert name in again


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("frames", ["many"], ["frames", "many"]),
        ("guidance", ["much"], ["a number", "much"]),
        ("width", ["64"], ["WIDTHxHEIGHT"]),
        ("loras", [["/etc/passwd"], None], ["watercolour", "upload"]),
        ("controls", [["a.png"], ""], ["number of a frame"]),
    ],
)
def test_what_cannot_be_read_is_refused(name, values, words):
    with gradio.Blocks(), pytest.raises(InputError) as refused:
        Control(fields("generate")[name]).read(MODELS["generate"], *values)
    for word in words:
        assert word in str(refused.value)


def test_help_speaks_of_fields_and_says_the_range():
    fields_ = fields("generate")
    assert fields_["guidance"].help == "How strongly the prompt is followed. (0 to 100)"
    assert "one a line" in fields_["prompts_at"].help
    assert without_flags("give --frames or --prompt-at") == 'give "Frames" or "Prompt at"'
    assert all(field.help for command in COMMANDS for field in fields(command).values())
    assert default_of(fields_["fit"].info) == fields_["fit"].default
