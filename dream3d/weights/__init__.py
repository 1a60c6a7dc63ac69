"""Weights by name: the table of downloads, the cache, and loading a prior from a name or a path."""
