"""Argument types shared by several commands."""

import argparse
import errno
import math
import os
from collections.abc import Callable
from pathlib import Path

from z1g.core.urls import ON_DISK, is_url


def some_path(text: str) -> Path:
    """Argument type: a path. An empty argument, as of an unset shell variable, would be the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty")
    if is_url(text):
        raise argparse.ArgumentTypeError(f"{text} is in a bucket; {ON_DISK}")
    try:
        os.stat(text)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ELOOP:
            raise argparse.ArgumentTypeError(f"{text} is a loop of symbolic links") from None
    return Path(text)


def existing_folder(text: str) -> Path:
    """Argument type: an existing folder."""
    path = some_path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return path


def between(low: int, high: int) -> Callable[[str], int]:
    """Argument type: an integer from `low` to `high`."""

    def number(text: str) -> int:
        if not text.isdecimal() or len(text) > 9 or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text[:40]} is not a number from {low} to {high}")
        return int(text)

    return number


def amount(text: str) -> float:
    """Argument type: a number from 0 to a million."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1e6:
        raise argparse.ArgumentTypeError(f"{text[:40]} is not a number from 0 to a million")
    return number


def at_least(low: int) -> Callable[[str], int]:
    """Argument type: an integer of at least `low`, which is not negative."""

    def number(text: str) -> int:
        if text.isdecimal() and len(text) > 9:
            raise argparse.ArgumentTypeError(f"{text[:40]} is too large: give at most 999999999")
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text[:40]} is not a whole number of at least {low}")
        return int(text)

    return number


def fraction(text: str) -> float:
    """Argument type: a fraction above 0, up to 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a fraction above 0, up to 1")
    return value


def refuse_empty(parser: argparse.ArgumentParser) -> None:
    """Let text that is empty, as of an unset shell variable, be an error of all arguments, also of parsers below.

    It would mean the default, or nothing. Arguments with a type or with choices refuse it themselves.
    """
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                refuse_empty(inner)
        elif action.type is None and action.choices is None and action.nargs != 0:
            action.type = _some_text(action.help or "a value")


def _some_text(about: str) -> Callable[[str], str]:
    """Argument type: text that is not empty. `about`: the help of the argument, whose beginning says what it is."""
    what = about.partition(";")[0]

    def text_of(text: str) -> str:
        if not text.strip():
            raise argparse.ArgumentTypeError(f"the value is empty; give one ({what})")
        return text

    return text_of


def say_defaults(parser: argparse.ArgumentParser) -> None:
    """Let the help of options name their defaults where its text does not, in parsers below this one, too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                say_defaults(inner)
        elif action.option_strings and action.help and "default" not in action.help:
            values = action.default if isinstance(action.default, list | tuple) else [action.default]
            if values and all(isinstance(value, str | int | float | Path) for value in values) and action.nargs != 0:
                action.help += f"; default: {' '.join(map(str, values))}".replace("%", "%%")
