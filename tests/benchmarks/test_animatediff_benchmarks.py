"""The benchmark scripts of AnimateDiff run, at small sizes, and what they say holds: numbers agree with diffusers', and
time and memory are told for every length and way."""

from __future__ import annotations

import re

import pytest
import torch


def test_beside_diffusers(script, rows, animatediff_model):
    page = script("animatediff_tiny.py", "--quick", "--model", animatediff_model)
    assert [row[0] for row in rows(page)][:3] == ["diffusers", "diffusers, mended", "ours"]
    forward, mended, as_it_is = (float(x) for x in re.findall(r"\b\d\.\de[+-]\d\d\b", page))
    assert max(forward, mended) < 1e-5
    assert as_it_is > 1e-3
    assert "| motion modules |" in page


def test_long_videos(script, rows, animatediff_model, tmp_path):
    words = ("--lengths", "8", "16", "32", "--steps", "1", "--rounds", "1", "-o", tmp_path / "long.md")
    page = script("animatediff_windows.py", "--model", animatediff_model, *words)
    assert [row[:2] for row in rows(page)] == [["8", "1"], ["16", "3"], ["32", "5"]]
    assert "![Seconds over frames, and the line through them](long.svg)" in page
    assert (tmp_path / "long.svg").read_text().count("<circle") == 3
    assert (tmp_path / "long.md").read_text() == page.removesuffix("\n")


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_published_shapes_made_small(script, rows, base):
    small = ("--width", "32", "--size", "64x64", "--frames", "2", "--steps", "1", "--rounds", "1")
    page = script("animatediff_shapes.py", "--base", base, *small, "--ways", "diffusers", "plain")
    assert [row[0] for row in rows(page)] == ["diffusers, as it is", "ours, as it is"]
    assert "32 channels at the first level" in page


def test_ours_compiled_beside_diffusers(script, monkeypatch):
    """What compiling gives is the UNet's test; here it only takes time."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda network, **settings: asked.append(settings) or network)
    small = ("--width", "32", "--size", "32x32", "--frames", "2", "--steps", "1", "--rounds", "1")
    page = script("animatediff_shapes.py", *small, "--backend", "eager", "--ways", "diffusers", "compiled")
    assert asked == [{"backend": "eager", "fullgraph": True}]
    assert re.search(r"Target: compiled at least 2 x as fast as diffusers: [\d.]+ x: (met|missed)\.", page)
