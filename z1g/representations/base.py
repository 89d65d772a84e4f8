"""The contract of representations: the options of one, and what is built from them."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

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
    """What stage 1 and stage 2 hand to each other.

    Stage 1 trains a *codec*, which turns objects into latent codes and codes into splatter images. Stage 2 trains a
    *denoiser*, which generates codes. Only the representation knows the shape of a code and the layers of both.
    """

    kind: str

    @abstractmethod
    def problem(self, model: Model, splat_size: int) -> str | None:
        """Why this representation cannot work with a model and splatter images of `splat_size` pixels; None if it can.

        Begins with the key that is at fault, so that the message can name its place in the configuration.
        """

    @abstractmethod
    def code_shape(self, model: Model) -> tuple[int, ...]:
        """Shape of the code of one object."""

    @abstractmethod
    def new_codec(self, model: Model, camera: CameraOptions, splats: SplatOptions) -> Codec:
        """The codec as the model arrives, before training. What cannot be trained has no `requires_grad`."""

    @abstractmethod
    def load_codec(self, folder: Path, camera: CameraOptions, splats: SplatOptions) -> Codec:
        """Read what `Codec.save` wrote, frozen. Raises UserError where files are missing or do not fit."""

    @abstractmethod
    def new_denoiser(self, model: Model) -> Denoiser:
        """The denoiser before stage 2. Raises UserError where weights are missing."""

    @abstractmethod
    def save(self, folder: Path, trained: Trained, camera: CameraOptions, splats: SplatOptions) -> None:
        """Write all networks of a trained method, so that `load` needs nothing else."""

    @abstractmethod
    def load(self, folder: Path, camera: CameraOptions, splats: SplatOptions, device: torch.device) -> Trained:
        """Read what `save` wrote, frozen, on a device. Raises UserError where files are missing or do not fit."""
