"""Rendering models to views: VTK scene, cameras and lights, worker processes, shards."""
