"""One file per mesh format, and the registry of them."""
