"""Published configuration files of every system: read, checked, and changed by settings of the command line."""

from __future__ import annotations

import json
from typing import Literal

import pytest
import yaml
from goldens import golden_path

from animagic.errors import InputError
from animagic.systems.magi1 import original as magi1
from animagic.weights.original import Section, YamlNumber, read_file, split_setting, value_of

MAGI1 = json.loads(golden_path("magi1", "configs", "4.5B_base_config.json").read_text())


def test_magi1_reads_its_configuration_from_yaml(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(MAGI1))
    assert magi1.read_config(file) == MAGI1


@pytest.mark.parametrize(
    ("name", "reason"), [("a.json", "not valid JSON"), ("a.yaml", "not valid YAML"), ("b.yaml", "cannot be read")]
)
def test_a_file_that_cannot_be_read(tmp_path, name, reason):
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(InputError, match=reason):
        read_file(tmp_path / name)


class Flags(Section):
    steps: int
    text: str = ""
    scale: YamlNumber = 1.0
    one: Literal[1] = 1
    names: list[str] | None = None


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
        ({}, "here: steps is missing; a whole number is needed."),
        ({"stps": None}, "here: stps is unknown; did you mean steps?"),
        ({"steps": 1, "one": 2}, "here: one is 2; it can be 1."),
        ({"steps": 1, "scale": "x"}, "here: scale is x; a number is needed."),
    ],
)
def test_a_section_names_what_it_refuses(given, said):
    with pytest.raises(InputError) as caught:
        Flags.check(given, "here: ")
    assert str(caught.value) == said


def test_a_section_has_every_field():
    made = {"steps": 1, "text": "", "scale": 0.5, "one": 1, "names": None}
    assert Flags.check({"steps": 1, "scale": "5e-1"}, "here: ") == made
