"""Argument types that several verbs share."""

import argparse
from pathlib import Path


def existing_folder(text: str) -> Path:
    """Argument type: a folder that exists."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return path
