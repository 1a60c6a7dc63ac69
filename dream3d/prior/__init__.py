"""Multi-view diffusion priors: reading a folder as untrusted data, and asking its networks questions."""
