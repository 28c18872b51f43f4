"""Runs the scripts of benchmarks/, at small sizes."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Runs a script with words and returns what it prints. What it would measure in processes of its own runs in this
    one, for each would begin with importing PyTorch."""
    start_process = subprocess.run

    def execute(path: str, *words: str) -> str:
        printed = io.StringIO()
        with monkeypatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setattr(sys, "argv", [path, *words])
            runpy.run_path(path, run_name="__main__")
        return printed.getvalue()

    def process(command, **settings):
        if command[0] != sys.executable or Path(command[1]).parent != BENCHMARKS:
            return start_process(command, **settings)
        return subprocess.CompletedProcess(command, 0, execute(*command[1:]), "")

    def run(name: str, *words) -> str:
        return execute(str(BENCHMARKS / name), *map(str, words))

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(BENCHMARKS)  # scripts import from each other
    monkeypatch.setattr(subprocess, "run", process)
    return run


@pytest.fixture
def rows():
    """Reads the first table of a page: its cells, without its head."""

    def rows(page: str) -> list[list[str]]:
        table = re.search(r"^\|.*\|\n\|[-:| ]+\|\n((?:\|.*\|\n)+)", page, re.MULTILINE)
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]

    return rows
