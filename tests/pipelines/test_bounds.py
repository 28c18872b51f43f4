"""Every number that a user gives has a least and a most, which are data; every text is one."""

import typing

import pytest

from animagic.errors import InputError
from animagic.pipelines import flags
from animagic.pipelines.options import MOST_TEXT, VideoOptions
from animagic.systems import SYSTEMS

FIELDS = [
    pytest.param(system.options_class, name, id=f"{system.name}-{name}")
    for system in SYSTEMS.values()
    for name, info in system.options_class.model_fields.items()
    if typing.get_origin(info.annotation) is not dict
    if {int, float} & {info.annotation, *typing.get_args(info.annotation)}
]


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_every_number_has_bounds(kind, name):
    metadata = kind.model_fields[name].metadata
    for bounds in (("ge", "gt"), ("le", "lt")):
        assert any(hasattr(one, bound) for one in metadata for bound in bounds), name


def refusal(**values) -> str:
    with pytest.raises(InputError) as caught:
        VideoOptions(**{"prompt": "a ball", "model": "x"} | values)
    return str(caught.value)


@pytest.mark.parametrize("name", ["frames", "height", "width", "steps", "seed", "guidance", "fps"])
@pytest.mark.parametrize("value", [10**21, -1, float("nan"), float("inf"), pytest.param(10**5000, id="5000 digits")])
def test_numbers_beyond_them_are_refused(name, value):
    assert VideoOptions._called(name) in refusal(**{name: value})


@pytest.mark.parametrize("name", ["prompt", "negative_prompt", "image", "model"])
@pytest.mark.parametrize("text", ["\ud800", "a\0b", "x" * (MOST_TEXT + 1)])
def test_texts_that_are_none(name, text):
    assert "most" in refusal(**{name: text}) or "characters that no text" in refusal(**{name: text})


def test_many_of_something():
    assert "1000 times is the most" in refusal(prompts_at=dict.fromkeys(range(1001), "a"))
    assert "chunk or frame" in refusal(prompts_at={10**9: "a"})
    assert "100 times is the most" in refusal(loras={"a": 1e9})


SIZES = ["64x64\n", "\n64x64", "64x", "x", "64x64x64", "٦٤x٦٤", "9" * 5000 + "x1", "1e3x1e3", ""]


@pytest.mark.parametrize("text", SIZES)
def test_sizes_that_are_none(text):
    with pytest.raises(InputError, match="is not understood"):
        flags.read_size(text)


@pytest.mark.parametrize("text", ["9" * 5000, "1\n", "٦", "1.0", ""])
def test_counts_that_are_none(text):
    with pytest.raises(InputError, match="takes an integer"):
        flags.read_frames(text)
    with pytest.raises(InputError, match="is not understood"):
        flags.read_prompts_at([f"{text or 'x'}\x00:a" if text == "1\n" else f"{text}:a"])
    with pytest.raises(InputError, match="is not understood"):
        flags.read_controls([f"a.png@{text}"])


def test_a_prompt_that_would_be_dropped():
    with pytest.raises(InputError, match="two prompts at 2"):
        flags.read_prompts_at(["2:a", "2:b"])
