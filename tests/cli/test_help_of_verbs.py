"""The help of commands names the defaults of their options."""

from __future__ import annotations

import argparse

import pytest

from z1g.cli.main import VERBS, parser_for


def help_of(parser: argparse.ArgumentParser, option: str) -> str:
    (action,) = [action for action in parser._actions if option in action.option_strings]
    return action.help or ""


@pytest.mark.parametrize(
    ("verb", "option", "end"),
    [
        ("infer", "--out", "output folder; default: splats"),
        ("infer", "--shift", "; default: 0.0 0.0"),
        ("infer", "--steps", "sampling steps; default: the model's"),
        ("infer", "--mesh", ".glb"),
        ("plan", "--scale", "; default: full"),
        ("view", "--host", "; default: 127.0.0.1"),
        ("pack", "--weights", "a quarter of the size (default)"),
        ("conditions", "--sizes", "copies of the images, pixels"),
    ],
)
def test_options_say_their_defaults_once(verb: str, option: str, end: str) -> None:
    text = help_of(parser_for(verb), option)
    assert text.endswith(end)
    assert text.count("default") <= 1


def test_options_of_parts_say_their_defaults() -> None:
    (parts,) = [action for action in parser_for("bench")._actions if isinstance(action, argparse._SubParsersAction)]
    assert help_of(parts.choices["fit"], "--steps").endswith("; default: 50 100 200")


@pytest.mark.parametrize("verb", VERBS)
def test_all_verbs_have_help(verb: str) -> None:
    assert parser_for(verb).format_help().startswith(f"usage: z1g {verb}")
