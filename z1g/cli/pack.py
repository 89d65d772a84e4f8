"""`z1g pack`: a trained run as a folder that needs no results tree."""

import argparse
import sys
from pathlib import Path

from z1g.cli.arguments import some_path
from z1g.core.errors import UserError
from z1g.core.files import read_bytes
from z1g.plan.runs import run_folder


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `pack`."""
    parser.add_argument("run", type=some_path, help="a trained run: its name, or its folder results/ablations/<name>")
    parser.add_argument("--results", type=some_path, default=Path("results"), help="results folder of named runs")
    parser.add_argument("--out", type=some_path, required=True, help="the folder to write, which must not exist")
    parser.add_argument(
        "--weights", choices=["int8", "float32"], default="int8", help="int8: a quarter of the size (default)"
    )
    parser.add_argument("--card", type=some_path, help="its README.md; default: the run's MODEL_CARD.md")


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Write the folder."""
    run = run_folder(str(arguments.run), arguments.results)
    from z1g.inference.models import of_run, write_model

    model = of_run(run)
    card = arguments.card or run / "MODEL_CARD.md"
    try:
        text = read_bytes(card).decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{card} cannot be read: {reason}; name a model card with --card") from error
    from z1g.inference.card import parse_card
    from z1g.jobs.records import provenance
    from z1g.report.card import packed_card

    about = {"weights": arguments.weights, **provenance()}
    parse_card(text, str(card))
    card_text = packed_card(text) if arguments.card is None else text
    write_model(model, arguments.out, int8=arguments.weights == "int8", about=about, card=card_text)
    size = sum(file.stat().st_size for file in arguments.out.rglob("*") if file.is_file())
    sys.stdout.write(f"{arguments.out}: {size / 2**20:.1f} MiB; z1g infer photo.png --model {arguments.out}\n")
