"""`z1g evaluate`: measure outputs of other systems on the objects and views of a results folder."""

import argparse
import sys
from pathlib import Path
from typing import get_args

from z1g.cli.arguments import amount, between, existing_folder, some_path
from z1g.config.run_names import PART
from z1g.core.errors import UserError
from z1g.core.names import counted
from z1g.geometry.frames import FrameName
from z1g.plan.runs import NAMES_FILE, planned_runs


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `evaluate`."""
    parser.add_argument("--results", type=existing_folder, default=Path("results"), help="results folder")
    parser.add_argument(
        "--outputs", type=existing_folder, help="folder with one file an object: .ply .splat .spz .glb .obj"
    )
    parser.add_argument(
        "--frame", choices=get_args(FrameName), help="axes, scale and camera of the files; auto: registered"
    )
    parser.add_argument(
        "--objects", type=some_path, help="list of objects: ids, or a CSV with the columns object, file"
    )
    parser.add_argument("--name", help="name of the system in tables; default: that of the folder")
    parser.add_argument("--like", help="planned ablation whose views and metrics are used; default: the first")
    parser.add_argument(
        "--registered", action=argparse.BooleanOptionalAction, default=None,
        help="find scale, turn and offset of each object; default: where the frame needs it",
    )  # fmt: skip
    for key, what in (("seconds", "seconds an object"), ("memory-gb", "peak memory, GB")):
        parser.add_argument(f"--{key}", type=amount, help=f"cost: {what}; default: from cost.json in the folder")
    parser.add_argument("--parameters", type=_parameters, help="cost: number of parameters of all networks")
    parser.add_argument("--planned", metavar="PEER", help="measure a system that a set's `peers:` names, as planned")
    parser.add_argument("--threads", type=between(0, 4096), default=0, help="CPU threads; 0: torch's default")


def _parameters(text: str) -> float:
    """Argument type: a number of parameters, such as 4.15e8."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1e15:
        raise argparse.ArgumentTypeError(f"{text[:40]} is not a number of parameters")
    return number


def main(verb: str, arguments: argparse.Namespace) -> int:
    """Measure, and say what could not be measured. Exit code 0 also if some objects are missing: they are listed."""
    from z1g.cli.stage import limit_threads

    limit_threads(arguments.threads)
    from z1g.config.peers import PeerCost, PeerOptions
    from z1g.peers.evaluate import evaluate
    from z1g.plan.peers import first_planned, peer_name, read_planned

    if arguments.planned is not None:
        name, like, options = read_planned(arguments.results, arguments.planned)
    else:
        if arguments.outputs is None or arguments.frame is None:
            raise UserError("give --outputs FOLDER and --frame NAME, or --planned PEER")
        costs = {key: getattr(arguments, key) for key in ("seconds", "parameters", "memory_gb")}
        options = PeerOptions(
            outputs=str(arguments.outputs), frame=arguments.frame,
            objects=None if arguments.objects is None else str(arguments.objects), registered=arguments.registered,
            cost=PeerCost(**costs) if any(value is not None for value in costs.values()) else None,
        )  # fmt: skip
        name = peer_name(arguments.name or arguments.outputs.resolve().name)
        if name in {run.partition(PART)[0] for run in planned_runs(arguments.results)}:
            raise UserError(f"{name} is an ablation of {arguments.results}; give the system another --name")
        like = arguments.like or first_planned(arguments.results)
    record = evaluate(arguments.results, name, options, like, arguments.threads)
    sys.stdout.write(_said(record, arguments.results))
    return 0


def _said(record: dict, results: Path) -> str:
    """A summary: how many objects, what is wrong, where the rows are."""
    lines = [
        f"{record['peer']}: {len(record['truth'])} of {counted(record['n_evaluated'], 'object')} measured as "
        f"{record['like']}"
    ]
    lines += [f"  unknown about this frame: {what}" for what in record["unknown"]]
    for name, found in record["registrations"].items():
        turns = f", also fits: {found['alike']}" if found["alike"] else ""
        lines.append(
            f"  {name} registered: scale {found['scale']:.4g}, turn {found['turn_deg']:.1f} degrees, offset "
            f"{found['offset']}; silhouettes {found['iou_before']:.3f} to {found['iou']:.3f}{turns}"
        )
    lines += [f"  not measured: {name}: {why}" for name, why in record["problems"].items()]
    name, runs = record["peer"], f"{results} --ablations @{results / NAMES_FILE} --out {results}"
    lines.append(f"Written to {results / 'peers' / name}. Beside the runs of {results}, by:")
    lines += [
        f"  z1g compare {record['like']} {name}",
        f"  z1g tables {runs}/tables",
        f"  z1g report {runs}/report.html",
    ]
    return "\n".join(lines) + "\n"
