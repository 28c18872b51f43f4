"""MagicInfinite's transformer: HunyuanVideo's numbers where nothing is new, and what portrait, voices and levels do."""

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel

from animagic.errors import InputError
from animagic.systems.magicinfinite.transformer import MagicInfiniteTransformer3DModel

SHAPE = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "num_single_layers": 3,
    "num_refiner_layers": 1,
    "text_embed_dim": 12,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (4, 6, 6),
}
AUDIO = {"audio_layers": 3, "audio_channels": 10, "audio_tokens": 5}


def random_weights(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return network.eval()


def inputs(frames=3, channels=9, batch=2, seed=1):
    draw = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, 6)
    mask[0, 4:] = 0
    return {
        "hidden_states": torch.randn(batch, channels, frames, 4, 6, generator=draw),
        "timestep": torch.tensor([300.0, 800.0])[:batch],
        "encoder_hidden_states": torch.randn(batch, 6, 12, generator=draw),
        "encoder_attention_mask": mask[:batch],
        "pooled_projections": torch.randn(batch, 8, generator=draw),
        "guidance": torch.full((batch,), 6000.0),
    }


def voices(speakers=2, frames=3, batch=2):
    draw = torch.Generator().manual_seed(7)
    masks = torch.zeros(batch, speakers, frames, 4, 6)
    for speaker in range(speakers):
        masks[:, speaker, :, :2, 2 * speaker : 2 * speaker + 2] = 1
    return {"speech": torch.randn(batch, speakers, frames, 8, 3, 10, generator=draw), "masks": masks}


