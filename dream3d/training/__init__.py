"""Training on captioned multi-view shards: priors, as MVDream trains its own (docs/method.md), and image encoders."""
