"""Sources of the codes at inference, as slots: the method itself, and sources that isolate its parts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from z1g.core.slots import Slot

if TYPE_CHECKING:
    from torch import Tensor

    from z1g.networks.denoiser import Condition
    from z1g.sampling.predicts_v import PredictsV
    from z1g.sampling.sample import SamplingOptions


@dataclass(frozen=True)
class Objects:
    """A batch. images: condition images [B,3,H,W] in 0..1. true: their codes [B,*code_shape] from stage `codes`.

    inputs: returns the encoder's inputs. refined: codes near given ones [B,*code_shape], in the decoder's units, that
    match the condition images better after a number of steps. seeds: one per object.
    """

    images: Tensor
    seeds: list[int]
    true: Tensor
    inputs: Callable[[], Tensor]
    refined: Callable[[Tensor, int], Tensor]


class TrainedMethod(Protocol):
    """The trained networks of both stages."""

    @property
    def options(self) -> SamplingOptions:
        """Options of sampling."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a code."""

    @property
    def predict(self) -> PredictsV:
        """The denoiser, or a faster equivalent."""

    def codes(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Codes [B,*shape] sampled from condition images [B,3,H,W]."""

    def encode(self, inputs: Tensor) -> Tensor:
        """Codes [B,*shape] of encoder inputs."""

    def condition(self, images: Tensor) -> Condition:
        """The denoiser's condition from condition images [B,3,H,W]."""

    def to_units(self, codes: Tensor) -> Tensor:
        """Codes in the decoder's units from the normalized codes of the denoiser."""

    def from_units(self, codes: Tensor) -> Tensor:
        """Inverse of `to_units`."""


class InferredCodes(Slot):
    """Source of the code that is decoded for each object."""

    kind: str

    @abstractmethod
    def codes(self, method: TrainedMethod, objects: Objects) -> Tensor:
        """Codes [B,*code_shape] in the decoder's units, on the method's device."""
