"""Published configuration files of every system: whose they are, and how settings of the command line are read."""

from __future__ import annotations

import json

import pytest
import yaml
from goldens import golden_path

from animagic.errors import InputError
from animagic.systems.animatediff import original as animatediff
from animagic.systems.magi1 import original as magi1
from animagic.weights.original import Section, YamlNumber, field, read_file, recognise, split_setting, value_of

ORIGINALS = {"magi1": magi1, "animatediff": animatediff}
MAGI1 = json.loads(golden_path("magi1", "configs", "4.5B_base_config.json").read_text())
ENTRY = {"motion_module": "mm.ckpt", "prompt": ["a"], "n_prompt": [""], "steps": 25, "guidance_scale": 8, "seed": 1}
MAGIC_ANIMATE = {
    "pretrained_model_path": "sd",
    "motion_module": "temporal_attention.ckpt",
    "source_image": ["a.png"],
    "video_path": ["a.mp4"],
    "inference_config": "configs/inference/inference.yaml",
    "seed": [1],
    "steps": 25,
    "guidance_scale": 7.5,
    "size": 512,
    "L": 16,
}


@pytest.mark.parametrize(
    ("content", "system"),
    [
        (MAGI1, "magi1"),
        ({"runtime_config": {"typo": 3}}, "magi1"),
        ([ENTRY], "animatediff"),
        ({"ToonYou": ENTRY, "Lyriel": ENTRY}, "animatediff"),
        ([{**ENTRY, "stepps": 3}], "animatediff"),
    ],
)
@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_what_a_file_holds_says_whose_it_is_and_not_its_suffix(tmp_path, content, system, suffix):
    file = tmp_path / f"config.{suffix}"
    file.write_text(json.dumps(content) if suffix == "json" else yaml.safe_dump(content))
    assert recognise(file, ORIGINALS) == system


@pytest.mark.parametrize("content", [MAGIC_ANIMATE, {"model_type": "t5"}, [], [3], {}, None, "words", [MAGIC_ANIMATE]])
def test_a_file_of_another_system_is_nobodys(tmp_path, content):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"config\.yaml is no configuration .* known are those of magi1, animatediff"):
        recognise(file, ORIGINALS)


def test_magi1_reads_its_configuration_from_yaml(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(MAGI1))
    assert magi1.read_config(file) == MAGI1


@pytest.mark.parametrize(
    ("name", "reason"), [("a.json", "not JSON"), ("a.yaml", "not YAML"), ("b.yaml", "cannot be read")]
)
def test_a_file_that_cannot_be_read(tmp_path, name, reason):
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(InputError, match=reason):
        read_file(tmp_path / name)


class Flags(Section):
    null_is_absent = True

    steps: int = field("how many")
    text: str = field("a text", "")
    scale: YamlNumber = field("a number", 1.0)
    one: int = field("must be 1", 1, only=(1,), because="there is one")
    names: list[str] | None = field("several", None)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("steps=3", 3),
        ("text= a=b ", "a=b"),
        ("text=3", "3"),
        ("text='x'", "x"),
        ("scale=1e-4", 1e-4),
        ("names=['a', b]", ["a", "b"]),
        ('names=["a", "b"]', ["a", "b"]),
        ("names=null", None),
    ],
)
def test_a_setting_is_json_or_yaml_or_a_bare_text(setting, value):
    place, name, text = split_setting(setting, "", "FIELD=VALUE")
    read = value_of(setting, name, text, Flags)
    assert (place, read, type(read)) == ("", value, type(value))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "here lacks steps; add it to the file."),
        ({"steps": None}, "here lacks steps; add it to the file."),
        ({"steps": 1, "stps": None}, "here has an unknown field 'stps'; did you mean steps?"),
        ({"steps": 1, "one": 2}, "here: one is 2, but there is one; it can be 1."),
        ({"steps": 1, "scale": "x"}, "here: scale is x; a number is needed."),
    ],
)
def test_a_section_names_what_it_refuses(given, said):
    with pytest.raises(InputError) as caught:
        Flags.check(given, "here")
    assert str(caught.value) == said


def test_a_section_has_every_field():
    made = {"steps": 1, "text": "", "scale": 0.5, "one": 1, "names": None}
    assert Flags.check({"steps": 1, "scale": "5e-1"}, "here") == made
