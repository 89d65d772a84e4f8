"""Networks of a trained model, to go on training from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from z1g.core.errors import UserError
from z1g.core.files import read_json
from z1g.core.listed import require_listed
from z1g.core.needs import Missing
from z1g.core.sealed import read_sealed
from z1g.core.slots import FileContent
from z1g.networks.weights import packaged
from z1g.networks.weights.base import Model

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from z1g.networks.reference_denoiser import ReferenceDenoiser

REMEDY = "Write the model again with `z1g pack`, or name another one"


class Trained(Model):
    """All networks of a trained model, to finetune it: VAE and splat heads, UNet, image encoder and prompt.

    The model brings its own `representation`, `splat`, cameras and `unet.condition_size`, which need not be given.
    Stage 1 trains the decoder, and with `autodecoder.codes.train` the encoder. Stage 2 keeps the statistics of codes
    unless `unet.normalize_codes` estimates them anew. With `code_channels`, codes are larger than the model's.
    """

    kind: Literal["trained"] = "trained"
    pretrained: Annotated[str, FileContent(packaged.method_file)] = Field(
        "base", min_length=1, description="a model of the package, by name, or a folder that `z1g pack` wrote"
    )
    code_channels: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="channels of codes, more than the model's: new ones start without effect; null: its own",
    )
    train_vision: bool = Field(False, description="stage 2 also trains the image encoder and the prompt")

    def check(self) -> None:
        """Raise Missing unless all files are there and as they were written."""
        try:
            self._require_whole()
            own = self._own_channels
            _ = self.condition_size
        except UserError as error:
            raise Missing("pretrained", str(error)) from error
        if self.code_channels is not None and self.code_channels < own:
            raise Missing(
                "code_channels", f"{self.code_channels} are fewer than the {own} of the model {self.pretrained}"
            )

    @property
    def available(self) -> bool:
        try:
            return self.latent_channels > 0 and self.condition_size > 0
        except UserError:
            return False

    @property
    def method(self) -> Path:
        return packaged.folder_of(self.pretrained) / packaged.NETWORKS

    @property
    def trains_vision(self) -> bool:
        return self.train_vision

    @property
    def pretrained_encoder(self) -> bool:
        return True

    @property
    def latent_channels(self) -> int:
        return self.code_channels or self._own_channels

    @property
    def _own_channels(self) -> int:
        return int(self._read("vae/config.json")["latent_channels"])

    @property
    def _more_channels(self) -> int | None:
        """`code_channels`, if they are more than the model's."""
        return self.code_channels if self.latent_channels > self._own_channels else None

    @property
    def latent_factor(self) -> int:
        return int(2 ** (len(self._read("vae/config.json")["block_out_channels"]) - 1))

    @property
    def condition_size(self) -> int:
        """Side of the condition image in training, pixels. Raises UserError if the model is missing or damaged."""
        file = packaged.folder_of(self.pretrained) / packaged.FILE
        try:
            return int(read_sealed(file, packaged.FILE)["condition_size"])
        except FileNotFoundError as error:
            raise UserError(packaged.absent(self.pretrained)) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} cannot be used: {error}. {REMEDY}") from error

    def autoencoder(self) -> AutoencoderKL:
        from z1g.networks.weights import method_networks
        from z1g.networks.wider import wider_autoencoder

        self._require_whole()
        vae, channels = method_networks.autoencoder(self.method), self._more_channels
        return vae if channels is None else wider_autoencoder(vae, channels)

    def denoiser(self) -> ReferenceDenoiser:
        from z1g.networks.weights import method_networks

        self._require_whole()
        parts = method_networks.conditioning(self.method)
        return method_networks.denoiser(self.method, parts, self.train_vision, channels=self._more_channels)

    def _require_whole(self) -> None:
        """Raise UserError unless the networks' files are as they were written."""
        file = self.method / packaged.METHOD_FILE
        try:
            files = read_sealed(file, packaged.METHOD_FILE)["files"]
            require_listed(self.method, files, packaged.METHOD_FILE, REMEDY, (".json", ".safetensors"))
        except FileNotFoundError as error:
            raise UserError(packaged.absent(self.pretrained)) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file} cannot be used: {error}. {REMEDY}") from error

    def _read(self, name: str) -> dict[str, Any]:
        """The configuration of a network. Raises UserError if the model is missing or damaged."""
        file = self.method / name
        try:
            config: dict[str, Any] = read_json(file)
            if {"latent_channels", "block_out_channels"} <= config.keys():
                return config
            raise ValueError("it lacks the sizes of a network")
        except FileNotFoundError as error:
            raise UserError(packaged.absent(self.pretrained)) from error
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{file} cannot be used: {error}. {REMEDY}") from error
