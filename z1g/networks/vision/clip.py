"""CLIP's vision transformer for sampling.

transformers has the same network and is what trains and saves it, but its import takes longer than all else that the
networks of a photograph need.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from z1g.core.errors import UserError
from z1g.core.files import read_json
from z1g.core.weights import load_exactly
from z1g.networks import int8

FILE = "model.safetensors"


class ClipVision(nn.Module):
    """`CLIPVisionModelWithProjection` of transformers, with its names of weights, for inference."""

    def __init__(self, config: dict[str, Any]) -> None:
        """config: entries of the `config.json` of transformers. Raises UserError if the network is another one."""
        super().__init__()
        if config.get("model_type") != "clip_vision_model" or config.get("hidden_act") != "quick_gelu":
            raise UserError("the image encoder is not CLIP's")
        self.config = SimpleNamespace(image_size=int(config["image_size"]))
        self.vision_model = _Transformer(config)
        self.visual_projection = nn.Linear(config["hidden_size"], config["projection_dim"], bias=False)

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        """`image_embeds` [B,E] of normalized images [B,3,S,S], the projection of the first token."""
        return SimpleNamespace(image_embeds=self.visual_projection(self.vision_model(pixel_values)))

    @classmethod
    def read(cls, folder: Path, remedy: str = "") -> ClipVision:
        """Read what transformers saved, in float32 or int8. Raises UserError if tensors do not fit."""
        with torch.device("meta"):
            network = cls(read_json(folder / "config.json"))
        load_exactly(network, int8.load_restored(folder / FILE), folder, assign=True, remedy=remedy)
        return network.eval()


class _Transformer(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        self.embeddings = _Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(width, eps)  # transformers spells it this way
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(_Layer(config) for _ in range(config["num_hidden_layers"]))}
        )
        self.post_layernorm = nn.LayerNorm(width, eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = self.pre_layrnorm(self.embeddings(pixel_values))
        for layer in self.encoder["layers"].children():
            x = layer(x)
        first: Tensor = self.post_layernorm(x[:, 0])
        return first


class _Embeddings(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, patch = config["hidden_size"], config["patch_size"]
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.patch_embedding = nn.Conv2d(config["num_channels"], width, patch, stride=patch, bias=False)
        positions = (config["image_size"] // patch) ** 2 + 1
        # An nn.Embedding draws weights, which on `meta` imports torch's compiler.
        self.position_embedding = nn.ParameterDict({"weight": torch.empty(positions, width)})

    def forward(self, pixel_values: Tensor) -> Tensor:
        patches = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), 1, -1)
        tokens: Tensor = torch.cat([first, patches], dim=1) + self.position_embedding["weight"]
        return tokens


class _Layer(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.self_attn = _Attention(width, config["num_attention_heads"])
        wide = config["intermediate_size"]
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, wide), "fc2": nn.Linear(wide, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        hidden = self.mlp["fc1"](self.layer_norm2(x))
        # "quick_gelu", which CLIP was trained with.
        output: Tensor = x + self.mlp["fc2"](hidden * torch.sigmoid(1.702 * hidden))
        return output


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        output: Tensor = self.out_proj(mixed)
        return output
