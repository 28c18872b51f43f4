"""What the pipelines of all systems share."""
