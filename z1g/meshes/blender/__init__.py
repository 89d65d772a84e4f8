"""Scripts that run inside Blender; they import nothing of z1g."""
