"""Samplers, guidance, and where the codes of inference come from."""
