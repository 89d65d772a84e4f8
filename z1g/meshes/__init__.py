"""Mesh files: finding and naming them, what is wrong with them, and Blender as the process that draws them."""
