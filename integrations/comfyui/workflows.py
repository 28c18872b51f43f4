"""Builds the example workflows, so that they keep in step with the nodes, whose widgets are the options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Step = tuple[str, dict[str, Any], dict[str, tuple[int, int]]]
"""A node: its type, values of its widgets, and input -> (number of the node before it, its output)."""

WORKFLOWS: dict[str, list[Step]] = {
    "text_to_video": [
        ("AnimagicLoad", {"name": "magi1-tiny"}, {}),
        ("AnimagicStreamPreview", {}, {}),
        (
            "AnimagicMagi1",
            {"prompt": "a red ball bounces", "frames": 96, "seed": 7, "prompts_at": "2: it rolls to the left"},
            {"model": (0, 0), "preview": (1, 0)},
        ),
        ("AnimagicPlan", {"frames": 96}, {"model": (0, 0)}),
        ("SaveVideo", {"filename_prefix": "video/animagic", "format": "auto", "codec": "auto"}, {"video": (2, 0)}),
    ],
    "talking_portrait": [
        ("AnimagicLoad", {"name": "magicinfinite-tiny"}, {}),
        ("LoadImage", {"image": "portrait.png", "upload": "image"}, {}),
        ("LoadAudio", {"audio": "voice.wav"}, {}),
        (
            "AnimagicMagicinfinite",
            {"prompt": "smiling, nodding", "seed": 7},
            {"model": (0, 0), "image": (1, 0), "audio": (2, 0)},
        ),
        ("SaveVideo", {"filename_prefix": "video/animagic", "format": "auto", "codec": "auto"}, {"video": (3, 0)}),
    ],
}
OTHERS = {
    "SaveVideo": ([("video", "VIDEO")], []),
    "LoadImage": ([], [("IMAGE", "IMAGE"), ("MASK", "MASK")]),
    "LoadAudio": ([], [("AUDIO", "AUDIO")]),
}
"""Nodes of ComfyUI: sockets, outputs."""
_WIDTH = 400


def build(name: str, nodes: Mapping[str, Any]) -> dict[str, Any]:
    """A workflow as ComfyUI's front end stores it. nodes: ours, by their ids."""
    made: list[dict[str, Any]] = []
    links: list[list[Any]] = []
    for number, (kind, values, connected) in enumerate(WORKFLOWS[name]):
        sockets, widgets, outputs = _faces(kind, values, nodes)
        node = {
            "id": number + 1,
            "type": kind,
            "pos": [number * (_WIDTH + 60), 80 if number % 2 else 0],
            "size": [_WIDTH, 120 + 26 * len(widgets)],
            "flags": {},
            "order": number,
            "mode": 0,
            "inputs": [{"name": socket, "type": type_, "link": None} for socket, type_ in sockets],
            "outputs": [{"name": output, "type": type_, "links": []} for output, type_ in outputs],
            "properties": {"Node name for S&R": kind},
            "widgets_values": widgets,
        }
        for place, socket in enumerate(node["inputs"]):
            if socket["name"] in connected:
                source, output = connected[socket["name"]]
                given = made[source]["outputs"][output]
                socket["link"] = len(links) + 1
                given["links"].append(socket["link"])
                links.append([socket["link"], source + 1, output, number + 1, place, given["type"]])
        made.append(node)
    return {
        "last_node_id": len(made),
        "last_link_id": len(links),
        "nodes": made,
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _faces(kind: str, values: dict[str, Any], nodes: Mapping[str, Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Sockets, values of widgets in order, and outputs of a node."""
    if kind in OTHERS:
        return OTHERS[kind][0], list(values.values()), OTHERS[kind][1]
    schema = nodes[kind].define_schema()
    shown = [(one, one.as_dict()) for one in schema.inputs]
    sockets = [(one.id, one.io_type) for one, about in shown if "default" not in about and "options" not in about]
    widgets: list[Any] = []
    for one, about in shown:
        if "default" in about or "options" in about:
            widgets.append(values.get(one.id, about["default"] if "default" in about else about["options"][0]))
            widgets += ["fixed"] if about.get("control_after_generate") else []
    return sockets, widgets, [(output.display_name, output.io_type) for output in schema.outputs]
