"""Occupancy grid, ray marching and compositing: a field and cameras -> images."""
