"""The parts of `z1g bench` about GPU memory."""

import argparse
from pathlib import Path
from typing import Any

from z1g.cli.arguments import amount, between, some_path

STAGES = ("fit", "autodecoder", "codes", "unet", "infer", "metrics")
FOLDERS = Path("ablations"), Path("configs")


def add_memory(parser: argparse.ArgumentParser) -> None:
    """Arguments of `z1g bench memory`."""
    _configured(parser, 540)
    parser.add_argument("--ablations", nargs="*", help="names of ablations at that scale, instead of the scale itself")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="stages to measure")
    parser.add_argument(
        "--out",
        type=some_path,
        help="JSON file of all known rows, as plan/cost/memory.json; rows are added to one that is there",
    )


def run_memory(arguments: argparse.Namespace) -> dict[str, Any] | str:
    """Measure the GPU memory of training."""
    from z1g.bench.memory import markdown, measure
    from z1g.plan.named import experiments

    # Another scale may have an ablation, and so a run, of the same name; its seeds take the same memory.
    place = f"{Path(arguments.scale).stem}/" if arguments.ablations else ""
    runs = experiments(arguments.scale, arguments.ablations, *FOLDERS)
    named = [(f"{place}{name.partition('@seed=')[0]}", made) for name, made in runs]
    figures = measure(named, arguments.stages, arguments.seconds, arguments.out)
    return figures if arguments.json else markdown(figures)


def add_capped(parser: argparse.ArgumentParser) -> None:
    """Arguments of `z1g bench capped`."""
    _configured(parser, 240)
    parser.add_argument("--steps", type=between(2, 100_000), default=40, help="steps of each run")
    parser.add_argument("--out", type=some_path, help="folder for losses.csv and runs.json")


def run_capped(arguments: argparse.Namespace) -> dict[str, Any] | str:
    """Train in limited GPU memory beside all of it."""
    from z1g.bench.capped import markdown, measure
    from z1g.plan.named import experiments

    ((_, experiment),) = experiments(arguments.scale, None, *FOLDERS)
    figures = measure(experiment, arguments.steps, arguments.seconds, arguments.out)
    return figures if arguments.json else markdown(figures)


def _configured(parser: argparse.ArgumentParser, seconds: float) -> None:
    parser.add_argument("--scale", default="full", help="base configuration: a name in configs/ or a path")
    parser.add_argument("--seconds", type=amount, default=seconds, help="time after which nothing further is started")
