"""Measurements of speed and memory, each a function that returns numbers; nothing here is part of a run."""
