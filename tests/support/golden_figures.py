"""Figures that summarize the results of each stage, reproducible on every machine.

They are means and root mean squares of tensors, losses, gradient norms and the size of weight updates. Single values
would depend on the order of additions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from support.golden_numbers import numbers
from z1g.core.files import read_json, read_jsonl
from z1g.data.shards import ShardReader
from z1g.gaussians import ply
from z1g.gaussians.channels import CHANNELS

Figures = dict[str, Any]
"""Numbers by name; a tensor is summarized by its mean and root mean square."""
Named = Iterator[tuple[str, Any]]


def spread(value: Tensor | np.ndarray[Any, Any]) -> list[float]:
    """Mean and root mean square."""
    x = value.double() if isinstance(value, Tensor) else torch.from_numpy(value.astype(np.float64))
    return [float(x.mean()), float(x.square().mean().sqrt())]


def attributes(splats: Tensor) -> Named:
    """Of splatter images [...,14,S,S]."""
    for name, channels in CHANNELS.items():
        yield name, spread(splats.movedim(-3, 0)[channels])


def of_history(folder: Path) -> Named:
    for row in read_jsonl(folder / "history.jsonl"):
        for name, value in row.items():
            # The norms of later gradients depend most on the order of additions.
            if name not in ("step", "seconds") and (name != "gradient_norm" or row["step"] <= 2):
                yield f"step {row['step']} {name}", value


def moved(folder: Path) -> Named:
    """Changes of a network's weights in training, from their synthetic initialization, by top-level module."""
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    for part in sorted({name.split(".")[0] for name in weights}):
        names = [name for name in sorted(weights) if name.split(".")[0] == part]
        yield part, spread(torch.cat([(weights[name] - numbers(name, weights[name])).flatten() for name in names]))


def of_ingest(folder: Path) -> Named:
    for file in sorted(folder.glob("chunk-*.jsonl")):
        rows = read_jsonl(file)
        yield from ((f"{row['id']} rendered", float(row["status"] == "ok")) for row in rows)
        reader = ShardReader(file.with_suffix(".tar"))
        for name in reader.ids:
            item = reader.read(name)
            yield f"{name} positions", spread(item.c2w[:, :3, 3])
            yield f"{name} directions", spread(item.c2w[:, :3, 2])
            yield f"{name} first position", item.c2w[0, :3, 3].tolist()
            yield f"{name} fov", float(item.fov_y_deg)
            for channel, what in enumerate(("red", "green", "blue", "alpha")):
                yield f"{name} {what}", spread(item.rgba[..., channel])
            for what, maps in (("depth", item.depth), ("normals", item.normals)):
                if maps is not None:
                    yield f"{name} {what}", spread(maps)
            if "normalization" in item.info:
                yield f"{name} triangles", item.info["n_triangles"]
                yield f"{name} center", item.info["normalization"]["center"]
                yield f"{name} scale", item.info["normalization"]["scale"]


def of_fit(folder: Path) -> Named:
    for file in sorted(folder.glob("chunk-*.jsonl")):
        for row in read_jsonl(file):
            for name in ("psnr", "ssim", "validation_psnr", "steps"):
                yield f"{row['id']} {name}", row[name]
    splats = [value for file in sorted(folder.glob("chunk-*.safetensors")) for value in load_file(file).values()]
    yield from ((f"splats {name}", value) for name, value in attributes(torch.stack(splats)))
    for file in sorted(folder.glob("chunk-*.png")):
        yield file.name, spread(np.asarray(Image.open(file)))


def of_autodecoder(folder: Path) -> Named:
    yield from of_history(folder)
    yield from ((f"vae moved {name}", value) for name, value in moved(folder / "model" / "vae"))
    for file in sorted((folder / "model").glob("*.safetensors")):
        yield from ((f"{file.stem} {name}", spread(value)) for name, value in sorted(load_file(file).items()))


def of_codes(folder: Path) -> Named:
    yield from ((name, spread(value)) for name, value in sorted(load_file(folder / "codes.safetensors").items()))


def of_unet(folder: Path) -> Named:
    yield from of_history(folder)
    yield from ((f"unet moved {name}", value) for name, value in moved(folder / "pipeline" / "unet"))
    described = load_file(folder / "pipeline" / "conditioning" / "diffusion_pytorch_model.safetensors")
    yield from ((f"conditioning {name}", spread(value)) for name, value in sorted(described.items()))


def of_infer(folder: Path) -> Named:
    for chunk in sorted(folder.glob("chunk-*")):
        stored = load_file(chunk / "splats.safetensors")
        for name in sorted({key.split("/")[0] for key in stored}):
            yield f"{name} code", spread(stored[f"{name}/code"])
            yield from ((f"{name} {part}", value) for part, value in attributes(stored[f"{name}/splats"]))
            yield f"{name} ply", spread(ply.read(chunk / f"{name}.ply", np.eye(4)))
            for ending in ("sheet.png", "turntable.webp"):
                image = Image.open(chunk / f"{name}.{ending}")
                yield f"{name} {ending}", spread(np.asarray(image.convert("RGB")))
                yield f"{name} {ending} frames", getattr(image, "n_frames", 1)


def of_metrics(folder: Path) -> Named:
    about = read_json(folder / "metrics.json")
    for file, scope in (("metrics.jsonl", "view"), ("objects.jsonl", "object")):
        rows = read_jsonl(folder / file)
        names = [name for name, metric in about["metrics"].items() if metric["scope"] == scope]
        for source in sorted({row["source"] for row in rows}):
            for name in names:
                values = [row[name] for row in rows if row["source"] == source and row[name] is not None]
                yield f"{source} {name}", float(np.mean(values))
                yield f"{source} {name} values", len(values)
    yield "azimuth_deg", float(np.mean([row["azimuth_deg"] for row in read_jsonl(folder / "metrics.jsonl")]))
    for row in about["sets"]:
        split, source = row.pop("split"), row.pop("source")
        yield from ((f"{split} {source} {name}", value) for name, value in row.items())


SUMMARIES: dict[str, Callable[[Path], Named]] = {
    "ingest": of_ingest, "fit": of_fit, "autodecoder": of_autodecoder, "codes": of_codes, "unet": of_unet,
    "infer": of_infer, "metrics": of_metrics,
}  # fmt: skip
