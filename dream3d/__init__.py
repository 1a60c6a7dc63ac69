"""dream3d: a sentence becomes a textured 3D asset.

Nothing heavy is imported here: ``dream3d --help`` must stay fast, so torch is imported by the
rooms that compute and never by this package's root.
"""

from dream3d.version import __version__

__all__ = ["__version__"]
