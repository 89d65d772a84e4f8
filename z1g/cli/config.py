"""`z1g config`: documents generated from the configuration classes, and what an ablation or a run resolves to."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from z1g.cli.arguments import some_path
from z1g.config import documents
from z1g.config.catalog import Catalog, load_ablation
from z1g.config.entries import Entries
from z1g.config.original_command import translated
from z1g.config.resolve import Ablation
from z1g.core.errors import UserError
from z1g.core.files import write_text
from z1g.plan import neutral
from z1g.plan.named import experiments

GENERATED: dict[str, tuple[Path, Callable[[], str]]] = {
    "schema": (Path("configs/schema.json"), documents.schema),
    "reference": (Path("docs/configuration.md"), documents.reference),
    "defaults": (Path("configs/full.yaml"), documents.defaults),
    "identity": (Path("z1g/plan/defaults.json"), neutral.document),
}
"""Paths of the generated files and the functions that generate them."""
MOST_RUNS = 20
"""Runs of a file that are listed."""


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `config`."""
    parser.add_argument(
        "what",
        nargs="?",
        metavar="document or name",
        help=f"{', '.join(GENERATED)}: print a generated document; write: update all of them; show: a configuration; "
        "or the name of an ablation or of a run: what it builds on, its runs, and its configuration",
    )
    parser.add_argument(
        "--from-command",
        metavar="'COMMAND'",
        help="print the ablation that a command of the original means, and why flags have no meaning",
    )
    parser.add_argument(
        "--objects", type=int, default=80, help="--from-command: objects of the data set, by which epochs become steps"
    )
    parser.add_argument("--ablation", type=some_path, help="show: the ablation file")
    parser.add_argument("--scale", help="show, or a name: the base configuration; default: full")


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Print a document or a configuration, or write all documents to their files."""
    if (arguments.what is None) == (arguments.from_command is None):
        raise UserError("give a document, a name, or --from-command 'COMMAND'; see `z1g config --help`")
    if arguments.ablation is not None and arguments.what != "show":
        raise UserError("--ablation FILE is of `z1g config show`; a name needs no file")
    if arguments.scale is not None and arguments.what in (None, "write", *GENERATED):
        raise UserError("--scale is of `z1g config show` and of names; generated documents are of all scales")
    scale = arguments.scale or "full"
    if arguments.from_command is not None:
        if arguments.objects < 1:
            raise UserError(f"--objects {arguments.objects} must be at least 1")
        sys.stdout.write(translated(arguments.from_command, arguments.objects, Path("configs")))
    elif arguments.what == "write":
        absent = [str(path.parent) for path, _ in GENERATED.values() if not path.parent.is_dir()]
        if absent:
            raise UserError(f"write: there is no folder {absent[0]} here; go to the root of the repository")
        for path, make in GENERATED.values():
            write_text(path, make())
    elif arguments.what == "show" and arguments.ablation is None and arguments.scale is None:
        sys.stdout.write(documents.defaults())
    elif arguments.what == "show" and arguments.ablation is None:
        ((_, experiment),) = experiments(scale, None, Path("ablations"), Path("configs"))
        sys.stdout.write(documents.resolved(experiment))
    elif arguments.what == "show":
        ablation = load_ablation(arguments.ablation, scale, Path("configs"))
        sys.stdout.write(documents.resolved(ablation.experiment))
    elif arguments.what in GENERATED:
        sys.stdout.write(GENERATED[arguments.what][1]())
    else:
        sys.stdout.write(named(arguments.what, scale, Path("ablations"), Path("configs")))


def named(name: str, scale: str, ablations: Path, configs: Path) -> str:
    """What an ablation or a run builds on, as comments, and its configuration as YAML.

    A file with several runs is shown without its sweep, folds and replicates, and with a list of them. Raises
    UserError.
    """
    catalog = Catalog(Entries.of_folder(ablations), scale, configs)
    runs, problems = catalog.select([name])
    if problems:
        raise UserError("\n".join(problems))
    lines = [f"{word}: {file}" for word, file in catalog.chain(runs[0].about.study)]
    lines = [lines[0], *(f"builds on {line}" for line in lines[1:])]
    if len(runs) == 1:
        shown = runs[0]
    elif name in catalog.entries.files:
        shown = catalog.ablation(name)
    else:
        raise UserError(f"{name} means {len(runs)} runs; name one of them: {_listed(runs)}")
    if len(runs) > 1 or shown.name != shown.about.study:
        lines += _about(shown) if len(runs) == 1 else [f"{len(runs)} runs: {_listed(runs)}"]
    return "".join(f"# {line}\n" for line in lines) + documents.resolved(shown.experiment)


def _about(run: Ablation) -> list[str]:
    about = run.about
    lines = [f"run {run.name}"] + [f"point: {path} = {value}" for path, value in about.point.items()]
    if about.fold is not None:
        lines.append(f"fold {about.fold}")
    if about.seed is not None:
        lines.append(f"replicate {about.seed} of {', '.join(about.replicated) or 'sampling'}")
    return lines


def _listed(runs: Sequence[Ablation]) -> str:
    more = len(runs) - MOST_RUNS
    return ", ".join(run.name for run in runs[:MOST_RUNS]) + (f" and {more} more" if more > 0 else "")
