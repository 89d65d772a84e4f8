"""The trained method in memory, from condition images to codes and splatter images."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from z1g.core.device import default_device
from z1g.core.errors import UserError
from z1g.gaussians.channels import to_gaussians
from z1g.gaussians.finite import require_finite
from z1g.gaussians.splats import Splats
from z1g.inference.models import TrainedModel, open_model, with_options
from z1g.inference.outputs import in_world
from z1g.inference.photographs import (
    AS_FOUND,
    Background,
    Framing,
    Photograph,
    as_user_error,
    condition,
    decode,
    read,
)
from z1g.inference.several import Targets, View, ViewSearch, in_turn, targets
from z1g.networks.denoiser import Condition
from z1g.networks.fused.modules import fuse_where_possible
from z1g.networks.graphs import Replayed
from z1g.networks.onednn import use_onednn
from z1g.networks.weights.hub import HubName
from z1g.representations import folder as method_folder
from z1g.representations.codec import Trained
from z1g.sampling.options import InferOptions
from z1g.sampling.own_steps import require_own_steps
from z1g.sampling.predicts_v import PredictsV
from z1g.sampling.sample import OnStep, sample_codes

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    from z1g.plan.folder import StageFolder

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""Modes of images that PNG keeps exactly."""
TIFF_MODES = ("I", "F", "CMYK")
"""Modes that TIFF keeps exactly, and PNG does not."""
LARGEST_VALUE = 2.0
"""Of condition images: some resizing overshoots 1, and of images in 0..255 nearly all have more."""
NO_MODEL = "photographs need a method from ImageToSplats.from_pretrained or ImageToSplats.of"


