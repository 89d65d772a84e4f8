"""Inference with a trained method: sampling, photographs, output files and the viewer."""
