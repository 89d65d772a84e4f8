"""Outputs of other systems, measured as our own are: on the same objects, test views and metrics."""
