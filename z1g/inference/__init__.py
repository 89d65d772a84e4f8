"""The trained method: from a folder or a stage to splats, photographs, viewer."""
