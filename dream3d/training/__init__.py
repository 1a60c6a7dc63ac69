"""Training on captioned multi-view shards: the priors, as MVDream trains its own (facts, section 5), and the image encoder."""
