"""Mesh files: finding, naming and validating them, and rendering them with Blender."""
