"""Fused GPU kernels of network layers, with fewer passes over memory."""

from z1g.core.device import runs_triton as available

__all__ = ["available"]
