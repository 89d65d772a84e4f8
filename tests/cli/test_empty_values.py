"""Arguments that are empty, as of unset shell variables, are errors."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from z1g.cli.main import VERBS, main, parser_for


def arguments_of(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, argparse.Action]]:
    """Arguments that take values, also of parts."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from arguments_of(part)
        elif action.nargs != 0 and action.choices is None:
            yield parser, action


@pytest.mark.parametrize("empty", ["", " "])
@pytest.mark.parametrize("verb", VERBS)
def test_no_argument_takes_an_empty_value(verb: str, empty: str) -> None:
    for parser, action in arguments_of(parser_for(verb)):
        with pytest.raises(argparse.ArgumentError):
            parser._get_value(action, empty)  # type: ignore[attr-defined]  # what parse_args calls


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["conditions", "--out", "o", "--results", ".", "--like", ""], "--like: the value is empty; give one (planned"),
        (["evaluate", "--results", ".", "--name", ""], "--name: the value is empty; give one (name of the system"),
        (["status", "--scale="], "--scale: the value is empty; give one (plan with this base configuration"),
        (["config", "show", "--scale", ""], "--scale: the value is empty; give one (show, or a name: the base conf"),
        (["config", "show", "--ablation", ""], "--ablation: the path is empty"),
        (["list", "", "--out", "a.jsonl"], "paths: the value is empty; give one (folders, globs, mesh files"),
        (["plan", "--ablations", "joint", ""], "--ablations: the value is empty; give one (names of files, sets"),
        (["bench", "render", "--device", ""], "--device: the value is empty; give one (cpu or cuda)"),
    ],
)  # fmt: skip
def test_the_error_says_what_to_give(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_other_values_are_as_they_were() -> None:
    parsed = parser_for("evaluate").parse_args(["--like", " a", "--results", "."])
    assert (parsed.like, parsed.name) == (" a", None)
    assert parser_for("plan").parse_args([]).scale == "full"
    assert parser_for("plan").parse_args(["--ablations"]).ablations == []
