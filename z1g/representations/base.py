"""Interface of representations: their options, and the networks that are built from them."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from z1g.core.slots import Slot

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from z1g.gaussians.channels import SplatOptions
    from z1g.geometry.camera import CameraOptions
    from z1g.networks.denoiser import Denoiser
    from z1g.networks.weights import Model
    from z1g.representations.codec import Codec, Trained


class Representation(Slot):
    """What stage 1 and stage 2 exchange.

    Stage 1 trains a *codec*, which encodes objects as latent codes and decodes codes to splatter images. Stage 2 trains
    a *denoiser*, which generates codes. Only the representation depends on the shape of a code and on network layers.
    """

    kind: str
    of_stage_2: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that only stage 2 reads: what stage 1 has trained serves for all of their values."""

    trains_encoder: ClassVar[bool] = False
    """Whether stage 1 has to train the encoder, because a published one does not know such inputs."""

    @property
    def encodes_splats(self) -> bool:
        """Whether codes depend on fitted splats besides the images."""
        return False

    @property
    def trains_parts(self) -> bool:
        """Whether some steps of stage 2 train parts of codes, which cannot be decoded alone."""
        return False

    @property
    def in_turns(self) -> bool:
        """Whether sampling generates some parts of codes before the others."""
        return False

    @abstractmethod
    def problem(self, model: Model, splat_size: int) -> str | None:
        """Why this representation does not support a model and splatter images of `splat_size` pixels; None if it does.

        Begins with the invalid key, so that the message can name its place in the configuration.
        """

    @abstractmethod
    def code_shape(self, model: Model, splat_size: int) -> tuple[int, ...]:
        """Shape of the code of one object, with splatter images of `splat_size` pixels."""

    def clipped(self, splats: torch.Tensor) -> dict[str, int]:
        """Number of Gaussians of splatter images [B,6,14,S,S] that are `drawn`, and of those that leave a range.

        One number for each attribute that codes represent in a range only; empty if there is none.
        """
        return {}

    @abstractmethod
    def new_codec(self, model: Model, camera: CameraOptions, splats: SplatOptions) -> Codec:
        """The codec with the model's initial weights. Weights that are never trained have no `requires_grad`."""

    @abstractmethod
    def load_codec(self, folder: Path, camera: CameraOptions, splats: SplatOptions) -> Codec:
        """Read what `Codec.save` wrote, frozen. Raises UserError if files are missing or do not fit."""

    @abstractmethod
    def new_denoiser(self, model: Model, camera: CameraOptions, splats: SplatOptions) -> Denoiser:
        """The denoiser before stage 2. Raises UserError if weights are missing."""

    def with_stage_2(self, other: Representation) -> Representation:
        """These options with the fields `of_stage_2` of another one of the same kind."""
        return self.model_copy(update={name: getattr(other, name) for name in self.of_stage_2})

    @abstractmethod
    def save(self, folder: Path, trained: Trained, camera: CameraOptions, splats: SplatOptions) -> None:
        """Write all networks of a trained method; `load` needs no other files."""

    @abstractmethod
    def load(self, folder: Path, camera: CameraOptions, splats: SplatOptions, device: torch.device) -> Trained:
        """Read what `save` wrote, frozen, on a device. Raises UserError if files are missing or do not fit."""
