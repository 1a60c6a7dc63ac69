"""Official MVDream weights -> a prior folder: architecture from shapes, names, conversion."""
