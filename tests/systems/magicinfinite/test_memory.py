"""The memory of MagicInfinite's videos is predicted, and a model of the published size needs no weights for it."""

import pytest
import torch
from talking_models import mask, picture, sound, talking_pipeline

from animagic import InputError, MagicInfinitePipeline
from animagic.doctor import predict
from animagic.pipelines.memory import Fit, Predictor, Techniques, load_fitting
from animagic.pipelines.meta import LiveBytes
from animagic.zoo import networks_of


@pytest.fixture(scope="module")
def pipe(tiny_text_encoder):
    return talking_pipeline(tiny_text_encoder)


@pytest.fixture(scope="module")
def model(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "talking"
    pipe.save_pretrained(folder)
    return str(folder)


def run(pipe, frames, output_type, **settings):
    """Bytes that the tensors of a run hold at most."""
    given = {"image": picture(), "voices": [sound(0.5)], "masks": [mask()], "num_frames": frames}
    # Its portrait and its voice are encoded before.
    voice = pipe.listen(given["voices"][0], 25)
    with LiveBytes("cpu") as counter:
        for _ in pipe.stream("a red ball", **given | {"voices": [voice]}, output_type=output_type, **settings):
            pass
    return counter.peak


@pytest.mark.parametrize("frames", [5, 13, 61])
def test_a_run_takes_what_was_predicted(pipe, model, frames):
    prediction = Predictor(networks_of(model, torch.float32), "cuda", frames=frames).predict(Techniques())
    for output_type, stages in (("latent", ("denoise",)), ("pt", ("denoise", "decode"))):
        taken = run(pipe, frames, output_type)
        expected = max(prediction.stages[stage]["activations"] for stage in stages)
        assert 0.95 * taken <= expected <= 1.2 * taken, output_type


def test_the_doctor_knows_it(model):
    found = predict(model, 64, 64, 13, device="cpu")
    assert (found["frames"], found["width"]) == (13, 64)
    assert {"transformer", "autoencoder", "text encoder"} <= set(found["stages"]["denoise"])


def test_every_part_comes_when_it_is_needed(pipe, model):
    predictor = Predictor(networks_of(model, torch.float32), "cpu", frames=5)
    techniques = Techniques(offload="leaf")
    fitted = Fit(predictor.networks, 10**9, techniques, predictor.predict())
    loaded = load_fitting(fitted, lambda: MagicInfinitePipeline.from_pretrained(model), "cpu", [])
    parts = [part for part in loaded.components.values() if isinstance(part, torch.nn.Module)]
    assert len(parts) == 3
    assert all(any(hasattr(layer, "_diffusers_hook") for layer in part.modules()) for part in parts)


def test_what_it_cannot_make_is_refused(model):
    with pytest.raises(InputError, match="multiples of 16"):
        Predictor(networks_of(model, torch.float32), "cpu", 24, 48)


def test_the_published_size_needs_no_weights():
    networks = networks_of("magicinfinite-13b", torch.bfloat16)
    assert 26.5e9 < sum(p.nbytes for p in networks.parts["transformer"].parameters()) < 27.5e9
    short, long = (
        Predictor(networks, "cuda", 544, 544, frames).predict(Techniques()).stages["denoise"]["activations"]
        for frames in (129, 513)
    )
    assert short < 10e9
    # What grows are the latents.
    assert long - short < 3 * 4 * 16 * 68 * 68 * 4 * (512 - 128) / 4 + 1e6
