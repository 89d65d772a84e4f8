"""`z1g plan`: show the stages to run, check what could stop them, or estimate their cost."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from z1g.cli.arguments import at_least, some_path
from z1g.config.preflight import Policy
from z1g.core.errors import UserError
from z1g.core.names import counted, listed
from z1g.core.stages import STAGE_NAMES
from z1g.data.manifest import Manifest, SplitOptions
from z1g.plan.budget import gpu_hours_of, within_budget
from z1g.plan.check import check
from z1g.plan.cost import sheet
from z1g.plan.named import experiments
from z1g.plan.plan import Plan, PlannedAblation

COST_OF = (1_000, 10_000, 80_000)


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `plan`."""
    parser.add_argument("--scale", default="full", help="base configuration: a name in configs/ or a path")
    parser.add_argument(
        "--ablations",
        nargs="*",
        help="names of files, sets and runs, or parts of runs' names; default: all files in ablations/",
    )
    parser.add_argument(
        "--objects", nargs="+", default=(), help="meshes that replace the base's: folders, archives, lists"
    )
    parser.add_argument("--results", type=some_path, default=Path("results"), help="results folder")
    parser.add_argument(
        "--missing",
        choices=get_args(Policy),
        default="stop",
        help="files, folders and packages that are not on this machine: stop, or warn, as where jobs run elsewhere",
    )
    parser.add_argument(
        "--cost",
        type=at_least(1),
        nargs="*",
        metavar="N",
        help="estimate hours, disk, files and GPU memory per stage for N meshes, "
        "of the scale or of each of --ablations",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="list everything that would stop the run: mistakes in ablations, what is not on this machine, data sets "
        "that cannot be listed or have no training object",
    )
    parser.add_argument("--budget", metavar="HOURS", help="plan only the runs that so many GPU hours suffice for")
    parser.add_argument("--write", action="store_true", help="write the stage folders, as Snakemake does at its start")


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Print one line per ablation with its stage ids, a cost sheet, or that nothing is wrong."""
    if (arguments.check or arguments.cost is not None) and (arguments.write or arguments.budget is not None):
        raise UserError("--write and --budget are of a plan: give them without --check and --cost")
    if arguments.check and arguments.cost is not None:
        raise UserError("--check and --cost are two questions: ask them one after the other")
    if arguments.check:
        folders = Path("ablations"), Path("configs")
        number = check(arguments.scale, arguments.ablations, *folders, arguments.objects, arguments.missing)
        sys.stdout.write(f"nothing stops the {counted(number, 'ablation')}\n")
        return
    if arguments.cost is not None:
        sheets: dict[str, list[str]] = {}
        folders = Path("ablations"), Path("configs")
        for name, experiment in experiments(arguments.scale, arguments.ablations, *folders, arguments.objects):
            sheets.setdefault(sheet(experiment, arguments.cost or COST_OF), []).append(name)
        heads = (f"## {', '.join(names)}\n\n" if arguments.ablations else "" for names in sheets.values())
        sys.stdout.write("\n".join(head + text for head, text in zip(heads, sheets, strict=True)))
        return
    plan = Plan.load(
        arguments.scale,
        arguments.ablations,
        arguments.results,
        Path("ablations"),
        Path("configs"),
        arguments.objects,
        arguments.missing,
    )
    notes = []
    if arguments.budget is not None:
        budgeted = within_budget(plan, gpu_hours_of(arguments.budget))
        plan, notes = budgeted.plan, budgeted.sentences()
    if arguments.write:
        plan.write()
    width = max(len(name) for name in plan.ablations)
    lines = [f"{'':<{width}}  " + "  ".join(f"{stage:<12}" for stage in STAGE_NAMES)]
    for name, planned in plan.ablations.items():
        ids = "  ".join(f"{planned.stages[stage].id:<12}" for stage in STAGE_NAMES)
        lines.append(f"{name:<{width}}  {ids}")
    jobs = sum(stage.n_chunks for stage in plan.stages.values())
    objects = {planned.stages["ingest"].id: len(planned.manifest.objects) for planned in plan.ablations.values()}
    numbers = ((sum(objects.values()), "object"), (len(plan.stages), "distinct stage"), (jobs, "job"))
    lines.append(", ".join(counted(n, noun) for n, noun in numbers))
    lines.append(f"held out: {held_out(plan.ablations.values())}")
    sys.stdout.write("\n".join([*lines, *notes]) + "\n")


def held_out(ablations: Iterable[PlannedAblation]) -> str:
    """How many objects are held out; different numbers, as of data sets and folds, follow each other."""
    splits = {(planned.stages["ingest"].id, planned.ablation.experiment.data.split): planned for planned in ablations}
    return listed(list(dict.fromkeys(_held_out(planned.manifest, split) for (_, split), planned in splits.items())))


def _held_out(manifest: Manifest, options: SplitOptions) -> str:
    count = Counter(manifest.splits(options).values())
    remarks = [f"{count['test_unseen']} of unseen categories"] * bool(count["test_unseen"])
    remarks += [f"{count['test']} trained on, too"] * options.train_on_test
    number = f"{count['test'] + count['test_unseen']} of {counted(len(manifest.objects), 'object')}"
    return f"{number} ({'; '.join(remarks)})" if remarks else number
