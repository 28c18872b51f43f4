"""The windows of the "uniform" scheduler, index for index."""

import json

from goldens import golden_path

from animagic.timeline import OverlappingWindows, uniform_windows


def test_uniform_windows_are_those_of_the_original():
    goldens = json.loads(golden_path("magicanimate", "windows_uniform.json").read_text())
    assert len(goldens) == 486
    for name, expected in goldens.items():
        arguments = {key: int(value) for key, value in (part.split("=") for part in name.split(","))}
        num_frames = arguments.pop("frames")
        assert uniform_windows(num_frames, **arguments) == expected, name
        if arguments.pop("step") == 0:
            plan = OverlappingWindows(num_frames, 3, **arguments, closed_loop=True, moving=False)
            for step in plan.steps():
                assert [list(window.frames) for window in step.windows] == expected, name
