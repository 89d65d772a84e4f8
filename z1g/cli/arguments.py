"""Argument types shared by several commands."""

import argparse
from pathlib import Path


def existing_folder(text: str) -> Path:
    """Argument type: an existing folder."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return path
