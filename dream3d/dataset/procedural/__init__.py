"""Endless assets from a seed: families of shapes in code, with captions that fit them (``dream3d dataset make``)."""
