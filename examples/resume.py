"""A run that is interrupted and goes on later: the frames are those of a run that never stopped."""

import argparse
from pathlib import Path

import numpy as np
import torch

import animagic
from animagic.timeline import RunFolder

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=32)
args = parser.parse_args()
pipe, story = animagic.load("magi1-tiny"), {"prompt": "a pink heart grows on a blue floor", "num_frames": 48}


def run(folder, on_progress=None):
    kept = RunFolder(folder, story, every=0) if folder else None  # every: seconds between saves
    seed = torch.Generator().manual_seed(3)
    settings = {"num_inference_steps": args.steps, "generator": seed, "output_type": "np", "on_progress": on_progress}
    return np.concatenate([chunk.frames[0] for chunk in pipe.stream(**story, **settings, resume=kept)])
