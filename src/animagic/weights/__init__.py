"""Model weights: found in files, checked against networks, read, converted and written."""
