"""From 3D models to captioned multi-view shards: what the priors are trained on."""
