"""A style from ten pictures: a LoRA of the text-to-image model, trained on drawings like blueprints, and animated."""

import argparse
from pathlib import Path

import numpy as np

import animagic
from animagic.media import write_image
from animagic.synthetic import picture_caption, render, sample_scene
from animagic.synthetic.styles import apply_style
from animagic.training.personalization import Personalization, personalize

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=400, help="training steps")
steps, pictures, rng = parser.parse_args().steps, Path("out/blueprints"), np.random.default_rng(0)
pictures.mkdir(parents=True)
for i, scene in enumerate(sample_scene(rng) for _ in range(10)):
    write_image(pictures / f"{i}.png", apply_style("blueprint", render(scene, 1, 64, 64))[0])
    (pictures / f"{i}.txt").write_text(f"a blueprint of {picture_caption(scene, rng)}")
settings = Personalization(pictures, steps=steps, batch_size=4, learning_rate=2e-3, max_snr_weight=5)
pipe = animagic.load("animatediff-tiny")
pipe.load_lora_weights(personalize(settings, animagic.zoo.resolve("animatediff-tiny"), "out/blueprint.safetensors"))
pipe(prompt="a blueprint of a red ball").save("out/personalize.mp4")
