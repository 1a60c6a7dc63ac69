"""Rendering models to views: VTK stage, cameras and lights, worker processes, shards."""
