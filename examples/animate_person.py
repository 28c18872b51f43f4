"""A person in a picture who moves as somebody in a video. Without --photo and --video, the studio draws both."""

import argparse
from pathlib import Path

import animagic
from animagic.media import beside, read_image, read_video, resize
from animagic.media.outputs import to_bytes
from animagic.poses import draw_parts, extract_poses, retargeted, smoothed
from animagic.synthetic.people import render_person, sample_motion, sample_person, sample_view

parser = argparse.ArgumentParser(description=__doc__)
for name, what in (("--photo", "a picture of a person"), ("--video", "a video of somebody who moves")):
    parser.add_argument(name, help=what)
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
args = parser.parse_args()
view = sample_view(3, "full")
drawn = [render_person(sample_person(seed), sample_motion(1), view, 24, 256, 256, 12).frames for seed in (5, 1)]
photo = resize(read_image(args.photo) if args.photo else drawn[0][0], 256, 256)
frames = read_video(args.video, max_frames=24).frames if args.video else drawn[1]
poses = draw_parts(retargeted(smoothed(extract_poses(frames, 12)), extract_poses([photo], 1)), 128, 128)
out = animagic.load("magicanimate-tiny")(image=photo, video=poses, num_inference_steps=args.steps)
out.frames[0] = beside(resize(photo, 128, 128), poses, to_bytes(out.frames[0])) / 255
Path("out").mkdir(exist_ok=True)
print(out.save("out/animate_person.mp4"))
