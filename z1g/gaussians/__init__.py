"""Gaussians: the 14 channels of a splatter image, rotations, affine maps and file formats."""
