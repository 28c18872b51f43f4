"""AnimateDiff: a motion module, trained once, that animates any personalised text-to-image model (arXiv 2307.04725)."""