class ImageToSplats:
    """The trained networks of both stages, for sampling.

    `reconstruct` makes splats of a photograph; calling the object samples from condition images.
    """

    def __init__(self, trained: Trained, options: InferOptions, model: TrainedModel | None = None) -> None:
        """Sample with networks in memory.

        trained: frozen networks on the device of sampling. options: of sampling. model: where the networks are from;
        photographs need it.
        """
        self.model = model
        self.codec, self.denoiser, self.statistics = trained.codec, trained.denoiser, trained.statistics
        self.options = options
        self.denoiser.attention = options.attention
        if _bf16(options):
            # Networks of the condition keep their precision: stage 2 trains with conditions computed in float32.
            # `to` of diffusers warns about layers that should stay in float32, but there are none.
            nn.Module.to(self.denoiser.unet, torch.bfloat16)
        self.half_decoder = _half_decoder(options, self.device)
        if self.half_decoder:
            # Without autocast, as in `refined`, this has no effect.
            self.codec.use_bf16_weights(True)
        fuse_where_possible(self.denoiser.unet, self.device)
        self.predict: PredictsV = Replayed(self.denoiser) if options.cuda_graphs else self.denoiser

    @classmethod
    def from_folder(cls, folder: Path, options: InferOptions, model: TrainedModel | None = None) -> ImageToSplats:
        """Read a trained method from the folder of its networks; options and model as for the class.

        Raises UserError if files are missing or do not fit.
        """
        representation, camera, splats = method_folder.read(folder)
        return cls(representation.load(folder, camera, splats, default_device()), options, model)

    @classmethod
    def of(cls, model: TrainedModel) -> ImageToSplats:
        """Read a model's networks. Raises UserError if files are missing or do not fit.

        `precision: auto` is bfloat16 on a CPU with AMX, too, which halves the time, and on CPUs that are not Intel's
        other kernels multiply matrices. Stages of the DAG do neither, since their results must not depend on the CPU.
        """
        options = model.infer
        if options.precision == "auto" and has_bf16_matrices():
            options = options.model_copy(update={"precision": "bf16"})
        method = cls.from_folder(model.pipeline, options, model)
        use_onednn(method.denoiser.unet)
        return method

    @classmethod
    def from_pretrained(cls, name: Path | str, revision: str | None = None) -> ImageToSplats:
        """Read a model of a folder, the package (`"base"`), the hub (`"USER/NAME"`) or a bucket (`"s3://BUCKET/PATH"`).

        revision: branch, tag or commit of a model of the hub; the same as `"USER/NAME@REVISION"`. All files are checked
        against the digests in the model's records. Raises UserError.
        """
        text = os.fspath(name)
        if revision is None:
            return cls.of(open_model(text))
        if HubName.parse(text) is None:
            raise UserError(f"{text}: only models of the hub have revisions; they are named USER/NAME")
        return cls.of(open_model(f"{text}@{revision}"))

    @classmethod
    def from_stage(cls, infer: StageFolder) -> ImageToSplats:
        """The trained method of an `infer` stage."""
        return cls.from_folder(infer.upstream_path("unet") / "pipeline", infer.config.infer)

    def sampling(self, steps: int | None = None, guidance: float | None = None) -> ImageToSplats:
        """The same networks with other options of sampling; None keeps the present ones. Raises UserError."""
        other = copy.copy(self)
        other.options = with_options(self.options, steps, guidance)
        return other

    def reconstruct(
        self,
        photograph: Path | str | Image.Image | Photograph,
        *,
        seed: int | None = None,
        background: Background = "remove",
        framing: Framing = AS_FOUND,
        more: Sequence[View] = (),
        refine: bool = False,
        elevation: float | None = None,
        on_step: OnStep | None = None,
    ) -> Splats:
        """Splats of the object in a photograph, in the world (y up, +z towards the camera), on the CPU.

        photograph: a file or an image; what is transparent is background. seed: default is from the photograph's
        content. background: of an image without transparency; `remove` needs rembg, `keep` leaves it. framing: changes
        of the crop. more: further photographs of the object; the sampled code is then refined until renders match all
        of them. refine: refine it by the first photograph alone, too. elevation: of the first photograph's camera above
        the horizon, degrees; default is the mean of the model's range. on_step: called after each step of sampling, and
        of the search that refines, with the numbers of steps done and of all; an exception in it ends the work. The
        splats are those that `z1g infer` writes.

        Raises UserError if a photograph cannot be used, or if there is an elevation without `more` and `refine`:
        sampling is not told from where a photograph was taken, and only renders are compared with it from there. Raises
        TypeError if the photograph is neither a file nor an image, and ValueError if the method was not read with
        `from_pretrained` or `of`, if there is no such background, or if the seed is negative.
        """
        if self.model is None:
            raise ValueError(NO_MODEL)
        if background not in get_args(Background):
            raise ValueError(f"background is {' or '.join(get_args(Background))}, not {background!r}")
        if elevation is not None and not (more or refine):
            raise UserError("elevation is of use only with refine=True or further photographs, more=[...]")
        if seed is not None and not seed >= 0:
            raise ValueError(f"seed {seed} must not be negative")
        photograph = _photograph(photograph, background)
        wanted = self.targets(photograph, more, elevation, background, framing) if more or refine else None
        camera, (size, resize) = self.model.camera, self.model.condition
        image = condition(photograph, camera, size, background, resize, framing)
        on_step, on_search = in_turn(on_step) if more or refine else (on_step, None)
        codes, images = self(image[None], [photograph.seed if seed is None else seed], on_step=on_step)
        if wanted is not None:
            images = self.decode(self.refined(codes[0], wanted, on_search)[None])
        gaussians = to_gaussians(images)[0]
        require_finite(gaussians, f"the model {self.model.name} is not usable: splats", "train it again")
        return Splats(in_world(gaussians, camera))

    def targets(
        self, first: Photograph, more: Sequence[View], elevation: float | None, background: Background,
        framing: Framing = AS_FOUND,
    ) -> Targets:  # fmt: skip
        """What renders match after `reconstruct` with `more` or `refine`.

        first: the photograph from which the code is sampled. more, elevation, background, framing: as of `reconstruct`.
        Raises UserError if a photograph cannot be used, and ValueError if the method was not read with
        `from_pretrained` or `of`.
        """
        if self.model is None:
            raise ValueError(NO_MODEL)
        views = [(_photograph(view.photograph, background), view) for view in more]
        return targets(first, views, elevation, self.model.camera, background, framing)

    def refined(self, code: Tensor, targets: Targets, on_step: OnStep | None = None) -> Tensor:
        """The code [*shape] near `code`, in the decoder's units, whose renders match the targets best.

        on_step: called in each step with the numbers of steps done and of all; an exception in it ends the search.
        Raises ValueError if the method was not read with `from_pretrained` or `of`.
        """
        if self.model is None:
            raise ValueError(NO_MODEL)
        search = ViewSearch(self.codec.decode, self.model.render, self.model.camera, self.statistics["deviation"])
        return search(code, targets, on_step=on_step)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a code."""
        return self.codec.code_shape

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return self.statistics["zero_latent"].device

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,
        seeds: Sequence[int],
        scheduler: SchedulerMixin | None = None,
        on_step: OnStep | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Codes `[B,*shape]` and splatter images [B,6,14,S,S] for condition images [B,3,H,W] in 0..1.

        images: objects on gray 127, as training shows them. seeds: a random seed for each of them. scheduler: replaces
        that of the options' sampler. on_step: as for `reconstruct`. Raises ValueError for other images, and unless
        there are as many seeds.
        """
        codes = self.codes(images, seeds, scheduler, on_step)
        return codes, self.decode(codes)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Splatter images [B,6,14,S,S] from codes in the decoder's units, in small batches to limit memory.

        On a GPU that samples in bfloat16, the decoder runs as in stage 1's training: all but its last layers are in
        bfloat16.
        """
        with torch.autocast(self.device.type, torch.bfloat16) if self.half_decoder else nullcontext():
            return self.codec.decode_all(codes)

    @torch.no_grad()
    def encode(self, inputs: Tensor) -> Tensor:
        """Codes `[B,*shape]` of encoder inputs, see `Codec.inputs`."""
        return self.codec.encode(inputs)

    @torch.no_grad()
    def codes(
        self,
        images: Tensor,
        seeds: Sequence[int],
        scheduler: SchedulerMixin | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Sampled codes `[B,*shape]` in the decoder's units.

        images: [B,3,H,W] in 0..1. seeds, scheduler, on_step: as for calling the object. Raises UserError if the
        networks were distilled to other steps than those of the options, and ValueError as calling the object does.
        """
        if len(images) != len(seeds):
            raise ValueError(f"{len(images)} condition images need as many seeds, not {len(seeds)}")
        return self.sampled(self.condition(images), seeds, scheduler, on_step)

    @torch.no_grad()
    def sampled(
        self,
        condition: Condition,
        seeds: Sequence[int],
        scheduler: SchedulerMixin | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """As `codes`, `[B,*shape]` in the decoder's units, for images whose condition is known.

        condition: of B images, from `condition`. seeds, scheduler, on_step: as for calling the object. Raises UserError
        as `codes` does.
        """
        require_own_steps(self.denoiser, self.options)
        zero = self.statistics["zero_latent"]
        codes = sample_codes(self.predict, condition, zero, self.shape, self.options, seeds, scheduler, on_step)
        return self.to_units(codes)

    def to_units(self, codes: Tensor) -> Tensor:
        """Codes `[B,*shape]` in the decoder's units from the normalized codes of the denoiser."""
        return codes * self.statistics["deviation"] + self.statistics["mean"]

    def from_units(self, codes: Tensor) -> Tensor:
        """Inverse of `to_units`, of codes `[B,*shape]`."""
        return (codes - self.statistics["mean"]) / self.statistics["deviation"]

    @torch.no_grad()
    def condition(self, images: Tensor) -> Condition:
        """The denoiser's condition from condition images [B,3,H,W] in 0..1. Raises ValueError for other images."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            kind = f"{list(images.shape)} of {images.dtype}"
            raise ValueError(f"condition images are a tensor of floats [B,3,H,W] in 0..1, not {kind}")
        if len(images) and not images.amax() <= LARGEST_VALUE:
            raise ValueError(f"condition images have values in 0..1, not up to {float(images.amax()):g}")
        images = images.to(self.device, torch.float32)
        return self.denoiser.condition(self.codec.condition_latent(images), images)


def _photograph(source: Path | str | Image.Image | Photograph, background: Background) -> Photograph:
    if isinstance(source, Photograph):
        return source
    if isinstance(source, Image.Image):
        name = Path(os.fsdecode(getattr(source, "filename", None) or "image"))
        return decode(_content(source, name), name, background)
    if not isinstance(source, Path | str):
        raise TypeError(
            f"a photograph is a file, an image of PIL or a Photograph, not {type(source).__name__}; "
            "PIL.Image.fromarray makes an image of an array of uint8"
        )
    return read(Path(source), background)


def _content(image: Image.Image, name: Path) -> bytes:
    """A file with the pixels and the color profile of an image, upright; `name` is the image's in messages.

    Raises UserError if it has no pixels, or if they cannot be read.
    """
    if not all(image.size):
        raise UserError(f"the image has no pixels: it is {image.width}x{image.height}")
    content = BytesIO()
    with as_user_error(name):
        # Pillow rotates the pixels of a file neither when it opens nor when it saves them.
        image = _storable(ImageOps.exif_transpose(image))
        image.save(content, "TIFF" if image.mode in TIFF_MODES else "PNG")
    return content.getvalue()


def _storable(image: Image.Image) -> Image.Image:
    """An image of a mode that a file keeps exactly."""
    if image.mode.startswith("I;16"):
        # Of another order of bytes: PNG has one, and keeps the transparent value, which TIFF does not.
        gray = Image.fromarray(np.asarray(image).astype("<u2"))
        gray.info = dict(image.info)
        return gray
    if image.mode == "La":
        return image.convert("LA")
    return image if image.mode in (*PNG_MODES, *TIFF_MODES) else image.convert("RGBA")


def has_bf16_matrices() -> bool:
    """Whether the networks run on a CPU that multiplies matrices of bfloat16."""
    return default_device().type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def _bf16(options: InferOptions) -> bool:
    return options.precision == "bf16" or (options.precision == "auto" and torch.cuda.is_available())


def _half_decoder(options: InferOptions, device: torch.device) -> bool:
    return _bf16(options) and device.type == "cuda"
