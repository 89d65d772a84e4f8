"""The file in the folder of a trained method that stores how to build its networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from z1g.core.errors import UserError
from z1g.core.listed import files_of, require_listed
from z1g.core.recorded import checked_folder, has_record, sha256
from z1g.core.sealed import read_sealed, write_sealed
from z1g.core.slots import OneOf, first_reason
from z1g.core.unchecked import warn_unchecked
from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.networks.weights import packaged
from z1g.representations.base import Representation

FILE = "stage1.json"
REMEDY = (
    "It is damaged or from another version of z1g: delete {folder} and create it again, in a run with "
    "`snakemake --profile local ablation_all`"
)
"""End of messages about a folder whose networks cannot be used; it has the placeholder `folder`."""
AGAIN = "Copy or fetch the model again, or write it again with `z1g pack`"
"""The same for a model that `z1g pack` wrote, which needs no run."""
ENDINGS = (".json", ".safetensors", ".bin")
"""Of files from which networks are read."""
LEGACY_OPTIONS = ("input_size", "decoder", "scale")
"""Options of the mosaic that version 0.1 stored under `autodecoder`."""


def write(folder: Path, representation: Representation, camera: CameraOptions, splats: SplatOptions) -> None:
    """Write `stage1.json`, with the digests of all other files of the folder, which must be there before."""
    sections = {"representation": representation, "camera": camera, "splat": splats}
    values: dict[str, Any] = {name: section.model_dump(mode="json") for name, section in sections.items()}
    files = {name: sha256(folder / name) for name in files_of(folder) if name != FILE}
    write_sealed(folder / FILE, {**values, "files": files}, FILE)


def read(folder: Path) -> tuple[Representation, CameraOptions, SplatOptions]:
    """Inverse of `write`, after a check of all files of the folder.

    In a results tree, they are compared with the record of the job, elsewhere with the digests in `stage1.json`.
    Raises UserError if a file is missing, damaged or not of this folder, or if `stage1.json` is of another version.
    """
    checked_folder(folder)
    return _options(folder, check_files=True)


def read_options(folder: Path) -> tuple[Representation, CameraOptions, SplatOptions]:
    """`read` without the check of the networks' files. Raises UserError if `stage1.json` cannot be used."""
    return _options(folder, check_files=False)


def require_codes(folder: Path, sizes: Sequence[int], stored: Sequence[int] | None) -> None:
    """Raise UserError unless codes have the sizes with which the networks were trained, before memory is taken by them.

    sizes: of codes by the options in `stage1.json`. stored: as the networks' own files say; None: they do not.
    """
    if stored is not None and tuple(sizes) != tuple(stored):
        shapes = ["x".join(map(str, shape)) for shape in (sizes, stored)]
        raise UserError(
            f"{folder / FILE} cannot be used: its sizes are those of codes {shapes[0]}, and the networks beside it "
            f"were trained on {shapes[1]}. {remedy(folder)}"
        )


def remedy(folder: Path) -> str:
    """What to do about a folder whose networks cannot be used."""
    return AGAIN if (folder.parent / packaged.FILE).is_file() else REMEDY.format(folder=folder)


def _options(folder: Path, check_files: bool) -> tuple[Representation, CameraOptions, SplatOptions]:
    file = folder / FILE
    try:
        values: dict[str, Any] = read_sealed(file, FILE)
        if check_files:
            _require_files(folder, values.get("files"))
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
        raise UserError(f"{file} cannot be used: {first_reason(error)}; was the folder written by z1g?") from error


def _require_files(folder: Path, files: dict[str, str] | None) -> None:
    """Raise UserError unless the files of a folder outside of a results tree are as they were written.

    files: their digests by name; None, of an earlier version, checks nothing. Other files that are no network's, such
    as a description, may be added.
    """
    if has_record(folder):
        return
    if files is None:
        warn_unchecked(folder, "stage1.json of an earlier version has no digests")
        return
    require_listed(folder, files, FILE, remedy(folder), ENDINGS)
