"""`z1g bench`: measure speed and memory."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from z1g.cli.arguments import existing_folder

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
    if arguments.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        sys.stdout.write("\n".join(f"{name:<22}{value}" for name, value in figures.items()) + "\n")


def _render(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", default="cpu", help="a rasterizer's kind, torch (plain torch) or bare_gsplat")
    parser.add_argument("--against", help="a second backend, measured alternately; prints the ratio of times")
    parser.add_argument("--splats", type=int, default=24576, help="Gaussians of the object")
    parser.add_argument("--ply", type=Path, help="Gaussians from a file instead of a synthetic object")
    parser.add_argument("--size", type=int, default=128, help="width of an image, pixels")
    parser.add_argument("--views", type=int, default=4, help="images per call")
    parser.add_argument("--repeats", type=int, default=5, help="number of calls; medians are reported")
    parser.add_argument("--device", help="cpu or cuda; default: cuda if available and supported by the backend")


def _run_render(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.render import measure

    sizes = arguments.splats, arguments.size, arguments.views, arguments.repeats
    return measure(arguments.backend, *sizes, arguments.device, arguments.against, arguments.ply)


def _fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=existing_folder, help="results/fit/<id>: its configuration and renders are used")
    parser.add_argument("--objects", type=int, default=8, help="number of objects; 0: all")
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 100, 200], help="numbers of steps, one run each")
    parser.add_argument("--original-way", action="store_true", help="also time the original's fit of one object (GPU)")


def _run_fit(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.fit import measure

    return measure(arguments.folder, arguments.objects, arguments.steps, original_way=arguments.original_way)


def _ingest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", nargs="+", default=["workflow/objects"], help="meshes, as in data.paths")
    parser.add_argument("--objects", type=int, default=32, help="maximum number of objects")
    parser.add_argument("--size", type=int, default=128, help="width of an image, pixels")
    parser.add_argument("--samples", type=int, default=8, help="samples per pixel")
    parser.add_argument("--views", type=int, default=10, help="images per object; the six input views also get depth")
    parser.add_argument("--repeats", type=int, default=2, help="alternating runs of each method; the best is reported")
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
    parser.add_argument("--objects", type=int, nargs="+", default=[1000, 10_000, 100_000], help="sizes of the lists")
    parser.add_argument("--ablations", type=int, default=1, help="synthetic ablations per list")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each; the fastest is reported")


def _run_dag(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.dag import measure

    return measure(arguments.objects, arguments.ablations, arguments.repeats)


def _autodecoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--variants", nargs="+", default=AUTODECODER_VARIANTS, help="b8+recompute: batch size and enabled options"
    )
    parser.add_argument("--views", type=int, default=20, help="images rendered per object")
    parser.add_argument("--size", type=int, default=512, help="width of an image, pixels")
    parser.add_argument("--splats", type=int, default=128, help="width of a splatter image")
    parser.add_argument("--inputs", type=int, default=320, help="width of an input view")
    parser.add_argument("--channels", type=int, nargs="+", default=[128, 256, 512, 512], help="of the autoencoder")
    parser.add_argument("--layers", type=int, default=2, help="residual blocks per level")
    parser.add_argument("--perceptual", type=int, default=256, help="width of the renders for LPIPS")
    parser.add_argument("--steps", type=int, default=8, help="timed steps, after two warm-up steps")
    parser.add_argument("--seconds", type=float, default=360, help="time after which no further variant is started")
    parser.add_argument("--base", type=Path, help="a scale's YAML file with sizes and losses; skips the original's way")


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
    parser.add_argument("--size", default="full", choices=("full", "tiny"), help="full: SD 2.1's UNet; tiny: for a CPU")
    parser.add_argument(
        "--variants", nargs="+", default=variants, help="b16+cudnn+micro8: batch size and enabled options"
    )
    parser.add_argument("--seconds", type=float, default=seconds, help="time limit")


def _unet(parser: argparse.ArgumentParser) -> None:
    _sized(parser, UNET_VARIANTS, 150)
    parser.add_argument("--steps", type=int, default=6, help="timed steps, after two warm-up steps")


def _run_unet(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.unet import measure

    return measure(arguments.size, arguments.variants, arguments.steps, arguments.seconds)


def _infer(parser: argparse.ArgumentParser) -> None:
    _sized(parser, INFER_VARIANTS, 110)
    parser.add_argument("--steps", type=int, default=25, help="sampling steps")
    parser.add_argument("--repeats", type=int, default=2, help="timed calls, after a warm-up call")


def _run_infer(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.infer import measure

    return measure(arguments.size, arguments.variants, arguments.steps, arguments.repeats, arguments.seconds)


def _loader(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--objects", type=int, default=128, help="synthetic objects; 18 MB each by default")
    parser.add_argument("--views", type=int, default=33, help="views per object: condition, inputs and free views")
    parser.add_argument("--size", type=int, default=512, help="width of an image, pixels")
    parser.add_argument("--splat-size", type=int, default=128, help="width of a splatter image")
    parser.add_argument("--rendered", type=int, default=8, help="free views of a sample, besides condition and inputs")
    parser.add_argument("--batch", type=int, default=8, help="samples per batch")
    parser.add_argument("--workers", type=int, default=2, help="data loading processes")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="keep reading and monitor memory")
    parser.add_argument("--folder", type=existing_folder, help="output folder; default: the system's temporary folder")


def _run_loader(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.loader import Sizes, measure

    options = vars(arguments)
    sizes = Sizes(**{name: options[name] for name in Sizes.__dataclass_fields__})
    return measure(sizes, arguments.soak, arguments.folder)


def _guidance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=existing_folder, help="results/ablations/<name>, trained")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 25, 75], help="sampling steps, one row each")
    parser.add_argument(
        "--guidance", type=float, nargs="+", default=[1.0, 2.0, 4.0], help="guidance scales, a row each"
    )
    parser.add_argument("--sampler", help="kind of a sampler instead of the ablation's, for example dpm_multistep")
    parser.add_argument("--objects", type=int, default=0, help="number of test objects; 0: all")
    parser.add_argument("--batch", type=int, default=16, help="objects sampled at once")


def _run_guidance(arguments: argparse.Namespace) -> dict[str, Any]:
    from z1g.bench.guidance import measure
    from z1g.core.errors import UserError
    from z1g.core.names import did_you_mean
    from z1g.core.slots import kinds
    from z1g.sampling.samplers import Sampler

    samplers: dict[str, Any] = kinds(Sampler)  # type: ignore[type-abstract]
    if arguments.sampler is not None and arguments.sampler not in samplers:
        raise UserError(f'--sampler: there is no "{arguments.sampler}"{did_you_mean(arguments.sampler, samplers)}')
    sampler = samplers[arguments.sampler]() if arguments.sampler is not None else None
    options = arguments
    return measure(options.run, options.steps, options.guidance, sampler, options.objects, options.batch)


PARTS = {
    "autodecoder": ("stage 1 training: the original's implementation against ours", _autodecoder, _run_autodecoder),
    "dag": ("planning: seconds, memory and jobs of a dry run over synthetic lists of objects", _dag, _run_dag),
    "ingest": ("rendering meshes: one Blender process per object against the pool", _ingest, _run_ingest),
    "loader": (
        "reading training samples: samples/s with cold and warm cache; memory over time",
        _loader,
        _run_loader,
    ),
    "render": ("the splat rasterizers", _render, _run_render),
    "unet": ("stage 2 training at full size: the original's implementation against ours", _unet, _run_unet),
    "guidance": ("quality of samples by number of steps and guidance scale", _guidance, _run_guidance),
    "infer": ("sampling at full size: the original's implementation against ours", _infer, _run_infer),
    "fit": ("fitting splatter images: objects/s, quality by number of steps, memory", _fit, _run_fit),
}
