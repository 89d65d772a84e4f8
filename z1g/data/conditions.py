"""The condition image of the denoiser, from an object's image with transparency."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional
from PIL import Image
from torch import Tensor

from z1g.data.condition_form import Resize

GRAY = 127
CONDITION_BACKGROUND = GRAY / 255
"""Zero123++ composites the condition on the integer gray 127."""


def condition_image(rgb: Tensor, alpha: Tensor, size: int, resize: Resize = "bilinear") -> Tensor:
    """The UNet's condition [3,size,size] in 0..1 from premultiplied color [1,3,H,W] and alpha [1,1,H,W] in 0..1."""
    if resize == "bicubic":
        return _by_pillow(rgb[0], alpha[0], size)
    image = rgb + (1 - alpha) * CONDITION_BACKGROUND
    if image.shape[-1] != size or image.shape[-2] != size:
        image = functional.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return image[0].clamp(0, 1)


def _by_pillow(rgb: Tensor, alpha: Tensor, size: int) -> Tensor:
    """As in the original: Pillow's bicubic resize of an 8-bit RGBA image, composited on gray and cut to bytes."""
    straight = torch.where(alpha > 0, rgb / alpha.clamp(min=1e-6), 0)
    pixels = (torch.cat([straight, alpha]).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    resized = np.asarray(Image.fromarray(pixels, "RGBA").resize((size, size), Image.Resampling.BICUBIC)).astype(int)
    opacity = resized[..., 3:]
    # In integers, so that cutting to bytes does not depend on the rounding of floats.
    composite = (resized[..., :3] * opacity + GRAY * (255 - opacity)) // 255
    return (torch.from_numpy(composite).permute(2, 0, 1).float() / 255).to(rgb.device)
