"""Learning from captioned multi-view shards."""
