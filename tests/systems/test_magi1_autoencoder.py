"""MAGI-1's autoencoder beyond parity: files, tiles, the linear path, training, errors."""

import pytest
import torch

from animagic.errors import InputError
from animagic.systems.magi1.autoencoder import AutoencoderKLMagi1, patchify, unpatchify


def tiny(**settings) -> AutoencoderKLMagi1:
    torch.manual_seed(0)
    defaults = {
        "depth": 1,
        "embed_dim": 256,
        "num_heads": 4,
        "mlp_ratio": 1,
        "video_length": 8,
        "video_size": 32,
    }
    return AutoencoderKLMagi1(**{**defaults, **settings})


def video(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def flat_video(rank: int, clips: int = 6) -> torch.Tensor:
    """Clips whose patches all lie in a subspace of that rank, which misses the origin."""
    generator = torch.Generator().manual_seed(2)
    weights, basis = (
        torch.randn(clips * 32, rank, generator=generator),
        torch.randn(rank, 768, generator=generator),
    )
    patches = weights @ basis / rank**0.5 + torch.randn(768, generator=generator)
    return unpatchify(patches.view(clips, 32, 768), (4, 8, 8), (2, 4, 4)).contiguous()


def test_patches_go_there_and_back():
    clip = video(2, 3, 8, 16, 24)
    patches = patchify(clip, (4, 8, 8))
    assert patches.shape == (2, 2 * 2 * 3, 768)
    assert torch.equal(patches[1, 4].view(4, 8, 8, 3), clip[1, :, :4, 8:16, 8:16].permute(1, 2, 3, 0))
    assert torch.equal(unpatchify(patches, (4, 8, 8), (2, 2, 3)), clip)


@pytest.mark.parametrize("settings", [{}, {"linear_path": True, "encoder_depth": 0}])
@torch.no_grad()
def test_saved_and_loaded_it_is_the_same(tmp_path, settings):
    autoencoder, clip = tiny(**settings), video(1, 3, 8, 32, 32)
    autoencoder.save_pretrained(tmp_path)
    loaded = AutoencoderKLMagi1.from_pretrained(tmp_path)
    assert {k: autoencoder.config[k] for k in loaded.config if k != "_name_or_path"} == {
        k: v for k, v in loaded.config.items() if k != "_name_or_path"
    }
    assert torch.equal(loaded(clip).sample, autoencoder(clip).sample)
    frozen = {name for name, parameter in loaded.named_parameters() if not parameter.requires_grad}
    assert all("linear_path" in name for name in frozen)
    assert len(frozen) == (4 if settings else 0)


def test_encoder_depth_is_the_encoders_alone():
    autoencoder = tiny(depth=2, encoder_depth=0)
    assert (len(autoencoder.encoder.blocks), len(autoencoder.decoder.blocks)) == (0, 2)


@torch.no_grad()
def test_one_tile_that_covers_all_changes_nothing():
    autoencoder, clip = tiny(), video(1, 3, 8, 24, 40)
    expected = autoencoder(clip).sample
    autoencoder.enable_tiling(tile_height=24, tile_width=40, tile_frames=8)
    assert torch.equal(autoencoder(clip).sample, expected)
    autoencoder.enable_tiling(tile_height=16, tile_width=16, tile_frames=8)
    assert not torch.allclose(autoencoder(clip).sample, expected)
    autoencoder.disable_tiling()
    assert torch.equal(autoencoder(clip).sample, expected)


@pytest.mark.parametrize("size", [(8, 32, 32), (16, 80, 56), (24, 136, 64), (8, 8, 200), (1, 64, 40)])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.5])
@torch.no_grad()
def test_tiles_of_a_map_that_looks_at_single_patches_join_without_a_seam(size, overlap):
    autoencoder, clip = tiny(linear_path=True), video(1, 3, *size)
    autoencoder.fit_linear_path(flat_video(rank=16))
    latents = autoencoder.encode(clip).latent_dist.mode()
    decoded = autoencoder.decode(latents).sample
    autoencoder.enable_tiling(tile_height=32, tile_width=64, tile_frames=8, overlap=overlap)
    torch.testing.assert_close(autoencoder.encode(clip).latent_dist.mode(), latents)
    torch.testing.assert_close(autoencoder.decode(latents).sample, decoded)


@torch.no_grad()
def test_a_picture_is_one_latent_frame_and_one_frame_again():
    autoencoder, picture = tiny(), video(2, 3, 1, 16, 16)
    latents = autoencoder.encode(picture).latent_dist.mode()
    assert latents.shape == (2, 16, 1, 2, 2)
    assert torch.equal(latents, autoencoder.encode(picture.repeat(1, 1, 4, 1, 1)).latent_dist.mode())
    assert autoencoder.decode(latents).sample.shape == picture.shape


@torch.no_grad()
def test_the_posterior_is_sampled_with_the_given_generator():
    autoencoder, clip = tiny(), video(1, 3, 8, 16, 16)
    first, second = (
        autoencoder(clip, sample_posterior=True, generator=torch.Generator().manual_seed(seed)).sample
        for seed in (3, 3)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, autoencoder(clip).sample)


@pytest.mark.parametrize("exponent", [0, 0.5, 1])
@torch.no_grad()
def test_the_pca_start_reconstructs_video_of_its_rank_exactly(exponent):
    autoencoder, clips = tiny(linear_path=True), flat_video(rank=16)
    kept = autoencoder.fit_linear_path(clips, exponent)
    assert kept == pytest.approx(1)
    distribution = autoencoder.encode(clips).latent_dist
    torch.testing.assert_close(autoencoder.decode(distribution.mode()).sample, clips, atol=2e-5, rtol=0)
    assert distribution.mode().square().mean().item() == pytest.approx(1, abs=1e-3)
    assert distribution.logvar.unique().tolist() == [-6]
    spread = distribution.mode().transpose(0, 1).flatten(1).std(dim=1)
    assert spread.argmax() == 0 or exponent == 1
    if exponent == 1:
        torch.testing.assert_close(spread, torch.ones(16), atol=0.01, rtol=0)


