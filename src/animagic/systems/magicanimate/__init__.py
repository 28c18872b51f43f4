"""MagicAnimate: a person in a picture, moved as in a video (arXiv 2311.16498)."""
