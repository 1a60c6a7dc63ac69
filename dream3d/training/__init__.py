"""Training of multi-view diffusion priors, as MVDream does it (facts, section 5)."""
