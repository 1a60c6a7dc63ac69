"""A run on the disk: its folder, checkpoints, progress reports and signals."""
