"""A first and a last picture, and the video between them: a SparseCtrl network, trained on drawings, keeps to both."""

import argparse

import numpy as np

import animagic
from animagic.synthetic import caption, render, sample_scene
from animagic.systems.animatediff.sparse import SparseControlNet
from animagic.systems.animatediff.sparse_training import SparseControlObjective
from animagic.systems.animatediff.training import SceneClips
from animagic.training import Trainer, TrainingConfig

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500, help="training steps")
steps, rng, pipe = parser.parse_args().steps, np.random.default_rng(7), animagic.load("animatediff-tiny")
network = SparseControlNet.from_unet(pipe.unet, conditioning_channels=4, use_simplified_condition_embedding=True)
frozen = {"autoencoder": pipe.vae, "text_encoder": pipe.text_encoder, "tokenizer": pipe.tokenizer, "unet": pipe.unet}
objective = SparseControlObjective(**frozen, scheduler_config=dict(pipe.scheduler.config))
trained = Trainer(network, objective, SceneClips(0, steps), TrainingConfig(steps, 3e-4), "out/sparse", print).run()
trained.save_pretrained("out/sparse/network")  # for --controlnet
scene = sample_scene(rng, "test")
drawn = render(scene, 16, 64, 64, fps=8)
two = {"control_images": [drawn[0], drawn[15]], "control_indexes": [0, 15]}
pipe(caption(scene, rng), sparse_controlnet=trained, num_frames=16, **two).save("out/sparse_control.mp4")
