"""Options of the joint representation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import N_INPUTS, CameraOptions
from z1g.networks.process import Process
from z1g.networks.weights import Model
from z1g.representations.base import Representation

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL

    from z1g.networks.denoiser import Denoiser
    from z1g.representations.codec import Codec, Trained


class Joint(Representation):
    """All channels of a view in one latent; the whole VAE is trained, views attend to each other (as in DiffSplat)."""

    kind: Literal["joint"] = "joint"
    head: Literal["repeated", "zero"] = Field(
        "repeated",
        description="initial weights of the VAE's last layer for geometry. repeated: those of its colors; zero: none, "
        "so that all Gaussians start on their pixels' rays at the camera distance",
    )
    condition: Literal["model", "trained", "stock"] = Field(
        "model",
        description="what encodes the condition image for stage 2. stock: the model's VAE as it was before stage 1, as "
        "in DiffSplat; trained: the encoder of splats, with zeros in place of geometry; model: stock for published "
        "weights, trained for random ones",
    )
    zero_terminal_snr: bool = Field(
        True,
        description="rescale the noise so that nothing of a code is left at the last timestep, where sampling starts",
    )
    of_stage_2: ClassVar[tuple[str, ...]] = ("zero_terminal_snr",)
    trains_encoder: ClassVar[bool] = True

    @property
    def encodes_splats(self) -> bool:
        return True

    @property
    def process(self) -> Process:
        """The noise of stage 2."""
        return Process(zero_terminal_snr=self.zero_terminal_snr)

    def problem(self, model: Model, splat_size: int) -> str | None:
        factor = model.latent_factor
        if not model.has_prompt:
            return (
                f"kind 'joint' needs a UNet that predicts v and attends to a prompt, as Zero123++'s, which model "
                f"'{model.kind}' lacks; use kind 'attributes'"
            )
        if splat_size % factor:
            return f"kind 'joint': splat.size {splat_size} must be a multiple of {factor}, the model's latent factor"
        return None

    def code_shape(self, model: Model, splat_size: int) -> tuple[int, ...]:
        side = splat_size // model.latent_factor
        return N_INPUTS, model.latent_channels, side, side

    def new_codec(self, model: Model, camera: CameraOptions, splats: SplatOptions) -> Codec:
        from z1g.representations.joint.codec import JointCodec
        from z1g.representations.joint.vae import joint_vae

        vae = model.autoencoder()
        if model.method is not None:
            return JointCodec(vae, camera, splats, self._stored_stock(model.method))
        stock = self.condition == "stock" or (self.condition == "model" and model.pretrained_encoder)
        return JointCodec(joint_vae(vae, self.head), camera, splats, vae if stock else None)

    def load_codec(self, folder: Path, camera: CameraOptions, splats: SplatOptions) -> Codec:
        from z1g.networks.autoencoder import latent_shape
        from z1g.networks.conditioning import stored_code
        from z1g.networks.weights import method_networks
        from z1g.representations.folder import REMEDY, require_codes
        from z1g.representations.joint.codec import JointCodec

        vae = method_networks.autoencoder(folder, REMEDY.format(folder=folder))
        require_codes(folder, latent_shape(vae, splats.size), stored_code(folder))
        codec = JointCodec(vae, camera, splats, self._stored_stock(folder))
        codec.requires_grad_(False).eval()
        return codec

    def new_denoiser(self, model: Model, camera: CameraOptions, splats: SplatOptions) -> Denoiser:
        from z1g.representations.joint import trained

        return trained.started(model.denoiser(), self.process, camera, splats.size // model.latent_factor)

    def save(self, folder: Path, trained: Trained, camera: CameraOptions, splats: SplatOptions) -> None:
        from z1g.representations.joint.codec import JointCodec
        from z1g.representations.joint.trained import save

        if not isinstance(trained.codec, JointCodec):
            raise TypeError(f"a {type(trained.codec).__name__} is not a codec of kind 'joint'")
        # The folder has to tell what encodes its conditions.
        condition = "trained" if trained.codec.stock is None else "stock"
        save(folder, self.model_copy(update={"condition": condition}), trained, camera, splats)

    def load(self, folder: Path, camera: CameraOptions, splats: SplatOptions, device: torch.device) -> Trained:
        from z1g.representations.joint.trained import load

        return load(folder, self, self.process, camera, splats, device)

    def _stored_stock(self, folder: Path) -> AutoencoderKL | None:
        """The stock VAE in the folder of a codec, if that encodes conditions. Raises UserError if it is missing."""
        from z1g.networks.weights import method_networks
        from z1g.representations.folder import REMEDY
        from z1g.representations.joint.codec import STOCK

        if self.condition == "trained" or (self.condition == "model" and not (folder / STOCK).exists()):
            return None
        return method_networks.autoencoder(folder, REMEDY.format(folder=folder), STOCK)
