"""One wing a system; no system imports another."""
