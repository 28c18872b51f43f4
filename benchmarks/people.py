"""How fast the studio draws people on one core, and what they look like.

python benchmarks/people.py                     # frames a second, as a table
python benchmarks/people.py --sheet people.jpg  # people, motions and part maps to look at
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from animagic.media import write_image
from animagic.poses import PART_COLOURS
from animagic.synthetic.people import MOTIONS, Movement, render_person, sample_motion, sample_person, sample_view

SIZES = (64, 128, 256)


def frames_a_second(look: str, size: int, people: int, frames: int) -> tuple[float, float]:
    """Frames a second of CPU time in a clip, and milliseconds that a new person and view take before."""
    first, rest = 0.0, 0.0
    for seed in range(people):
        rng = np.random.default_rng(seed)
        what = sample_person(rng, look=look), sample_motion(rng), sample_view(rng)
        times = [time.process_time()]
        for count in (1, frames):
            render_person(*what, count, size, size)
            times.append(time.process_time())
        first, rest = first + times[1] - times[0], rest + times[2] - times[1]
    return people * frames / rest, 1000 * (first / people - rest / (people * frames))


def table(people: int = 24, frames: int = 48) -> str:
    """Both looks at every size, as Markdown."""
    lines = ["| look | size | frames a second | a new person, ms |", "|---|---|---|---|"]
    for look in ("body", "drawing"):
        frames_a_second(look, 64, 1, 1)  # loads what is baked
        for size in SIZES:
            speed, first = frames_a_second(look, size, people, frames)
            lines.append(f"| {look} | {size} x {size} | {speed:.0f} | {first:.0f} |")
    return "\n".join(lines)


def sheet(columns: int = 12, size: int = 128) -> np.ndarray:
    """Rows of people, of their part maps, and of motions frame by frame: uint8 (height, width, 3)."""
    clips = []
    for seed in range(2 * columns):
        rng = np.random.default_rng(seed)
        look, framing = "drawing" if seed % 3 == 2 else "body", "half" if seed % 6 > 3 else "full"
        view = sample_view(rng, framing)
        clips.append(render_person(sample_person(rng, look=look), sample_motion(rng), view, 1, size, size))
    rows = []
    for start in (0, columns):
        row = clips[start : start + columns]
        rows.append(np.concatenate([clip.frames[0] for clip in row], 1))
        rows.append(np.concatenate([PART_COLOURS[clip.parts[0]] for clip in row], 1))
    for index, name in enumerate(("dance_a", "kick", "cartwheel", "squat")):
        assert name in MOTIONS
        person = sample_person(100 + index, look="drawing" if index == 2 else "body")
        clip = render_person(person, Movement(name, name), sample_view(index, "full"), columns, size, size, fps=8)
        rows.append(np.concatenate(list(clip.frames), 1))
    return np.concatenate(rows, 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sheet", help="write a picture here instead")
    options = parser.parse_args()
    if options.sheet:
        write_image(options.sheet, sheet())
    else:
        print(table())
