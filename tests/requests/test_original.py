"""Requests whose model is an original configuration file: what it holds says of which system, its suffix does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from goldens import golden_path

from animagic import requests
from animagic.errors import InputError

MAGI1 = json.loads(Path(golden_path("magi1", "configs", "4.5B_base_config.json")).read_text())
ANIMATEDIFF = [{"motion_module": "mm.ckpt", "prompt": ["a"], "n_prompt": [""], "steps": 2, "guidance_scale": 1}]
MAGIC_ANIMATE = {"motion_module": "mm.ckpt", "source_image": ["a.png"], "video_path": ["a.mp4"], "steps": 25, "L": 16}


@pytest.mark.parametrize(("content", "system"), [(MAGI1, "magi1"), (ANIMATEDIFF, "animatediff")])
@pytest.mark.parametrize("suffix", ["json", "yaml", "yml"])
def test_the_system_of_a_configuration_file(tmp_path, content, system, suffix):
    file = tmp_path / f"config.{suffix}"
    file.write_text(json.dumps(content) if suffix == "json" else yaml.safe_dump(content))
    assert requests.system_of(str(file)).name == system


def test_a_configuration_of_a_system_that_is_not_here(tmp_path):
    file = tmp_path / "animation.yaml"
    file.write_text(yaml.safe_dump(MAGIC_ANIMATE))
    with pytest.raises(InputError, match="no configuration that is known; known are those of magi1, animatediff"):
        requests.build_request("a ball", str(file))
