"""The file in the folder of a trained method that stores how to build its networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from z1g.core.errors import UserError
from z1g.core.files import read_json, write_json
from z1g.core.slots import OneOf
from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.representations.base import Representation

FILE = "stage1.json"
REMEDY = (
    "It is damaged or from another version of z1g: delete {folder} and create it again, in a run with "
    "`snakemake --profile local ablation_all`"
)
"""End of messages about a folder whose networks cannot be used; it has the placeholder `folder`."""
LEGACY_OPTIONS = ("input_size", "decoder", "scale")
"""Options of the mosaic that version 0.1 stored under `autodecoder`."""


def write(folder: Path, representation: Representation, camera: CameraOptions, splats: SplatOptions) -> None:
    """Write `stage1.json`."""
    sections = {"representation": representation, "camera": camera, "splat": splats}
    write_json(folder / FILE, {name: section.model_dump(mode="json") for name, section in sections.items()})


def read(folder: Path) -> tuple[Representation, CameraOptions, SplatOptions]:
    """Inverse of `write`. Raises UserError if the file is missing, damaged or from another version."""
    file = folder / FILE
    try:
        values: dict[str, Any] = read_json(file)
        if "representation" not in values:
            options = values["autodecoder"]
            values["representation"] = {"kind": "mosaic", **{key: options[key] for key in LEGACY_OPTIONS}}
        representation: Representation = TypeAdapter(Annotated[Representation, OneOf()]).validate_python(
            values["representation"]
        )
        return (
            representation,
            CameraOptions.model_validate(values["camera"]),
            SplatOptions.model_validate(values["splat"]),
        )
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise UserError(
            f"{file} cannot be used: {str(error).splitlines()[0]}; was the folder written by z1g?"
        ) from error
