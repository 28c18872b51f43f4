"""A run that is interrupted and goes on later: the frames are those of a run that never stopped."""

import argparse

import torch

import animagic
from animagic.timeline import RunFolder

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=32)
pipe, steps = animagic.load("magi1-tiny"), parser.parse_args().steps
story = {"prompt": "a pink heart grows on a blue floor", "num_frames": 48, "num_inference_steps": steps}


def run(kept=None, stop_after=None):
    settings = {"generator": torch.Generator().manual_seed(3), "output_type": "pt", "resume": kept}
    stop = lambda progress: setattr(pipe, "interrupt", progress.step == stop_after)  # noqa: E731
    return [chunk.frames[0] for chunk in pipe.stream(**story, **settings, on_progress=stop)]


kept = RunFolder("out/resume", story, every=0)  # every: seconds between saves
print("interrupted with", len(run(kept, stop_after=steps)), "of 2 chunks")
print("the same frames:", torch.equal(torch.cat(run(kept)), torch.cat(run())))
kept.remove()
