"""The small autoencoder that small models share."""

import pytest
import torch

import animagic
from animagic.errors import InputError
from animagic.layers.autoencoder import ConvAutoencoder
from animagic.training.autoencoding import ReconstructionObjective

SMALL = {"latent_channels": 5, "widths": (16, 8, 8)}


def video(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ConvAutoencoder(**SMALL)


@torch.no_grad()
def test_shapes_of_video(model):
    latents = model.encode(video(2, 3, 8, 16, 24)).latent_dist.mode()
    assert latents.shape == (2, 5, 2, 2, 3)
    assert model.decode(latents).sample.shape == (2, 3, 8, 16, 24)
    assert model(video(2, 3, 8, 16, 24)).sample.shape == (2, 3, 8, 16, 24)


@torch.no_grad()
def test_a_picture_is_one_latent_frame(model):
    picture = video(1, 3, 1, 16, 16)
    latents = model.encode(picture).latent_dist.mode()
    assert torch.equal(latents, model.encode(picture.expand(-1, -1, 4, -1, -1)).latent_dist.mode())
    assert model.decode(latents).sample.shape == (1, 3, 1, 16, 16)
    assert model.decode(latents, whole=True).sample.shape == (1, 3, 4, 16, 16)


@torch.no_grad()
def test_latent_frames_are_decoded_each_for_itself(model):
    latents = torch.randn(1, 5, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    together = model.decode(latents).sample
    apart = torch.cat([model.decode(one, whole=True).sample for one in latents.split(1, dim=2)], dim=2)
    torch.testing.assert_close(together, apart)


@torch.no_grad()
def test_pictures_without_time():
    model = ConvAutoencoder(patch_length=1, **SMALL)
    latents = model.encode(video(2, 3, 16, 24)).latent_dist.mode()
    assert latents.shape == (2, 5, 2, 3)
    assert model.decode(latents).sample.shape == (2, 3, 16, 24)


@pytest.mark.parametrize("shape", [(1, 3, 6, 16, 16), (1, 3, 4, 12, 16), (3, 16, 16), (1, 4, 4, 16, 16)])
def test_other_sizes_are_refused(model, shape):
    with pytest.raises(InputError):
        model.encode(torch.zeros(shape))


def test_other_latents_are_refused(model):
    with pytest.raises(InputError, match="5, frames"):
        model.decode(torch.zeros(1, 4, 1, 2, 2))


@torch.no_grad()
def test_tiles_make_nearly_the_same(model):
    # Norms see a tile for themselves: only where nothing varies is it exactly the same.
    latents = torch.ones(1, 5, 2, 8, 8)
    whole = model.decode(latents).sample
    model.enable_tiling(32, 32)
    tiles = model.decode(latents).sample
    assert tiles.shape == whole.shape
    assert (tiles - whole).abs().mean() < 0.5 * whole.std()
    assert model.encode(video(1, 3, 8, 48, 40)).latent_dist.mode().shape == (1, 5, 2, 6, 5)
    with pytest.raises(InputError, match="tile_height"):
        model.enable_tiling(30)
    with pytest.raises(InputError, match="overlap"):
        model.enable_tiling(overlap=0.6)


@torch.no_grad()
def test_it_is_loaded_by_its_name(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = animagic.AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is ConvAutoencoder
    x = video(1, 3, 4, 16, 16)
    assert torch.equal(loaded(x).sample, model(x).sample)


def test_it_learns_and_forgives_noise(model):
    objective, optimiser = ReconstructionObjective(latent_noise=0.3), torch.optim.AdamW(model.parameters(), 1e-2)
    colours = torch.tensor([[250, 20, 20], [20, 20, 250]], dtype=torch.uint8)
    batch = {"video": colours[:, :, None, None, None].expand(-1, -1, 4, 16, 16)}
    generator, psnr = torch.Generator().manual_seed(0), []
    for _ in range(60):
        loss, figures = objective(model, batch, generator)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        psnr.append(figures["psnr"])
    assert psnr[-1] > psnr[0] + 10
