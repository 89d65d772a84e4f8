"""How images become the inputs of published networks: transformers' processor and its `preprocessor_config.json`.

Images go through bytes and Pillow, as in the published pipelines: float arithmetic would move CLIP's embedding by 0.1
to 0.25 % and the codes sampled with it by 0.7 to 1.8 % (rms).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.files import read_json, write_json

FILE = "preprocessor_config.json"
VAE, CLIP = "feature_extractor_vae", "feature_extractor_clip"
"""Folders of the processors of a Zero123++ pipeline: of the condition's latent and of its embedding."""
KINDS = ("CLIPImageProcessor", "CLIPImageProcessorPil", "CLIPImageProcessorFast", "CLIPFeatureExtractor")
"""Names that transformers' versions give to this processor."""
LARGEST = 8192
Side = Annotated[int, Field(ge=1, le=LARGEST)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Size(BaseModel):
    """The shorter side of an image, or both sides, in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shortest_edge: Side | None = None
    height: Side | None = None
    width: Side | None = None


class ImageProcessor(BaseModel):
    """Resizing, cropping and normalization of images by transformers' `CLIPImageProcessor`.

    The fields are those of `preprocessor_config.json`. Absent ones have transformers' defaults, which are CLIP's.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    do_resize: bool = True
    size: Size | Side = Size(shortest_edge=224)
    resample: int = Field(3, ge=0, le=5)
    do_center_crop: bool = True
    crop_size: Size | Side = Size(height=224, width=224)
    do_rescale: bool = True
    rescale_factor: Positive = 1 / 255
    do_normalize: bool = True
    image_mean: tuple[Finite, Finite, Finite] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[Positive, Positive, Positive] = (0.26862954, 0.26130258, 0.27577711)

    @classmethod
    def read(cls, file: Path, remedy: str) -> ImageProcessor:
        """Read a `preprocessor_config.json`. Raises UserError, with `remedy`, unless it describes such a processor."""
        try:
            values: dict[str, Any] = read_json(file)
            kind = values.get("image_processor_type", values.get("feature_extractor_type", KINDS[0]))
            if kind not in KINDS:
                raise ValueError(f"it describes a {kind}, not a {KINDS[0]}")
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        except (OSError, ValueError, AttributeError, TypeError) as error:
            problem = str(error).split("\n", maxsplit=1)[0]
        raise UserError(f"{file} cannot be used: {problem}. {remedy}")

    @classmethod
    def of_folder(cls, folder: Path, part: str, remedy: str) -> ImageProcessor | None:
        """The processor that `save` wrote into a part of a folder, or None if there is none. Raises UserError."""
        file = folder / part / FILE
        return cls.read(file, remedy) if file.is_file() else None

    def save(self, folder: Path) -> None:
        """Write `preprocessor_config.json` in the public layout."""
        folder.mkdir(parents=True, exist_ok=True)
        values = self.model_dump(mode="json", exclude_none=True)
        write_json(folder / FILE, {"image_processor_type": KINDS[0], "do_convert_rgb": True, **values})

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Inputs [B,3,h,w] of a network, float32, from images [B,3,H,W] in 0..1, which are rounded to bytes."""
        pixels = (images.detach().float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        values = self._processor(images=list(pixels), input_data_format="channels_last", return_tensors="np")
        return torch.from_numpy(np.asarray(values["pixel_values"], dtype=np.float32)).to(images.device)

    def zeros(self, side: int) -> Tensor:
        """The input [1,3,h,w] of zeros, which represents no image, as large as that of a square image."""
        return torch.zeros_like(self(torch.zeros(1, 3, side, side)))

    @cached_property
    def _processor(self) -> Any:
        import transformers

        # Newer versions of transformers resize with torchvision by default, which differs by up to two levels of 255.
        kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
        return kind(do_convert_rgb=False, **self.model_dump(exclude_none=True))
