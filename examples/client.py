"""A server makes the video: `animagic serve` in another terminal first. Written while it is made, then downloaded."""

import argparse
from pathlib import Path

import animagic

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--url", help="of the server (default: $ANIMAGIC_URL, or this machine)")
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
args = parser.parse_args()
Path("out").mkdir(exist_ok=True)
options = {} if args.steps is None else {"steps": args.steps}
with animagic.Client(args.url) as client:
    video = client.generate("a red ball bounces", "magi1-tiny", frames=48, seed=7, wait=False, **options)
    with Path("out/client-stream.mp4").open("wb") as file:
        for piece in client.stream(video):
            file.write(piece)
            print(len(piece), "bytes")
    print(client.wait(video).progress, "%", client.download(video, "out/client.mp4"))
