"""Benchmarks of speed and memory, each a function that returns figures. Not used by the pipeline."""
