"""What `import animagic` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "diffusers", "transformers", "accelerate", "av", "numpy", "PIL", "skia", "matplotlib")
PROMISED = (
    "load", "zoo", "checkpoints", "CheckpointError", "Magi1Pipeline", "Magi1ImageToVideoPipeline",
    "Magi1VideoToVideoPipeline", "Magi1Transformer3DModel", "AutoencoderKLMagi1", "Staircase", "WholeClip",
)  # fmt: skip


def loaded_after(code: str) -> set[str]:
    """Which heavy packages a fresh Python has imported after running `code`."""
    code += f"\nimport sys; print('HEAVY', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_importing_animagic_imports_nothing_heavy():
    assert loaded_after("import animagic; dir(animagic)") == set()


def test_help_imports_neither_networks_nor_media():
    code = "import animagic.cli\ntry: animagic.cli.main(['--help'])\nexcept SystemExit as end: assert not end.code"
    assert loaded_after(code) & {"torch", "diffusers", "transformers", "accelerate", "av"} == set()


def test_a_public_name_is_imported_when_it_is_used():
    assert "torch" not in loaded_after("import animagic; animagic.InputError, animagic.zoo")
    assert "torch" in loaded_after("import animagic; animagic.Staircase")


def test_promised_names_are_public():
    import animagic

    assert set(PROMISED) <= set(animagic.__all__)
    assert set(animagic.__all__) <= set(dir(animagic))


def test_every_public_name_can_be_imported():
    import animagic

    for name in animagic.__all__:
        assert getattr(animagic, name) is not None, name
    with pytest.raises(AttributeError):
        _ = animagic.nothing_of_that_name
