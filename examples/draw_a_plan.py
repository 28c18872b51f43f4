"""Which frames are denoised together, at which noise level, in which order; as a picture, without any network."""

from pathlib import Path

from animagic import OverlappingWindows, Staircase, WholeClip
from animagic.timeline.drawing import draw_plan

Path("out").mkdir(exist_ok=True)
for name, plan in {
    "staircase": Staircase(num_chunks=4, num_steps=16),
    "picture-first": Staircase(num_chunks=4, num_steps=16, prefix_frames=1),
    "windows": OverlappingWindows(num_frames=48, num_steps=8),
    "loop": OverlappingWindows(num_frames=48, num_steps=8, closed_loop=True),
    "whole": WholeClip(num_frames=24, num_steps=16),
}.items():
    draw_plan(plan).save(f"out/plan-{name}.png")
    print(f"out/plan-{name}.png: {plan.describe()}")
first = next(plan.steps())
print("the first step of the last one:", first)
