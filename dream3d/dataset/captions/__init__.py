"""Captions, colour names and held-out concepts."""
