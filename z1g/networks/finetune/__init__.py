"""Slot family of the weights that stage 2 trains."""

from z1g.networks.finetune.base import Finetune
from z1g.networks.finetune.full import Full
from z1g.networks.finetune.lora import Lora

KINDS: tuple[type[Finetune], ...] = (
    Full,
    Lora,
)
"""All kinds of Finetune."""

__all__ = ["KINDS", "Finetune", "Full", "Lora"]
