"""One module a version: what is changed in a database of the version before. A published one is never edited."""
