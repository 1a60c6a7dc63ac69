"""The version, apart from the package's root so that every module may read it."""

__version__ = "0.1.0"
