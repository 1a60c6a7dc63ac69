"""Which 3D models there are: folders, catalogues, manifests."""
