"""What other systems must be given: condition images, cameras and names, so that others can repeat a comparison."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.files import atomic_folder, write_json, write_text
from z1g.core.names import counted
from z1g.core.progress import track
from z1g.core.recorded import file_digest
from z1g.data.shards import RenderedObject
from z1g.geometry.camera import CONDITION_VIEW
from z1g.geometry.frames import Condition
from z1g.peers.evaluate import Given
from z1g.peers.listing import read_list
from z1g.render.images import save_png

BACKGROUNDS: dict[str, float] = {"white": 1.0, "gray": 127 / 255}
"""Colors behind an object; gray is what Zero123++ and this method see."""
COLUMNS = ("object", "split", "rgba", "elevation_deg", "content", "license", "creator")
README = """# Condition images

Of {n} objects, as `z1g conditions` wrote them. One image an object, of {size} x {size} pixels{more}:

    rgba/<object>.png      color and alpha, straight; the object is cut out exactly
    white/<object>.png     on white
    gray/<object>.png      on gray 127
    objects.csv            one line an object: name, split, elevation of its camera, content, license, creator
    cameras.json           its condition camera, and those of the views that results are measured in
    checksums.json         SHA-256 of every file

Give a system one of these images of an object, and store what it makes as

    outputs/<object>.ply, .splat or .spz (splats), .glb, .obj or .ply (a mesh)

Objects of the split `train` were seen by the trained models of these results; those of `test` were not.

- The condition camera is {radius:g} from the object's center, with a vertical field of view of {fov:g} degrees; the
  object fits a sphere of diameter 1. Its elevation differs between objects: {low:.1f} to {high:.1f} degrees.
- Switch off whatever crops, centers or resizes the foreground: scale and place of an output follow from the camera. If
  that cannot be switched off, say `--registered` below.
- No image of another view may be given, nor `cameras.json` to a system that estimates the pose by itself.
- Beside the outputs, `cost.json` may say {{"seconds": per object, "parameters": number, "memory_gb": peak,
  "hardware": "..."}}.

Then, where these results are:

    z1g evaluate --outputs outputs --frame <system> --objects objects.csv --like {like}

Results were planned as {like}, ingest {ingest}. Test images are known by their digests, which `z1g evaluate` compares.
"""


def write_conditions(
    results: Path, out: Path, like: str, sizes: Sequence[int] = (), objects: Path | None = None
) -> list[str]:
    """Write the folder `out`; returns the ids of the objects. Raises UserError if `out` exists.

    sizes: sides in pixels of further copies, in `rgba-<size>/` and so on.
    """
    if out.exists():
        raise UserError(f"--out {out}: it exists; name a new folder")
    given = Given.of(results, like)
    wanted = list(given.splits) if objects is None else list(read_list(objects, list(given.splits)))
    names = [name for name in wanted if name in given.scenes.ids]
    if not names:
        raise UserError(
            f"none of {counted(len(wanted), 'evaluated object')} has been rendered; run `snakemake` up to ingest"
        )
    rows, cameras = [], {}
    with atomic_folder(out) as folder:
        for name in track(names, "conditions", len(names)):
            item = given.truth(name).item
            _write_images(folder, item, sizes)
            rows.append(_row(given, name, item))
            cameras[name] = _cameras(item, list(given.trained.config.camera.test_ids))
        write_text(folder / "objects.csv", _table(rows))
        write_json(folder / "cameras.json", {"axes": "OpenCV cameras c2w [4,4], y-up world", "objects": cameras})
        write_text(folder / "README.md", _readme(given, rows, item, sizes))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        sums = {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
        write_json(folder / "checksums.json", sums)
    return names


def on_background(rgba: NDArray[np.uint8], background: float, size: int) -> NDArray[np.uint8]:
    """The image [size,size,3] of an RGBA image [H,W,4] with straight alpha on a gray background, 0..1."""
    premultiplied, alpha = _resized(rgba, size)
    return _bytes(premultiplied + (1 - alpha) * background)


def cut_out(rgba: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The RGBA image [size,size,4] with straight alpha; color is resized as what is seen, so edges stay clean."""
    if rgba.shape[0] == size:
        return rgba
    premultiplied, alpha = _resized(rgba, size)
    color = torch.where(alpha > 0, premultiplied / alpha.clamp(min=1e-6), torch.zeros(()))
    return _bytes(torch.cat([color, alpha]))


def _resized(rgba: NDArray[np.uint8], size: int) -> tuple[Tensor, Tensor]:
    """Premultiplied color [3,size,size] and alpha [1,size,size] in 0..1, antialiased."""
    image = torch.from_numpy(rgba).permute(2, 0, 1).double() / 255
    seen = torch.cat([image[:3] * image[3:], image[3:]])
    if rgba.shape[0] != size:
        seen = functional.interpolate(seen[None], (size, size), mode="bicubic", antialias=True)[0].clamp(0, 1)
    return seen[:3], seen[3:]


def _bytes(image: Tensor) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return array


def _write_images(folder: Path, item: RenderedObject, sizes: Sequence[int]) -> None:
    image = item.rgba[CONDITION_VIEW]
    for size in [None, *sizes]:
        side, suffix = (image.shape[0], "") if size is None else (size, f"-{size}")
        (folder / f"rgba{suffix}").mkdir(exist_ok=True)
        Image.fromarray(cut_out(image, side), "RGBA").save(folder / f"rgba{suffix}" / f"{item.id}.png")
        for name, value in BACKGROUNDS.items():
            (folder / f"{name}{suffix}").mkdir(exist_ok=True)
            save_png(on_background(image, value, side), folder / f"{name}{suffix}" / f"{item.id}.png")


def _row(given: Given, name: str, item: RenderedObject) -> dict[str, Any]:
    entry = given.entries[name]
    condition = Condition.of(item.c2w[CONDITION_VIEW], item.fov_y_deg)
    return {
        "object": name, "split": given.splits[name], "rgba": f"rgba/{name}.png",
        "elevation_deg": f"{condition.elevation_deg:.3f}", "content": entry.content or "", "license": entry.license,
        "creator": entry.creator,
    }  # fmt: skip


def _cameras(item: RenderedObject, test_views: list[int]) -> dict[str, Any]:
    condition = Condition.of(item.c2w[CONDITION_VIEW], item.fov_y_deg)
    return {
        "fov_y_deg": item.fov_y_deg, "azimuth_deg": round(condition.azimuth_deg, 6),
        "elevation_deg": round(condition.elevation_deg, 6), "distance": round(condition.radius, 6),
        "condition": item.c2w[CONDITION_VIEW].tolist(), "test": [item.c2w[view].tolist() for view in test_views],
    }  # fmt: skip


def _table(rows: Sequence[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _readme(given: Given, rows: Sequence[dict[str, Any]], item: RenderedObject, sizes: Sequence[int]) -> str:
    """The README; `item` is any of the objects."""
    elevations = [float(row["elevation_deg"]) for row in rows]
    condition = Condition.of(item.c2w[CONDITION_VIEW], item.fov_y_deg)
    more = "".join(f", and of {size} in folders that end with -{size}" for size in sizes)
    return README.format(
        n=len(rows), size=item.rgba.shape[1], more=more, radius=round(condition.radius, 4), fov=item.fov_y_deg,
        low=min(elevations), high=max(elevations), like=given.like, ingest=given.folder.upstream["ingest"],
    )  # fmt: skip
