"""A portrait that speaks: with a voice file (--voice), or with a text that espeak-ng or flite reads (--text)."""

import argparse
from pathlib import Path

import animagic
from animagic.media import read_image
from animagic.media.sound import Sound
from animagic.pipelines.voices import Say, read_voice

HERE = Path(__file__).resolve().parents[1]
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--portrait", default=HERE / "docs" / "assets" / "portrait.png", help="a picture of somebody")
parser.add_argument("--voice", help="any sound or video file")
parser.add_argument("--text", default="Hello, nice to see you.", help="what to say, without --voice")
parser.add_argument("--prompt", default="smiling", help="how they look and move")
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
args = parser.parse_args()
samples = read_voice(args.voice or Say(args.text))  # 16 kHz, at one loudness
pipe = animagic.load("magicinfinite-tiny")
out = pipe(args.prompt, image=read_image(args.portrait), voices=[samples], num_inference_steps=args.steps)
Path("out").mkdir(exist_ok=True)
print(out.save("out/talk.mp4", sound=Sound(samples, 16_000)))
