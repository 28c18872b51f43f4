"""The memory of MagicAnimate's videos is predicted, and does not grow with their length."""

import pytest
import torch
from models import given, tiny_model

from animagic import InputError, MagicAnimatePipeline
from animagic.doctor import predict
from animagic.pipelines.memory import Predictor, Techniques
from animagic.pipelines.meta import LiveBytes
from animagic.zoo import networks_of


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory.mktemp("models") / "animated"))


def run(pipe, frames: int, **settings) -> int:
    """Bytes that the tensors of a run hold at most."""
    arguments = {"num_inference_steps": 1, "generator": torch.Generator().manual_seed(1), **given(frames), **settings}
    with LiveBytes("cpu") as counter:
        for _ in pipe.stream(**arguments):
            pass
    return counter.peak


@pytest.mark.parametrize("frames", [5, 8, 20])
def test_a_run_takes_what_was_predicted(model, frames):
    prediction = Predictor(networks_of(model, torch.float32), "cuda", frames=frames, steps=1).predict(Techniques())
    pipe = MagicAnimatePipeline.from_pretrained(model)
    for output_type, stages in (("latent", ("denoise",)), ("pt", ("denoise", "decode"))):
        taken = run(pipe, frames, output_type=output_type)
        expected = max(prediction.stages[stage]["activations"] for stage in stages)
        assert taken <= expected <= 1.3 * taken, output_type


def test_a_longer_video_takes_no_more_beside_its_latents(model):
    pipe = MagicAnimatePipeline.from_pretrained(model)
    latent = 4 * 4 * 4 * 4  # bytes of one frame's
    short, long = (run(pipe, frames, output_type="latent") - 10 * latent * frames for frames in (32, 100))
    assert long <= 1.05 * short


def test_the_doctor_knows_it(model):
    found = predict(model, 64, 64, 12, device="cpu")
    assert (found["frames"], found["width"]) == (12, 64)
    assert {"unet", "appearance encoder", "controlnet", "autoencoder"} <= set(found["stages"]["denoise"])


def test_what_it_cannot_make_is_refused(model):
    with pytest.raises(InputError, match="multiples of 8"):
        Predictor(networks_of(model, torch.float32), "cpu", 33, 48)
