"""Textured meshes from Gaussians: depth fusion, mesh cleaning, UV unwrapping and texture baking."""
