"""Requests whose model is an original configuration file: what it holds says of which system, its suffix does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from goldens import golden_path

from animagic import requests, systems
from animagic.errors import InputError
from animagic.pipelines.job import Job
from animagic.pipelines.options import VideoOptions
from animagic.systems import System

MAGI1 = json.loads(Path(golden_path("magi1", "configs", "4.5B_base_config.json")).read_text())
ENTRY = {"motion_module": "mm.ckpt", "prompt": ["a"], "n_prompt": [""], "steps": 2, "guidance_scale": 1}
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
TOY = System(
    name="toy",
    title="Toy",
    options=VideoOptions,
    job=Job,
    original_job=Job,
    recognises=lambda content: isinstance(content, dict) and "toys" in content,
)


def written(path: Path, content: object) -> str:
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize(
    ("content", "system"),
    [
        (MAGI1, "magi1"),
        ({"runtime_config": {"typo": 3}}, "magi1"),
        ([ENTRY], "animatediff"),
        ({"ToonYou": ENTRY, "Lyriel": ENTRY}, "animatediff"),
        ([{**ENTRY, "stepps": 3}], "animatediff"),
        (MAGIC_ANIMATE, "magicanimate"),
        ({"toys": 3}, "toy"),
    ],
)
@pytest.mark.parametrize("suffix", ["json", "yaml", "yml"])
def test_the_system_of_a_configuration_file(monkeypatch, tmp_path, content, system, suffix):
    monkeypatch.setitem(systems.SYSTEMS, "toy", TOY)
    file = written(tmp_path / f"config.{suffix}", content)
    assert requests.system_of(file).name == system


def test_a_request_is_carried_out_by_the_system_whose_file_it_is(monkeypatch, tmp_path):
    monkeypatch.setitem(systems.SYSTEMS, "toy", TOY)
    toy = requests.build_request("a ball", written(tmp_path / "toy.yaml", {"toys": 3}), settings=("steps=3",))
    assert (type(toy), type(requests.job_for(toy))) == (VideoOptions, Job)
    other = requests.build_request("a ball", written(tmp_path / "other.yaml", [ENTRY]))
    assert type(other).__name__ == "AnimateDiffOptions"


@pytest.mark.parametrize("content", [{"toys": 3}, {"model_type": "t5"}, [], [3], {}, None, "words", [MAGIC_ANIMATE]])
def test_a_file_of_another_system_is_nobodys(tmp_path, content):
    with pytest.raises(InputError, match=r"animation\.yaml is no configuration .* known are those of MAGI-1, AnimateD"):
        requests.build_request("a ball", written(tmp_path / "animation.yaml", content))


def test_a_file_that_is_missing_and_a_folder_of_such_a_name(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml cannot be read: No such file"):
        requests.build_request("a ball", str(tmp_path / "none.yaml"))
    (tmp_path / "model.json").mkdir()
    with pytest.raises(InputError, match=r"model\.json is not a model folder"):
        requests.build_request("a ball", str(tmp_path / "model.json"))
