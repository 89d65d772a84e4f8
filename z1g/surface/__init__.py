"""Meshes from Gaussians: fused depth, cleaned, unwrapped and painted with what the Gaussians show."""
