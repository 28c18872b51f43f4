"""MagicInfinite: a portrait that speaks, for as long as it likes."""
