"""`z1g bench`: measure speed and memory."""

import argparse
import json
import math
import sys
from collections.abc import Callable
from typing import Any

from z1g.cli.arguments import amount, at_least, between, existing_folder, some_path
from z1g.cli.bench_memory import add_capped, add_memory, run_capped, run_memory
from z1g.core.errors import UserError

FEW, WIDE, MANY = 1_000, 8_192, 10_000_000
"""Limits of counts, of sizes in pixels and of objects: larger numbers are mistakes."""
AUTODECODER_VARIANTS = ["b4", "b8", "b4+unfused", "b4+autocast"]
RENDERERS = ("raster", "blender")


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `bench`."""
    parts = parser.add_subparsers(dest="what", required=True, metavar="part")
    for name, (text, add, _) in PARTS.items():
        part = parts.add_parser(name, help=text, description=text)
        add(part)
        part.add_argument("--json", action="store_true", help="one JSON line instead of a table")


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Run a benchmark and print its figures."""
    _, _, run = PARTS[arguments.what]
    figures = run(arguments)
    if isinstance(figures, str):
        sys.stdout.write(figures)
    elif arguments.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        sys.stdout.write("\n".join(f"{name:<22}{value}" for name, value in figures.items()) + "\n")


def _render(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", default="cpu", help="a rasterizer's kind, torch (plain torch) or bare_gsplat")
    parser.add_argument(
        "--against",
        help="a second backend, or looped: a call an object; measured alternately, prints the ratio of times",
    )
    parser.add_argument("--objects", type=between(1, FEW), default=1, help="objects rendered in one call")
    parser.add_argument("--splats", type=between(1, MANY), default=24576, help="Gaussians of an object")
    parser.add_argument("--ply", type=some_path, help="Gaussians from a file instead of a synthetic object")
    parser.add_argument("--size", type=between(1, WIDE), default=128, help="width of an image, pixels")
    parser.add_argument("--views", type=between(1, FEW), default=4, help="images of an object")
    parser.add_argument("--repeats", type=between(1, FEW), default=20, help="number of calls; medians are reported")
    parser.add_argument("--device", help="cpu or cuda; default: cuda if available and supported by the backend")


def _run_render(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.render import measure

    sizes = arguments.splats, arguments.size, arguments.views, arguments.repeats
    return measure(
        arguments.backend, *sizes, arguments.device, arguments.against, arguments.ply, objects=arguments.objects
    )


def _fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=existing_folder, help="results/fit/<id>: its configuration and renders are used")
    parser.add_argument("--objects", type=between(0, MANY), default=8, help="number of objects; 0: all")
    parser.add_argument(
        "--steps", type=between(1, MANY), nargs="+", default=[50, 100, 200], help="numbers of steps, one run each"
    )
    parser.add_argument("--original-way", action="store_true", help="also time the original's fit of one object (GPU)")


def _run_fit(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.fit import measure

    return measure(arguments.folder, arguments.objects, arguments.steps, original_way=arguments.original_way)


def _ingest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", nargs="+", default=["workflow/objects"], help="meshes, as in data.paths")
    parser.add_argument("--objects", type=between(1, MANY), default=32, help="maximum number of objects")
    parser.add_argument("--size", type=between(1, WIDE), default=128, help="width of an image, pixels")
    parser.add_argument("--samples", type=between(1, WIDE), default=8, help="samples per pixel")
    parser.add_argument(
        "--views", type=between(1, FEW), default=10, help="images per object; the six input views also get depth"
    )
    parser.add_argument(
        "--repeats", type=between(1, FEW), default=2, help="alternating runs of each method; the best is reported"
    )
    parser.add_argument("--renderer", choices=RENDERERS, help="renderer to measure, into shards")
    parser.add_argument("--against", choices=RENDERERS, help="renderer to compare it with in the same run")


def _run_ingest(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.ingest import compare, measure

    sizes = arguments.objects, arguments.size, arguments.samples, arguments.views, arguments.repeats
    if arguments.renderer is None:
        return measure(arguments.source, *sizes)
    names = [name for name in (arguments.renderer, arguments.against) if name is not None]
    return compare(arguments.source, *sizes, names)


def _dag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--objects", type=between(1, MANY), nargs="+", default=[1000, 10_000, 100_000], help="sizes of the lists"
    )
    parser.add_argument("--ablations", type=between(1, FEW), default=1, help="synthetic ablations per list")
    parser.add_argument("--repeats", type=between(1, FEW), default=1, help="runs of each; the fastest is reported")


def _run_dag(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.dag import measure

    return measure(arguments.objects, arguments.ablations, arguments.repeats)


def _autodecoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--variants", nargs="+", default=AUTODECODER_VARIANTS, help="b8+recompute: batch size and enabled options"
    )
    parser.add_argument("--views", type=between(1, FEW), default=20, help="images rendered per object")
    parser.add_argument("--size", type=between(1, WIDE), default=512, help="width of an image, pixels")
    parser.add_argument("--splats", type=between(1, WIDE), default=128, help="width of a splatter image")
    parser.add_argument("--inputs", type=between(1, WIDE), default=320, help="width of an input view")
    parser.add_argument(
        "--channels", type=between(1, WIDE), nargs="+", default=[128, 256, 512, 512], help="of the autoencoder"
    )
    parser.add_argument("--layers", type=between(1, FEW), default=2, help="residual blocks per level")
    parser.add_argument("--perceptual", type=between(1, WIDE), default=256, help="width of the renders for LPIPS")
    parser.add_argument("--steps", type=between(1, FEW), default=8, help="timed steps, after two warm-up steps")
    parser.add_argument("--seconds", type=amount, default=360, help="time after which no further variant is started")
    parser.add_argument(
        "--base", type=some_path, help="a scale's YAML file with sizes and losses; skips the original's way"
    )


def _run_autodecoder(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.autodecoder import measure
    from z1g.bench.made_up import Sizes

    a = arguments
    sizes = Sizes(a.views, a.size, a.splats, a.inputs, tuple(a.channels), a.layers, a.perceptual)
    return measure(sizes, a.variants, a.steps, a.seconds, a.base, original=a.base is None)


UNET_VARIANTS = [
    "b24+cudnn", "b28+cudnn", "b24+cudnn+launched", "b16+cudnn", "b24", "b8+cudnn", "b48+cudnn+micro24",
    "b16+cudnn+unfused", "b16+cudnn+autocast",
]  # fmt: skip
INFER_VARIANTS = [
    "b1+graphs",
    "b1+graphs+cudnn",
    "b1",
    "b8+graphs+cudnn",
    "b16+graphs+cudnn",
    "b32+graphs+cudnn",
]


def _sized(parser: argparse.ArgumentParser, variants: list[str], seconds: float) -> None:
    parser.add_argument(
        "--size", default="full", choices=("full", "attributes", "joint", "tiny"),
        help="full: SD 2.1's UNet; attributes, joint: those representations at full size; tiny: for a CPU",
    )  # fmt: skip
    parser.add_argument(
        "--variants", nargs="+", default=variants, help="b16+cudnn+micro8: batch size and enabled options"
    )
    parser.add_argument("--seconds", type=amount, default=seconds, help="time limit")


def _unet(parser: argparse.ArgumentParser) -> None:
    _sized(parser, UNET_VARIANTS, 150)
    parser.add_argument("--steps", type=between(1, FEW), default=6, help="timed steps, after two warm-up steps")


def _run_unet(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.unet import measure

    return measure(arguments.size, arguments.variants, arguments.steps, arguments.seconds)


def _infer(parser: argparse.ArgumentParser) -> None:
    _sized(parser, INFER_VARIANTS, 110)
    parser.add_argument("--steps", type=between(1, FEW), default=25, help="sampling steps")
    parser.add_argument("--guidance", type=float, default=4.0, help="scale of guidance, at least 1; 1: none")
    parser.add_argument("--repeats", type=between(1, FEW), default=2, help="timed calls, after a warm-up call")


def _run_infer(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.infer import measure

    if not arguments.guidance >= 1:
        raise UserError("--guidance must be at least 1")
    return measure(
        arguments.size, arguments.variants, arguments.steps, arguments.repeats, arguments.seconds, arguments.guidance
    )


def _loader(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--objects", type=between(1, MANY), default=128, help="synthetic objects; 18 MB each by default"
    )
    parser.add_argument(
        "--views", type=between(1, FEW), default=33, help="views per object: condition, inputs and free views"
    )
    parser.add_argument("--size", type=between(1, WIDE), default=512, help="width of an image, pixels")
    parser.add_argument("--splat-size", type=between(1, WIDE), default=128, help="width of a splatter image")
    parser.add_argument(
        "--rendered", type=between(1, FEW), default=8, help="free views of a sample, besides condition and inputs"
    )
    parser.add_argument("--compact", action="store_true", help="images and depth as with data.compact")
    parser.add_argument(
        "--stored", choices=("float32", "float16", "visible"), default="float32", help="splats as with fit.stored"
    )
    parser.add_argument("--batch", type=between(1, WIDE), default=8, help="samples per batch")
    parser.add_argument("--workers", type=between(0, FEW), default=2, help="data loading processes")
    parser.add_argument("--soak", type=amount, default=0.0, metavar="MINUTES", help="keep reading and monitor memory")
    parser.add_argument("--folder", type=existing_folder, help="output folder; default: the system's temporary folder")


def _run_loader(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.loader import Sizes, measure

    options = vars(arguments)
    sizes = Sizes(**{name: options[name] for name in Sizes.__dataclass_fields__})
    return measure(sizes, arguments.soak, arguments.folder)


def _guidance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=existing_folder, help="results/ablations/<name>, trained")
    parser.add_argument(
        "--steps", type=between(1, FEW), nargs="+", default=[10, 25, 75], help="sampling steps, one row each"
    )
    parser.add_argument(
        "--guidance", type=amount, nargs="+", default=[1.0, 2.0, 4.0], help="guidance scales, a row each"
    )
    parser.add_argument("--sampler", help="kind of a sampler instead of the ablation's, for example dpm_multistep")
    parser.add_argument("--objects", type=between(0, MANY), default=0, help="number of test objects; 0: all")
    parser.add_argument("--batch", type=between(1, WIDE), default=16, help="objects sampled at once")


def _run_guidance(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.guidance import measure
    from z1g.core.names import did_you_mean
    from z1g.core.slots import kinds
    from z1g.sampling.samplers import Sampler

    samplers: dict[str, Any] = kinds(Sampler)  # type: ignore[type-abstract]
    if arguments.sampler is not None and arguments.sampler not in samplers:
        raise UserError(f'--sampler: there is no "{arguments.sampler}"{did_you_mean(arguments.sampler, samplers)}')
    sampler = samplers[arguments.sampler]() if arguments.sampler is not None else None
    options = arguments
    return measure(options.run, options.steps, options.guidance, sampler, options.objects, options.batch)


def _scaling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gpus", type=at_least(1), nargs="+", default=[1, 2, 4],
        help="GPUs of this machine, rows each; without GPUs: processes on the CPU",
    )  # fmt: skip
    parser.add_argument("--stages", nargs="+", default=["autodecoder", "unet"], help="autodecoder, unet, fit, infer")
    parser.add_argument("--size", default="full", choices=("full", "tiny"), help="full: as published; tiny: for a CPU")
    parser.add_argument("--base", type=some_path, help="a scale's YAML file with sizes and options, instead of --size")
    parser.add_argument("--batch", type=at_least(1), help="objects of a GPU; default: depends on stage and size")
    parser.add_argument(
        "--modes", nargs="+", default=["weak", "strong"], choices=("weak", "strong"),
        help="training. weak: the same batch on each GPU; strong: the batch of one GPU divided among all",
    )  # fmt: skip
    parser.add_argument("--steps", type=at_least(1), default=6, help="steps of a timed window of training")
    parser.add_argument("--sampling-steps", type=at_least(1), default=16, help="sampling steps of infer")
    parser.add_argument("--repeats", type=at_least(1), default=3, help="timed windows of a row, or chunks")
    parser.add_argument("--seconds", type=amount, default=540, help="time limit; what does not fit is left out")
    parser.add_argument("--out", type=some_path, help="JSON file that has the figures so far after every row")
    parser.add_argument("--table", type=some_path, metavar="FILE", help="only print what --out wrote, as Markdown")


def _run_scaling(arguments: argparse.Namespace) -> dict[str, Any] | str:
    from z1g.bench.scaling.rows import Request, measure
    from z1g.bench.scaling.table import markdown
    from z1g.core.files import read_json

    if arguments.table is not None:
        try:
            return markdown(read_json(arguments.table))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"--table {arguments.table}: not what --out of `z1g bench scaling` wrote") from error
    options = vars(arguments)
    figures = measure(Request(**{name: options[name] for name in Request.__dataclass_fields__}))
    return figures if arguments.json else markdown(figures)


def _statistics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--objects", type=int, nargs="+", default=[2, 3, 5, 10, 30, 100], help="numbers of objects")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 5], help="numbers of training seeds")
    parser.add_argument("--runs", type=int, default=2000, help="simulated tables per number of objects and seeds")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the simulation")


def _run_statistics(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.statistics import measure

    limits = {"objects": (2, WIDE), "seeds": (1, FEW), "runs": (1, MANY), "seed": (0, math.inf)}
    for name, (least, most) in limits.items():
        given = getattr(arguments, name)
        given = given if isinstance(given, list) else [given]
        if min(given) < least:
            raise UserError(f"--{name}: numbers start at {least}")
        if max(given) > most:
            raise UserError(f"--{name}: numbers end at {most}")
    return measure(arguments.objects, arguments.seeds, arguments.runs, arguments.seed)


PARTS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], Any]]] = {
    "autodecoder": ("stage 1 training: the original's implementation against ours", _autodecoder, _run_autodecoder),
    "capped": ("training in 24 and 16 GB of GPU memory beside training in all: losses", add_capped, run_capped),
    "dag": ("planning: seconds, memory and jobs of a dry run over synthetic lists of objects", _dag, _run_dag),
    "ingest": ("rendering meshes: one Blender process per object against the pool", _ingest, _run_ingest),
    "loader": (
        "reading training samples: samples/s with cold and warm cache; memory over time",
        _loader,
        _run_loader,
    ),
    "memory": ("GPU memory of stages, for `z1g plan --cost`", add_memory, run_memory),
    "scaling": (
        "several GPUs: training together, and chunks of objects side by side; efficiency against one GPU",
        _scaling,
        _run_scaling,
    ),
    "render": ("the splat rasterizers", _render, _run_render),
    "unet": ("stage 2 training at full size: the original's implementation against ours", _unet, _run_unet),
    "guidance": ("quality of samples by number of steps and guidance scale", _guidance, _run_guidance),
    "infer": ("sampling at full size: the original's implementation against ours", _infer, _run_infer),
    "statistics": ("coverage of intervals and rates of false verdicts, by simulation", _statistics, _run_statistics),
    "fit": ("fitting splatter images: objects/s, quality by number of steps, memory", _fit, _run_fit),
}
