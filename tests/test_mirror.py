"""The word `diffusers` in an import can be replaced by `animagic`."""

import importlib
import subprocess
import sys

import diffusers
import pytest

import animagic


def test_every_name_of_diffusers_is_there_and_ours_are_ours():
    from animagic import AutoencoderKL, AutoencoderKLMagi1, DDIMScheduler

    assert AutoencoderKL is diffusers.AutoencoderKL
    assert DDIMScheduler is diffusers.DDIMScheduler
    assert animagic.models.AutoencoderKLMagi1 is AutoencoderKLMagi1
    assert animagic.AutoModel is not diffusers.AutoModel
    assert animagic.models.AutoModel is animagic.AutoModel


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("models", "ControlNetModel"),
        ("models.attention_processor", "AttnProcessor"),
        ("models.unets.unet_2d_condition", "UNet2DConditionModel"),
        ("schedulers", "LCMScheduler"),
        ("loaders", "IPAdapterMixin"),
        ("hooks", "FirstBlockCacheConfig"),
        ("utils", "logging"),
        ("utils.torch_utils", "randn_tensor"),
        ("image_processor", "VaeImageProcessor"),
        ("pipelines", "StableDiffusionPipeline"),
        ("pipelines.stable_diffusion", "StableDiffusionPipeline"),
        ("pipelines.stable_diffusion.safety_checker", "StableDiffusionSafetyChecker"),
    ],
)
def test_modules_too(module, name):
    ours, theirs = (getattr(importlib.import_module(f"{word}.{module}"), name) for word in ("animagic", "diffusers"))
    assert ours is theirs


def test_what_neither_has_is_an_error_that_names_it():
    with pytest.raises(AttributeError, match=r"'no_such_name'"):
        _ = animagic.no_such_name
    with pytest.raises(ImportError, match="Nix"):
        from animagic.models import Nix  # noqa: F401
    with pytest.raises(ImportError, match=r"animagic\.nothing"):
        importlib.import_module("animagic.nothing.at_all")


def test_our_own_modules_do_not_wait_for_diffusers():
    code = "from animagic import cli, errors; import sys; assert 'diffusers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
