"""Metrics as slots: each knows its unit, its direction and where its definition comes from."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from z1g.config.slot import Slot

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Pictures:
    """Renders of one object from V views beside the truth, on a white background.

    rgb, rgb_true: [V,3,H,W] in 0..1; alpha, alpha_true: [V,1,H,W] in 0..1.
    """

    rgb: "torch.Tensor"
    rgb_true: "torch.Tensor"
    alpha: "torch.Tensor"
    alpha_true: "torch.Tensor"


class Metric(Slot):
    """A number per view."""

    label: ClassVar[str]
    """How tables name it."""
    unit: ClassVar[str]
    """Unit, empty where there is none."""
    higher_is_better: ClassVar[bool]
    reference: ClassVar[str]
    """Where the definition comes from."""

    @abstractmethod
    def compute(self, pictures: Pictures) -> "torch.Tensor":
        """One value a view: [V] float. Raises UserError where weights are missing."""
