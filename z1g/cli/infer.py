"""`z1g infer`: splats from photographs; with a stage folder and `--chunk`, the DAG's `infer` job."""

import argparse
import sys
from pathlib import Path

from z1g.cli import stage
from z1g.cli.arguments import between, some_path
from z1g.core.errors import UserError
from z1g.core.needs import GPU
from z1g.core.urls import is_url
from z1g.inference.listed import find
from z1g.networks.weights.hub import HubName
from z1g.networks.weights.packaged import FILE, absent, folder_of
from z1g.plan.runs import run_folder
from z1g.render.compiled import compile_beside

OF_PHOTOGRAPHS = {
    "model": "--model", "run": "--run", "out": "--out", "background": "--background", "seed": "--seed",
    "size": "--size", "steps": "--steps", "guidance": "--guidance", "shift": "--shift", "zoom": "--zoom",
    "more": "--with", "refine": "--refine", "elevation": "--elevation", "mesh": "--mesh",
}  # fmt: skip
"""Options that a stage's job does not have, by the names of their values."""
OF_JOBS = {"gpus": "--gpus", "nodes": "--nodes", "outputs": "--outputs"}
"""Options that photographs do not have."""


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments: photographs and a run, or a stage folder and a chunk."""
    parser.add_argument(
        "paths", nargs="+", type=some_path, help="photographs or folders of them; or results/infer/<id>"
    )
    photographs = parser.add_argument_group("photographs", "python -m z1g infer photo.png")
    model = photographs.add_mutually_exclusive_group()
    model.add_argument(
        "--model",
        help="a model's folder, see z1g pack, the name of one that the package has, USER/NAME of the hub, or "
        "s3://BUCKET/PATH",
    )  # fmt: skip
    model.add_argument("--run", type=some_path, help="a trained run: its name, or its folder results/ablations/<name>")
    photographs.add_argument("--results", type=some_path, default=Path("results"), help="results folder of named runs")
    photographs.add_argument("--out", type=some_path, default=Path("splats"), help="output folder")
    photographs.add_argument(
        "--background", choices=["remove", "keep"], default="remove", help="background of images without alpha channel"
    )
    photographs.add_argument("--seed", type=int, help="random seed for all images; default: from each file's content")
    photographs.add_argument(
        "--size", type=int, default=320, help="width of the contact sheet's views and of the video, pixels"
    )
    photographs.add_argument("--steps", type=between(1, 1000), help="sampling steps; default: the model's")
    photographs.add_argument("--guidance", type=float, help="scale of guidance, at least 1; default: the model's")
    photographs.add_argument(
        "--shift", type=float, nargs=2, default=(0.0, 0.0), metavar=("X", "Y"),
        help="move the crop by a fraction of its side, right and down",
    )  # fmt: skip
    photographs.add_argument("--zoom", type=float, default=1.0, help="enlarge what the crop shows, 0.25 to 4")
    photographs.add_argument(
        "--with", dest="more", nargs="+", default=[], metavar="PHOTOGRAPH@AZIMUTH[,ELEVATION]",
        help="further photographs of the same object, and from where they were taken: front, left, back or right of "
        "the object, or the azimuth in degrees from the first photograph's, counterclockwise seen from above; then the "
        "elevation above the horizon, default --elevation",
    )  # fmt: skip
    photographs.add_argument(
        "--refine", action="store_true",
        help="search near the sampled code until renders look like the photograph, as with --with: truer, but slower",
    )  # fmt: skip
    photographs.add_argument(
        "--elevation", type=float,
        help="elevation of the photograph's camera, of the one before --with; default: the mean in training",
    )  # fmt: skip
    photographs.add_argument("--mesh", action="store_true", help="also write a textured mesh, .glb")
    job = parser.add_argument_group("stage", "as run by the workflow: results/infer/<id> --chunk N")
    job.add_argument("--chunk", type=int, help="index of the chunk of objects")
    stage.add_job_arguments(job)


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Sample photographs, or run the stage."""
    _require_one_kind(verb, arguments)
    if arguments.chunk is not None:
        if len(arguments.paths) != 1:
            raise UserError("--chunk needs exactly one stage folder")
        arguments.folder = existing_stage(arguments.paths[0])
        stage.main(verb, arguments)
        return
    if (arguments.seed is not None and arguments.seed < 0) or not 16 <= arguments.size <= 4096:
        raise UserError("--seed must not be negative, and --size must be from 16 to 4096")
    if arguments.elevation is not None and not (arguments.more or arguments.refine):
        raise UserError("--elevation is of use only with --refine or further photographs, --with")
    # Before the imports, which take seconds.
    photographs = find(arguments.paths)
    require(arguments.model)
    run_path = None if arguments.run is None else run_folder(str(arguments.run), arguments.results)
    stage.limit_threads(arguments.threads)
    if not GPU.exists():
        compile_beside()
    from z1g.networks.lean import import_networks

    import_networks()
    from z1g.inference.batch import PhotographOptions, run
    from z1g.inference.models import of_run, open_model
    from z1g.inference.photographs import Framing
    from z1g.inference.several import View

    framing = Framing(tuple(arguments.shift), arguments.zoom)
    outputs = PhotographOptions(
        arguments.out, arguments.background, arguments.seed, arguments.size, arguments.mesh, framing,
        tuple(View.parse(text) for text in arguments.more), arguments.elevation, arguments.refine,
    )  # fmt: skip
    model = open_model(arguments.model) if run_path is None else of_run(run_path)
    model = model.sampling(arguments.steps, arguments.guidance)
    run(photographs, model, outputs, ["z1g", *sys.argv[1:]])


def _require_one_kind(verb: str, arguments: argparse.Namespace) -> None:
    """Raise UserError for options of photographs beside those of a job, or of a job beside photographs."""
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser, verb)
    others = OF_JOBS if arguments.chunk is None else OF_PHOTOGRAPHS
    given = [flag for name, flag in others.items() if getattr(arguments, name) != parser.get_default(name)]
    if given:
        raise UserError(
            f"{given[0]} has no effect here: give photographs and --model or --run, or a stage folder and --chunk N"
        )


def require(model: str | None) -> None:
    """Raise UserError if a model is named that is neither on this machine, nor of the hub, nor in a bucket."""
    if model is None or is_url(model) or HubName.parse(model) is not None:
        return
    if not model.strip() or not (folder_of(model) / FILE).is_file():
        raise UserError(absent(model))


def existing_stage(path: Path) -> Path:
    """Return a stage folder. Raises UserError if it does not exist."""
    if not path.is_dir():
        raise UserError(f"{path} is not a folder")
    return path
