"""Cameras, view protocols and the 3x2 mosaic of six views."""
