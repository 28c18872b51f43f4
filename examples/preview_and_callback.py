"""Watch a video while it is made (out/preview.png), follow its steps, and stop early."""

import argparse
from pathlib import Path

import animagic
from animagic.media import contact_sheet, write_image

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
parser.add_argument("--stop-after", type=int, help="end the run after so many steps")
args = parser.parse_args()


def after_step(pipe, step, timestep, tensors):
    print(f"step {step + 1}: time {timestep / 1000:.3f}, latents {tuple(tensors['latents'].shape)}")
    pipe.interrupt = step + 1 == args.stop_after
    return {}  # or {"latents": other_latents}


Path("out").mkdir(exist_ok=True)
preview = lambda decode: write_image("out/preview.png", contact_sheet(decode()))  # noqa: E731
settings = {"num_inference_steps": args.steps, "callback_on_step_end": after_step, "on_preview": preview}
for chunk in animagic.load("magi1-tiny").stream("a yellow star spins at night", num_frames=24, **settings):
    print(f"{len(chunk)} frames are final")
