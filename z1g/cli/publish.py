"""`z1g publish`: put a model on the Hugging Face Hub, or in a bucket."""

import argparse
import sys

from z1g.cli.arguments import some_path


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of `publish`."""
    parser.add_argument("model", help="a model's folder, see z1g pack, or the name of one that the package has")
    parser.add_argument(
        "--to", required=True, metavar="USER/NAME",
        help="repository on the hub, made if it is not there; or a place in a bucket, s3://BUCKET/PATH",
    )  # fmt: skip
    parser.add_argument("--picture", nargs="+", type=some_path, default=[], help="pictures for the card")
    parser.add_argument("--license", help="license of the weights in the hub's words, such as cc-by-4.0")
    parser.add_argument(
        "--license-name", metavar="NAME", help="name of a license that the hub has no word for, --license other"
    )
    parser.add_argument("--license-link", metavar="URL", help="where the text of such a license is")
    parser.add_argument("--private", action="store_true", help="a new repository is only for you")
    parser.add_argument("--dry-run", type=some_path, metavar="FOLDER", help="only write what would be published")


def main(verb: str, arguments: argparse.Namespace) -> None:
    """Publish the model, or write the folder."""
    from z1g.inference.publish import Publication, prepare, publish

    publication = Publication(
        arguments.model, arguments.to, arguments.picture, arguments.license, arguments.license_name,
        arguments.license_link, arguments.private,
    )  # fmt: skip
    if arguments.dry_run is not None:
        prepare(publication, arguments.dry_run)
        sys.stdout.write(f"{arguments.dry_run}: what would be published as {publication.repository}\n")
        return
    name = publish(publication)
    sys.stdout.write(f"{name}: z1g infer photo.png --model {name}\n")
