"""Weights in fewer bits, and how they are computed with."""
