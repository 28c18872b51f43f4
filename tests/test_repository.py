"""The repository is in order: what it needs, what lies in it, what checks it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

import animagic

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LARGEST = 17 * 2**20  # bytes


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """The files of the repository, and those that would be committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_the_version_is_that_of_the_package():
    assert animagic.__version__ == PROJECT["version"]


def test_every_dependency_has_its_reason():
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    needed = {re.match(r"[A-Za-z0-9._-]+", line)[0] for line in lines} - {"animagic"}
    page = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    reasons = dict(re.findall(r"^\| `([\w-]+)` \|(.*)\|$", page, re.MULTILINE))
    assert set(reasons) == needed
    for name, cells in reasons.items():
        assert all(cell.strip() for cell in cells.split("|")), f"a reason is missing: {name}"


def test_no_file_is_too_large(files):
    large = {file.relative_to(ROOT).as_posix(): file.stat().st_size for file in files}
    assert {name: size for name, size in large.items() if size > LARGEST} == {}


def test_nothing_foreign_lies_around(files):
    unwanted = (".pt", ".bin", ".ckpt", ".pkl", ".pyc")
    assert [file for file in files if file.suffix in unwanted or ".venv" in file.parts] == []


def test_ci_makes_the_tests(tmp_path):
    (tmp_path / "make").write_text('#!/bin/sh\necho "make $* in $PWD"\n')
    (tmp_path / "make").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([ROOT / ".ci" / "run"], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"make test in {ROOT}\n"), done.stderr
