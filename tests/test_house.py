"""The house is in order: what imports what, what is written down, what lies around."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
HEAVY = ("torch", "diffusers", "transformers", "accelerate", "av", "numpy", "PIL", "skia", "matplotlib")
PROMISED = (
    "load", "zoo", "checkpoints", "CheckpointError", "Magi1Pipeline", "Magi1ImageToVideoPipeline",
    "Magi1VideoToVideoPipeline", "Magi1Transformer3DModel", "AutoencoderKLMagi1", "Staircase", "WholeClip",
)  # fmt: skip
LARGEST = 17 * 2**20  # bytes


def loaded_after(code: str) -> set[str]:
    """Which heavy packages a fresh Python has imported after running `code`."""
    code += f"\nimport sys; print('HEAVY', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def files() -> list[Path]:
    """The files of the repository, and those that would be committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def requirements() -> set[str]:
    """The names of all packages in pyproject.toml, extras included, our own left out."""
    lines = list(PROJECT["project"]["dependencies"])
    for extra in PROJECT["project"]["optional-dependencies"].values():
        lines += extra
    names = {re.match(r"[A-Za-z0-9._-]+", line)[0] for line in lines}
    return names - {"animagic"}


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


@pytest.mark.parametrize("name", sorted(requirements()))
def test_every_dependency_has_its_reason(name):
    rows = [row for row in (ROOT / "docs/dependencies.md").read_text("utf-8").splitlines() if row.startswith("|")]
    row = next((row for row in rows if row.startswith(f"| `{name}` |")), None)
    assert row, f"docs/dependencies.md has no line that begins with | `{name}` |"
    assert all(cell.strip() for cell in row.strip("|").split("|")), f"a reason is missing: {row}"


def test_no_reason_outlives_its_dependency():
    rows = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs/dependencies.md").read_text("utf-8"), re.MULTILINE)
    assert set(rows) == requirements()


def test_the_changelog_knows_the_version():
    import animagic

    assert animagic.__version__ == PROJECT["project"]["version"]
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "## [Unreleased]" in text or f"## [{animagic.__version__}]" in text
    assert animagic.__version__ in text


def test_the_licence_is_apache():
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["project"]["license"] == "Apache-2.0"


def test_no_file_is_too_large():
    large = {file.relative_to(ROOT).as_posix(): file.stat().st_size for file in files()}
    assert {name: size for name, size in large.items() if size > LARGEST} == {}


def test_nothing_foreign_lies_around():
    unwanted = (".pt", ".bin", ".ckpt", ".pkl", ".pyc")
    wrong = [file for file in files() if file.suffix in unwanted or ".venv" in file.parts]
    assert wrong == []


def test_the_arrows_of_the_design_are_held():
    contracts = {contract["type"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]}
    layers = contracts["layers"]
    assert layers["containers"] == ["animagic"]
    assert layers["exhaustive"], "a room that is in no layer must be an error"
    order = [re.sub(r"[()]", "", layer).split(" | ") for layer in layers["layers"]]
    rank = {room: i for i, rooms in enumerate(order) for room in rooms}
    below = ("cli", "zoo", "systems", "training", "timeline", "layers")
    assert [rank[room] for room in below] == sorted(rank[room] for room in below)
    assert contracts["independence"]["modules"] == ["animagic.systems.*"]


def test_every_room_says_what_it_is_for():
    for room in (ROOT / "src/animagic").glob("**/__init__.py"):
        assert room.read_text("utf-8").lstrip().startswith('"""'), f"{room.relative_to(ROOT)} has no docstring"


def test_ci_runs_what_make_test_runs():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, ".ci/run cannot be executed"
    assert script.read_text("utf-8").rstrip().endswith("exec make test")
