"""Commands that collect results."""

import argparse

from z1g.cli.arguments import existing_folder, fraction, some_path


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Arguments of `ablation`, `prune`, `tables` and `report`."""
    parser.add_argument("results", type=existing_folder, help="the results folder")
    if verb == "ablation":
        parser.add_argument("name", help="name of the ablation")
    elif verb == "prune":
        parser.add_argument("study", help="name of the ablation file or of the set")
        parser.add_argument("rung", type=fraction, help="a rung of the study, as a fraction of the training steps")
    else:
        parser.add_argument(
            "--ablations", nargs="+", required=True, help="names, in the order of the table; @FILE: one a line"
        )
        parser.add_argument("--out", type=some_path, required=True, help="folder (tables) or file (report) to write")


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Run the command."""
    from z1g.plan.runs import named

    if verb == "ablation":
        from z1g.stages import ablation

        ablation.run(arguments.results, arguments.name)
    elif verb == "prune":
        from z1g.stages import prune

        prune.run(arguments.results, arguments.study, arguments.rung)
    elif verb == "tables":
        from z1g.stages import tables

        tables.run(arguments.results, named(arguments.ablations), arguments.out)
    else:
        from z1g.stages import report

        report.run(arguments.results, named(arguments.ablations), arguments.out)
