"""What stands in for ComfyUI: `comfy_api.latest`, `folder_paths` and `comfy.model_management`, as far as the nodes use
them. The parameters are those of ComfyUI, so that a wrong one is an error here, too."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

NODES = Path(__file__).resolve().parents[2] / "integrations" / "comfyui"
_COMMON = "display_name optional tooltip lazy extra_dict raw_link advanced"
_WIDGET = f"{_COMMON} default socketless"
_PARAMETERS = {
    "BOOLEAN": f"{_WIDGET} label_on label_off force_input",
    "INT": f"{_WIDGET} min max step control_after_generate display_mode force_input",
    "FLOAT": f"{_WIDGET} min max step round display_mode gradient_stops force_input",
    "STRING": f"{_WIDGET} multiline placeholder dynamic_prompts force_input",
    "COMBO": f"{_WIDGET} options control_after_generate upload image_folder remote remote_combo",
}


def _type(io_type: str) -> SimpleNamespace:
    known = _PARAMETERS.get(io_type, _COMMON).split()

    class Input:
        def __init__(self, id: str, **about):
            assert set(about) <= set(known), f"{io_type} has no {set(about) - set(known)}"
            self.id, self.io_type = id, io_type
            self.about = about | (about.get("extra_dict") or {})

        def as_dict(self) -> dict:
            return {name: value for name, value in self.about.items() if value is not None}

    class Output:
        def __init__(self, id: str | None = None, display_name=None, tooltip=None, is_output_list=False):
            self.io_type, self.display_name = io_type, display_name

    return SimpleNamespace(Input=Input, Output=Output)


@dataclass
class Schema:
    node_id: str
    category: str
    display_name: str
    inputs: list
    outputs: list
    hidden: list = field(default_factory=list)
    is_output_node: bool = False


class NodeOutput:
    def __init__(self, *args, ui=None):
        self.args, self.ui = args, ui


class ComfyNode:
    hidden = SimpleNamespace(unique_id="7")


class VideoFromFile:
    def __init__(self, file: str):
        self.file = file

    def save_to(self, path: str) -> None:
        Path(path).write_bytes(Path(self.file).read_bytes())


@dataclass
class Comfy:
    """What the nodes said to ComfyUI. interrupt: after which step somebody presses "cancel"."""

    temp: Path
    progress: list[dict] = field(default_factory=list)
    interrupt: int | None = None

    def set_progress(self, value, max_value, node_id=None, preview_image=None, ignore_size_limit=False) -> None:
        assert preview_image is None or isinstance(preview_image, Image.Image)
        self.progress.append({"value": value, "max": max_value, "node": node_id, "picture": preview_image})

    def throw_exception_if_processing_interrupted(self) -> None:
        if self.interrupt is not None and len(self.progress) >= self.interrupt:
            raise InterruptedError

    def modules(self) -> dict[str, ModuleType]:
        kinds = {name.title(): _type(name) for name in (*_PARAMETERS, "IMAGE", "VIDEO", "AUDIO", "MASK")}
        io = SimpleNamespace(
            **kinds, Custom=_type, Schema=Schema, NodeOutput=NodeOutput, ComfyNode=ComfyNode,
            Hidden=SimpleNamespace(unique_id="UNIQUE_ID"),
        )  # fmt: skip
        ui = SimpleNamespace(PreviewImage=lambda image, animated=False, cls=None: {"images": len(image)})
        api = SimpleNamespace(execution=SimpleNamespace(set_progress=self.set_progress))
        latest = {
            "io": io, "ui": ui, "ComfyAPISync": lambda: api, "ComfyExtension": object,
            "InputImpl": SimpleNamespace(VideoFromFile=VideoFromFile),
        }  # fmt: skip
        management = {
            "throw_exception_if_processing_interrupted": self.throw_exception_if_processing_interrupted,
        }
        return {
            "comfy_api": _module("comfy_api"),
            "comfy_api.latest": _module("comfy_api.latest", **latest),
            "comfy": _module("comfy"),
            "comfy.model_management": _module("comfy.model_management", **management),
            "folder_paths": _module("folder_paths", get_temp_directory=lambda: str(self.temp)),
        }


def _module(name: str, **values) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(values)
    return module


@pytest.fixture
def load_nodes():
    """Loads the package as ComfyUI does, from its folder, under a name of its own; returns its nodes."""

    async def listed() -> list:
        spec = importlib.util.spec_from_file_location(
            "animagic_nodes", NODES / "__init__.py", submodule_search_locations=[str(NODES)]
        )
        package = sys.modules["animagic_nodes"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(package)
        return await (await package.comfy_entrypoint()).get_node_list()

    yield lambda: asyncio.run(listed())
    for name in [name for name in sys.modules if name.split(".")[0] == "animagic_nodes"]:
        del sys.modules[name]


@pytest.fixture
def comfy(tmp_path, monkeypatch):
    """The stand-in, in place of ComfyUI's modules; they go again with the test."""
    stand_in = Comfy(tmp_path / "temp")
    for name, module in stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return stand_in


@pytest.fixture
def nodes(comfy, load_nodes):
    """The nodes by their ids."""
    return {node.define_schema().node_id: node for node in load_nodes()}


@pytest.fixture
def picture():
    """An IMAGE of ComfyUI."""
    import torch

    ramp = np.linspace(0, 1, 48, dtype=np.float32)
    return torch.from_numpy(np.broadcast_to(ramp[:, None], (1, 32, 48, 3)).copy())
