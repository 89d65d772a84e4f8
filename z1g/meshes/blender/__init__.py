"""Scripts that run inside Blender; they do not import z1g."""
