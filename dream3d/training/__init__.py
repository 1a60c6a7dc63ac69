"""Training on captioned multi-view shards: priors, as MVDream trains its own (facts, section 5), and image encoders."""