@torch.no_grad()
def test_the_pca_start_is_the_best_projection():
    autoencoder, clips = tiny(linear_path=True), flat_video(rank=40)
    kept = autoencoder.fit_linear_path(clips)
    patches = patchify(clips, (4, 8, 8)).flatten(0, 1)
    singular = torch.linalg.svdvals(patches - patches.mean(dim=0)).square()
    assert kept == pytest.approx((singular[:16].sum() / singular.sum()).item(), rel=1e-4)
    lost = (autoencoder(clips).sample - clips).square().sum()
    assert lost.item() == pytest.approx(singular[16:].sum().item(), rel=1e-4)


@torch.no_grad()
def test_the_pca_of_too_few_dimensions_stays_finite():
    autoencoder, clips = tiny(linear_path=True), flat_video(rank=3)
    autoencoder.fit_linear_path(clips)
    torch.testing.assert_close(autoencoder(clips).sample, clips, atol=2e-5, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_every_weight_but_the_linear_path(checkpointing):
    autoencoder = tiny(linear_path=True).train()
    if checkpointing:
        autoencoder.enable_gradient_checkpointing()
    clip = video(1, 3, 8, 16, 24)
    (autoencoder(clip, sample_posterior=True).sample - clip).square().mean().backward()
    for name, parameter in autoencoder.named_parameters():
        if "linear_path" in name:
            assert parameter.grad is None
        else:
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_training_from_the_pca_start_moves_away_from_it():
    autoencoder, clips = tiny(linear_path=True), flat_video(rank=40)
    autoencoder.fit_linear_path(clips)
    path = {k: v.clone() for k, v in autoencoder.state_dict().items() if "linear_path" in k}
    optimizer = torch.optim.AdamW((p for p in autoencoder.parameters() if p.requires_grad), lr=1e-3)
    losses = []
    with torch.enable_grad():
        for _ in range(10):
            loss = (autoencoder(clips).sample - clips).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(torch.equal(autoencoder.state_dict()[k], v) for k, v in path.items())


@torch.no_grad()
def test_it_stays_in_float32_unless_told_otherwise():
    autoencoder, clip = tiny(linear_path=True), video(1, 3, 8, 16, 16)
    autoencoder.fit_linear_path(clip)
    assert {tensor.dtype for tensor in autoencoder.state_dict().values()} == {torch.float32}
    assert autoencoder(clip).sample.dtype == torch.float32
    assert autoencoder.to(torch.bfloat16)(clip.bfloat16()).sample.dtype == torch.bfloat16


@torch.no_grad()
@pytest.mark.integration
def test_it_compiles_into_one_graph():
    autoencoder, clip = tiny(linear_path=True), video(1, 3, 8, 32, 48)
    autoencoder.enable_tiling(tile_height=16, tile_width=16, tile_frames=8)
    compiled = torch.compile(autoencoder, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(clip).sample, autoencoder(clip).sample)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"conv_last_layer": False}, "conv_last_layer is False"),
        ({"double_z": False}, "double_z"),
        ({"ln_in_attn": False}, "ln_in_attn"),
        ({"norm_code": True}, "norm_code"),
        ({"with_cls_token": False}, "with_cls_token"),
        ({"embed_dim": 192}, "embed_dim is 192; give a multiple of 256"),
        ({"video_length": 6}, "video_length"),
        ({"video_size": 36}, "video_size"),
        ({"num_heads": 3}, "num_heads"),
    ],
)
def test_settings_that_are_not_supported_are_named(settings, named):
    with pytest.raises(InputError, match=named):
        tiny(**settings)


@pytest.mark.parametrize(
    ("shape", "allowed"),
    [
        ((1, 3, 8, 20, 16), "give multiples of 8"),
        ((1, 3, 8, 16, 20), "20 x 16 pixels"),
        ((1, 3, 6, 16, 16), "6 frames; give 1 or a multiple of 4"),
        ((1, 4, 8, 16, 16), r"give \(batch, 3, frames, height, width\)"),
        ((3, 8, 16, 16), r"give \(batch, 3, frames, height, width\)"),
    ],
)
def test_video_that_does_not_fit_is_refused(shape, allowed):
    with pytest.raises(InputError, match=allowed):
        tiny().encode(torch.zeros(shape))


def test_other_wrong_input_is_refused():
    with pytest.raises(InputError, match=r"give \(batch, 16, frames, height, width\)"):
        tiny().decode(torch.zeros(1, 8, 2, 2, 2))
    with pytest.raises(InputError, match="tile_width is 20; give a multiple of 8"):
        tiny().enable_tiling(tile_width=20)
    with pytest.raises(InputError, match="tile_frames is 0"):
        tiny().enable_tiling(tile_frames=0)
    with pytest.raises(InputError, match="tile_frames is 4; give at least 8"):
        tiny().enable_tiling(tile_frames=4)
    with pytest.raises(InputError, match=r"overlap is 0\.6"):
        tiny().enable_tiling(overlap=0.6)
    with pytest.raises(InputError, match="linear_path=True"):
        tiny().fit_linear_path(video(1, 3, 4, 8, 8))
    with pytest.raises(InputError, match="1 frame; give clips"):
        tiny(linear_path=True).fit_linear_path(video(1, 3, 1, 8, 8))