@torch.no_grad()
def test_it_is_hunyuan_video_where_nothing_is_known_or_heard():
    theirs = random_weights(HunyuanVideoTransformer3DModel(**SHAPE))
    ours = random_weights(MagicInfiniteTransformer3DModel(**SHAPE, **AUDIO), seed=3)
    state = theirs.state_dict()
    patches = ours.x_embedder.proj.weight.detach().clone()
    patches[:, :4] = state["x_embedder.proj.weight"]
    missing, unexpected = ours.load_state_dict(state | {"x_embedder.proj.weight": patches}, strict=False)
    assert not unexpected
    assert all(name.startswith(("audio_", "portrait_")) for name in missing)
    given = inputs(channels=4)
    expected = theirs(**given).sample
    torch.testing.assert_close(ours(**given).sample, expected, rtol=1e-5, atol=1e-5)
    spread = given | {"timestep": given["timestep"][:, None].expand(-1, 3)}
    torch.testing.assert_close(ours(**spread).sample, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_voices_act_in_their_faces_alone_and_not_before_training():
    torch.manual_seed(0)
    network = MagicInfiniteTransformer3DModel(**SHAPE, **AUDIO).eval()
    given, heard = inputs(), voices()
    torch.testing.assert_close(network(**given, **heard).sample, network(**given).sample)
    network = random_weights(network)
    nowhere = heard | {"masks": torch.zeros_like(heard["masks"])}
    torch.testing.assert_close(network(**given, **nowhere).sample, network(**given).sample)
    assert not torch.allclose(network(**given, **heard).sample, network(**given).sample, atol=1e-3)
    # With voices after the last block alone, nothing carries them out of the faces.
    last = random_weights(MagicInfiniteTransformer3DModel(**SHAPE, **AUDIO, num_audio_layers=1))
    changed = (last(**given, **heard).sample - last(**given).sample).abs().amax((0, 1, 2))
    assert changed[:2, :4].min() > 1e-4
    assert changed[2:].max() < 1e-6
    assert changed[:, 4:].max() < 1e-6


@torch.no_grad()
def test_a_voice_acts_in_its_own_latent_frame_and_speakers_add_up():
    last = random_weights(MagicInfiniteTransformer3DModel(**SHAPE, **AUDIO, num_audio_layers=1))
    given, heard = inputs(), voices()
    other = heard["speech"].clone()
    other[:, :, 1] += 1
    moved = (last(**given, **heard | {"speech": other}).sample - last(**given, **heard).sample).abs().amax((0, 1, 3, 4))
    assert moved[1] > 1e-3
    assert moved[0] < 1e-6
    assert moved[2] < 1e-6
    swapped = {name: value.flip(1) for name, value in heard.items()}
    torch.testing.assert_close(last(**given, **swapped).sample, last(**given, **heard).sample, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_every_frame_has_its_own_level():
    network = random_weights(MagicInfiniteTransformer3DModel(**SHAPE, **AUDIO))
    given = inputs()
    levels = torch.tensor([[0.0, 500.0, 1000.0], [0.0, 250.0, 800.0]])
    made = network(**given | {"timestep": levels}).sample
    assert made.shape == (2, 4, 3, 4, 6)
    assert made.isfinite().all()
    assert not torch.allclose(made, network(**given | {"timestep": levels.mean(1)}).sample, atol=1e-3)


@torch.no_grad()
def test_a_portrait_is_read_beside_the_text():
    network = random_weights(MagicInfiniteTransformer3DModel(**SHAPE, **AUDIO, portrait_patch=2))
    given, portrait = inputs(), torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(2))
    assert not torch.allclose(network(**given, portrait=portrait).sample, network(**given).sample, atol=1e-3)


@torch.no_grad()
def test_what_is_heard_counts_beside_channels_that_stand_far_from_zero():
    """Features with a large part that never changes: tokens must still tell what is said."""
    torch.manual_seed(0)
    projector = MagicInfiniteTransformer3DModel(**SHAPE, **AUDIO).audio_projector
    speech = torch.randn(64, 8, 3, 10) * 0.1 + 5 * torch.randn(3, 10)
    before = projector(speech).std(0).mean()
    projector.measure(speech)
    assert projector(speech).std(0).mean() > 3 * before
    torch.testing.assert_close(projector.mean, speech.flatten(0, 1).mean(0))


def test_gradients_reach_everything_and_checkpointing_changes_nothing():
    network = random_weights(MagicInfiniteTransformer3DModel(**SHAPE, **AUDIO, portrait_patch=2))
    portrait = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(2))

    def gradients():
        network.zero_grad()
        network(**inputs(), **voices(), portrait=portrait).sample.square().mean().backward()
        return {name: p.grad for name, p in network.named_parameters()}

    plain = gradients()
    # The text has no part in the output after the last block that reads it.
    assert all(gradient is not None for gradient in plain.values())
    network.enable_gradient_checkpointing()
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_beyond_the_best_linear_guess():
    """A network that says nothing gives the best linear guess of the velocity, with errors of the size that it says."""
    network = MagicInfiniteTransformer3DModel(**SHAPE, **AUDIO, prior_variance=0.25).eval()
    torch.nn.init.zeros_(network.proj_out.weight)
    torch.nn.init.zeros_(network.proj_out.bias)
    draw = torch.Generator().manual_seed(0)
    known, noise, difference = (torch.randn(2, 4, 3, 32, 32, generator=draw) for _ in range(3))
    clean = known + 0.5 * difference
    for sigma in (0.0, 0.1, 0.4, 0.9, 1.0):
        noisy = (1 - sigma) * clean + sigma * noise
        rest = {**inputs(), "hidden_states": torch.cat([noisy, known, torch.ones_like(noisy[:, :1])], 1)}
        guess = network(**rest | {"timestep": torch.full((2,), 1000 * sigma)}).sample
        error = noise - clean - guess
        expected = 0.25 / (0.25 * (1 - sigma) ** 2 + sigma**2)
        assert error.square().mean() == pytest.approx(expected, rel=0.05)
        # What is left has nothing to do with what went in.
        assert abs((error * noisy).mean()) < 0.03
        assert abs((error * known).mean()) < 0.03


def test_it_is_kept_and_read(tmp_path):
    network = MagicInfiniteTransformer3DModel(**SHAPE, **AUDIO)
    network.save_pretrained(tmp_path)
    again = MagicInfiniteTransformer3DModel.from_pretrained(tmp_path)
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="num_audio_layers is 4"):
        MagicInfiniteTransformer3DModel(**SHAPE, num_audio_layers=4)
    with pytest.raises(InputError, match="patch_size_t"):
        MagicInfiniteTransformer3DModel(**SHAPE, patch_size_t=2)
