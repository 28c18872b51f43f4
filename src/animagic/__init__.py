"""Animagic: make video with diffusion models. Public names are imported when they are first used."""
