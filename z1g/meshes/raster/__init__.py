"""Renders meshes with OpenGL, without a screen: the surface's own color, depth and normals."""
