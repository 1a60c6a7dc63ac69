"""A prior that learns one thing from a few photos of it: MV-DreamBooth (docs/dreambooth.md)."""
