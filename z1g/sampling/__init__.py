"""Samplers, guidance, and the sources of codes at inference."""
