"""A long video, written while it is made; memory stays that of a few chunks. Chunks that are done can be watched."""

import argparse
from pathlib import Path

import animagic
from animagic.media import FragmentedMp4

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--prompt", default="a white boat slides right on the sea")
parser.add_argument("--frames", type=int, default=240)
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
args = parser.parse_args()

pipe = animagic.load("magi1-tiny")
Path("out").mkdir(exist_ok=True)
