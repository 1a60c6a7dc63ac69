"""The settings of a run: frozen dataclasses, presets, and how plain data becomes them."""
