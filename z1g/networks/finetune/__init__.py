"""Which weights stage 2 trains, as slots."""

from z1g.networks.finetune.base import Finetune
from z1g.networks.finetune.full import Full
from z1g.networks.finetune.lora import Lora

KINDS: tuple[type[Finetune], ...] = (
    Full,
    Lora,
)
"""What `kind:` of a Finetune may name."""

__all__ = ["KINDS", "Finetune", "Full", "Lora"]
