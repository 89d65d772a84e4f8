"""Where the codes of inference come from, as slots: the method itself, and what tells its parts apart."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from z1g.core.slots import Slot

if TYPE_CHECKING:
    from torch import Tensor

    from z1g.networks.denoiser import Condition
    from z1g.sampling.sample import PredictsV, SamplingOptions


@dataclass(frozen=True)
class Objects:
    """A batch. images: conditions [B,3,H,W] in 0..1. true: their codes [B,*code_shape] from stage `codes`.

    inputs gives what the encoder sees of them. seeds: one an object.
    """

    images: Tensor
    seeds: list[int]
    true: Tensor
    inputs: Callable[[], Tensor]


class TrainedMethod(Protocol):
    """What codes are inferred with: both stages, trained."""

    @property
    def options(self) -> SamplingOptions:
        """How codes are sampled."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a code."""

    @property
    def predict(self) -> PredictsV:
        """The denoiser, or what runs it faster."""

    def codes(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Codes [B,*shape] sampled from condition images [B,3,H,W]."""

    def encode(self, inputs: Tensor) -> Tensor:
        """Codes [B,*shape] of what the encoder sees."""

    def condition(self, images: Tensor) -> Condition:
        """What the denoiser sees of condition images."""

    def to_units(self, codes: Tensor) -> Tensor:
        """Codes in the decoder's units from those that the denoiser is trained on."""

    def from_units(self, codes: Tensor) -> Tensor:
        """Inverse of `to_units`."""


class InferredCodes(Slot):
    """Gives each object the code that is decoded."""

    kind: str

    @abstractmethod
    def codes(self, method: TrainedMethod, objects: Objects) -> Tensor:
        """Codes [B,*code_shape] in the decoder's units, on the method's device."""
