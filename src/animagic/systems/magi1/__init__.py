"""MAGI-1: video chunk after chunk (arXiv 2505.13211)."""
