"""Trained models as folders that need no results tree (`z1g.networks.weights.packaged`): to read and to write one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from z1g.core.errors import UserError
from z1g.core.files import atomic_folder
from z1g.core.recorded import sha256
from z1g.core.s3 import copy_from
from z1g.core.sealed import read_sealed, write_sealed
from z1g.core.slots import OneOf, first_reason
from z1g.core.urls import is_url
from z1g.data.condition_form import ConditionForm
from z1g.geometry.camera import CameraOptions
from z1g.meshes.index import cache_folder
from z1g.networks.weights.hub import FILES, HubName, fetch
from z1g.networks.weights.packaged import CARD, FILE, METHOD_FILE, NETWORKS, absent, folder_of, shipped
from z1g.plan.folder import StageFolder
from z1g.plan.records import read_plan
from z1g.render import Rasterizer
from z1g.representations import folder as method_folder
from z1g.representations import packed
from z1g.sampling.options import InferOptions

DEFAULT = "base"
NETWORKS_DIGEST = "networks_sha256"
"""In `model.json`: the digest of the file with the digests of all networks. Earlier `z1g pack` did not write it."""


@dataclass(frozen=True)
class TrainedModel:
    """A trained method on disk and how to sample from it.

    name: for messages and records. pipeline: folder of the networks. condition: form of condition
    images. stages: ids of the stages that made it, by name.
    """

    name: str
    pipeline: Path
    infer: InferOptions
    camera: CameraOptions
    render: Rasterizer
    condition: ConditionForm
    stages: dict[str, str]

    def sampling(self, steps: int | None = None, guidance: float | None = None) -> TrainedModel:
        """The model with other options of sampling; None keeps the model's. Raises UserError."""
        return replace(self, infer=with_options(self.infer, steps, guidance))


def with_options(options: InferOptions, steps: int | None, guidance: float | None) -> InferOptions:
    """Options with other numbers where they are not None. Raises UserError if these are out of range."""
    changes = {name: value for name, value in (("steps", steps), ("guidance", guidance)) if value is not None}
    try:
        return InferOptions.model_validate({**options.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{first['loc'][0]} {first['input']}: {first['msg']}") from error


def open_model(text: str | None) -> TrainedModel:
    """The model of a folder, of a name among those that come with the package, or of the hub; None is `DEFAULT`.

    A name of the hub is `USER/NAME` or `USER/NAME@REVISION`; the model's name then has the commit that was fetched. A
    model in a bucket is `s3://BUCKET/PATH`.
    Raises UserError if there is none, or if its `model.json` is damaged; its networks are checked when they are read.
    """
    if text is None and DEFAULT not in shipped():
        raise UserError("no model comes with this version: give --run results/ablations/<name>, or --model FOLDER")
    text = DEFAULT if text is None else text
    folder, hub = folder_of(text), HubName.parse(text)
    if is_url(text):
        folder = _copied(text)
    elif hub is not None and not folder.exists():
        folder, commit = fetch(hub)
        text = f"{hub.repository}@{commit}"
    if not text.strip() or not (folder / FILE).is_file():
        raise UserError(absent(text))
    try:
        values = read_sealed(folder / FILE, FILE)
        digest = sha256(folder / NETWORKS / METHOD_FILE)
        if values.get(NETWORKS_DIGEST, digest) != digest:
            raise ValueError(f"{NETWORKS}/{METHOD_FILE} does not have the digest that is recorded here")
        _, camera, _ = method_folder.read(folder / NETWORKS)
        rasterizer: TypeAdapter[Rasterizer] = TypeAdapter(Annotated[Rasterizer, OneOf()])
        return TrainedModel(
            text,
            folder / NETWORKS,
            InferOptions.model_validate(values["infer"]),
            camera,
            rasterizer.validate_python(values["render"]),
            TypeAdapter(ConditionForm).validate_python(
                (values["condition_size"], values.get("condition_resize", "bilinear"))
            ),
            {str(stage): str(identity) for stage, identity in values["stages"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise UserError(f"{folder / FILE} cannot be used: {first_reason(error)}; write the model again") from error


def _copied(url: str) -> Path:
    """The copy of a bucket's model in the user's cache folder. Its files are checked when they are read."""
    folder = cache_folder() / "models" / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    copy_from(url, folder, lambda name: any(fnmatch(name, pattern) for pattern in FILES))
    return folder


def of_run(run: Path) -> TrainedModel:
    """The model of a run `results/ablations/<name>` or of a stage folder `results/infer/<id>`. Raises UserError."""
    folder = infer_folder(run)
    trained, unet = folder.upstream_folder("autodecoder").config, folder.upstream_folder("unet")
    return TrainedModel(
        str(run),
        unet.path / NETWORKS,
        folder.config.infer,
        trained.camera,
        trained.render,
        unet.config.unet.condition_form,
        {**folder.upstream, "infer": folder.id},
    )


def infer_folder(run: Path) -> StageFolder:
    """The trained `infer` stage of the plan in `results/ablations/<name>`, or `run` itself. Raises UserError."""
    plan = run / "plan.json"
    if not plan.is_file():
        folder = StageFolder.open(run) if (run / "stage.json").is_file() else None
        if folder is None or folder.stage != "infer":
            raise UserError(f"{run}: neither results/ablations/<name> nor results/infer/<id>")
    else:
        folder = StageFolder.open(run.parent.parent / "infer" / read_plan(run)["stages"]["infer"])
    for stage, part in (("autodecoder", "model"), ("unet", NETWORKS)):
        if not (folder.upstream_path(stage) / part).is_dir():
            raise UserError(
                f"{run} is not trained yet: {folder.upstream_path(stage) / part} is missing; "
                f"create it with `snakemake --profile local ablation_all`"
            )
    return folder


def write_model(model: TrainedModel, out: Path, *, int8: bool, about: dict[str, Any], card: str) -> None:
    """Write a model's folder, complete or not at all. about: more entries of `model.json`. card: its README.

    Raises UserError if `out` exists, or if a file of the networks is damaged.
    """
    if out.exists():
        raise UserError(f"{out} exists already; delete it, or give another --out")
    with atomic_folder(out) as temporary:
        (packed.pack if int8 else packed.copy)(model.pipeline, temporary / NETWORKS)
        (temporary / CARD).write_text(card, encoding="utf-8")
        values = {
            "infer": model.infer.model_dump(mode="json"),
            "render": model.render.model_dump(mode="json"),
            "condition_size": model.condition.size,
            "condition_resize": model.condition.resize,
            "stages": model.stages,
            **about,
            NETWORKS_DIGEST: sha256(temporary / NETWORKS / METHOD_FILE),
        }
        write_sealed(temporary / FILE, values, FILE)
