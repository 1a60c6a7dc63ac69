"""Training on captioned multi-view shards: priors (docs/method.md, Training) and image encoders."""
