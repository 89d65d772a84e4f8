"""`z1g search`: search options of an ablation with Optuna; the DAG trains and measures the points."""

import argparse
import sys
from pathlib import Path
from typing import get_args

from z1g.cli.arguments import at_least, some_path
from z1g.config.preflight import Policy
from z1g.core.needs import require_package

INSTALL = "pip install 'z1g[search]'"


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `search`."""
    parser.add_argument("study", type=some_path, help="an ablation file with `search`, see docs/pruning_and_search.md")
    parser.add_argument("--scale", default="full", help="base configuration: a name in configs/ or a path")
    parser.add_argument("--profile", default="local", help="Snakemake's profile, which says where jobs run")
    parser.add_argument("--results", type=some_path, default=Path("results"), help="results folder")
    parser.add_argument("--objects", nargs="+", default=(), help="meshes that replace the base's")
    parser.add_argument("--gpus", type=at_least(0), help="GPUs of this machine to use; default: all")
    parser.add_argument("--missing", choices=get_args(Policy), default="stop", help="as in `z1g plan`")


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Search, and print the table of the trials."""
    require_package("", "optuna", INSTALL)
    from z1g.config.search import read_search
    from z1g.search.dag import Where
    from z1g.search.files import markdown_table
    from z1g.search.study import Searcher

    options = {"missing": arguments.missing}
    options |= {} if arguments.gpus is None else {"gpus": str(arguments.gpus)}
    options |= {"objects": ",".join(arguments.objects)} if arguments.objects else {}
    spec = read_search(arguments.study)
    if spec.search.sampler.kind == "cma-es":
        require_package("search.sampler", "cmaes", INSTALL)
    where = Where(arguments.profile, arguments.scale, arguments.results, options)
    trials = Searcher(spec, where).run()
    sys.stdout.write(markdown_table(trials, spec.search.objective, None))
