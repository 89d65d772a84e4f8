"""Identities, configuration slices, cost: what has to run."""
