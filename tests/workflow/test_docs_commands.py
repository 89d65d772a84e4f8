"""Commands of the documentation exist: verbs with their options, targets of make, rules, extras and files."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from support.paths import ROOT

from z1g.cli.main import VERBS, parser_for

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
BLOCK = re.compile(r"^ *```(?:bash|sh)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
CALL = re.compile(r"^(?:\.venv/bin/)?(?:(?:python|python -m z1g|z1g|make|snakemake|pip|hf|huggingface-cli)(?= ))")
HUB_PROGRAMS = ("hf", "huggingface-cli")
"""Of huggingface_hub, earlier and later versions."""
PROGRAMS = ("z1g", "make", "snakemake", "pip", "python")
PLACEHOLDER = re.compile(r"is not a folder$|invalid choice: '[A-Z]+'")
"""Errors of what stands for a name: of a folder that is not here, of one of several words."""
KEYS = {
    "scale", "ablations", "objects", "results", "missing", "gpus", "budget", "onsuccess", "onerror", "base", "out", "licenses",
}  # fmt: skip
"""Of `snakemake --config`; those of the corpus are among them."""


def text_of(page: Path) -> str:
    """A page; of a notebook the text."""
    if page.suffix != ".ipynb":
        return page.read_text(encoding="utf-8")
    cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def commands(text: str) -> Iterator[list[str]]:
    """Words of the commands of a page: those of its shell blocks, and in its sentences those of known programs."""
    lines = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    lines += [code for code in INLINE.findall(BLOCK.sub("", text)) if CALL.match(code)]
    for line in lines:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue  # half a command in a sentence
        part: list[str] = []
        for word in [*words, ";"]:
            if word in {";", "&&", "||", "|", "&"} or word.endswith(";"):
                yield [*part, word[:-1]] if len(word) > 1 and word.endswith(";") else part
                part = []
            elif part or not re.match(r"[A-Z_0-9]+=", word):  # variables before a command
                part.append(word)


def program(words: list[str]) -> tuple[str, list[str]]:
    """What a command starts, and its arguments."""
    name = Path(words[0]).name
    if re.fullmatch(r"python3?(\.\d+)?", name):
        if words[1:3] == ["-m", "z1g"]:
            return "z1g", words[3:]
        return ("python", words[1:]) if len(words) > 1 and words[1].endswith(".py") else ("", [])
    return name, words[1:]


@cache
def parser(verb: str) -> argparse.ArgumentParser:
    return parser_for(verb)


@cache
def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    return {name for line in re.findall(r"(?m)^\.PHONY:(.*)$", text) for name in line.split()}


@cache
def rules() -> set[str]:
    files = [ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk"), ROOT / "workflow/corpus/Snakefile"]
    return {name for file in files for name in re.findall(r"(?m)^(?:rule|checkpoint) (\w+):", file.read_text())}


def problem(words: list[str]) -> str | None:
    """What does not exist in a command; None if it all does, or if the command is not the project's."""
    name, arguments = program(words)
    # An ellipsis stands for what the text has said before; `[…]` for what may be left out.
    unfinished = any("…" in word or "..." in word for word in arguments)
    checks = {"z1g": _z1g, "make": _make, "snakemake": _snakemake, "pip": _pip, "python": _python}
    if name in HUB_PROGRAMS and name not in {script.name for script in entry_points(group="console_scripts")}:
        return f"the lock's huggingface_hub has no program {name}"
    return checks[name](arguments, unfinished) if name in checks and arguments else None


def _z1g(words: list[str], unfinished: bool) -> str | None:
    if words[0].startswith("-") or unfinished and words[0] not in VERBS:
        return None
    if not re.fullmatch("[a-z]+", words[0]):
        return None
    if words[0] not in VERBS:
        return f"there is no verb {words[0]}"
    known = {flag for action in _actions(parser(words[0])) for flag in action.option_strings}
    flags = [word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]
    if missing := [flag for flag in flags if flag not in known]:
        return f"z1g {words[0]} has no {missing[0]}"
    # A sentence may name a verb alone or with an option; what else there is must be a whole command.
    if unfinished or len(words) < 3 or words[1].startswith("-"):
        return None
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parser(words[0]).parse_args(words[1:])
    except SystemExit:
        last = said.getvalue().strip().splitlines()[-1]
        return None if PLACEHOLDER.search(last) else last
    return None


def _actions(of: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Options of a parser and of the parsers below it."""
    for action in of._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)


def _make(words: list[str], unfinished: bool) -> str | None:
    named = [word for word in words if re.fullmatch(r"[a-z-]+", word)]
    return next((f"make has no target {word}" for word in named if word not in make_targets()), None)


def _snakemake(words: list[str], unfinished: bool) -> str | None:
    for i, word in enumerate(words):
        if word == "--profile" and not (ROOT / words[i + 1] / "profile.v9+.yaml").is_file():
            return f"there is no profile {words[i + 1]}"
        if word in {"-R", "--until", "--forcerun", "--omit-from"} and words[i + 1] not in rules():
            return f"there is no rule {words[i + 1]}"
        if (pair := re.match(r"(\w+)=", word)) and pair[1] not in KEYS:
            return f"--config has no key {pair[1]}"
        if word == "ablation_all" and word not in rules():
            return "there is no rule ablation_all"
    scale = next((word.partition("=")[2] for word in words if word.startswith("scale=")), None)
    if scale and scale.islower() and not (ROOT / f"configs/{scale}.yaml").is_file():
        return f"there is no scale {scale}"
    return None


def _pip(words: list[str], unfinished: bool) -> str | None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = [
        name for word in words if (found := re.fullmatch(r"(?:z1g|\.)\[(.+)\]", word)) for name in found[1].split(",")
    ]
    return next((f"there is no extra {name}" for name in asked if name not in extras), None)


def _python(words: list[str], unfinished: bool) -> str | None:
    return None if (ROOT / words[0]).is_file() else f"there is no file {words[0]}"


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_of_a_page_exist(page: Path) -> None:
    found = [(shlex.join(words), problem(words)) for words in commands(text_of(page)) if words]
    wrong = [f"{command}: {what}" for command, what in found if what]
    assert not wrong, "\n".join(wrong)


def test_commands_are_found() -> None:
    found = [program(words)[0] for page in PAGES for words in commands(text_of(page)) if words]
    counts = {name: found.count(name) for name in PROGRAMS}
    assert all(count >= 3 for count in counts.values()), counts


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("```bash\npython -m z1g infre photo.png\n```", "there is no verb infre"),
        ("```bash\nmake env   # once\n.venv/bin/python -m z1g infer photo.png --out a --loud\n```", "has no --loud"),
        ("then `z1g compare a b --format docx` prints", "invalid choice: 'docx'"),
        ("then `make coffee` makes", "no target coffee"),
        ("```bash\nexport A=b\nsnakemake --profile slurm ablation_all -R fitt\n```", "no rule fitt"),
        ("```bash\nsnakemake --profile local ablation_all --config scales=small\n```", "no key scales"),
        ("```bash\nX=1 snakemake --profile local ablation_all --config scale=smal\n```", "no scale smal"),
        ("`snakemake --profile pbs ablation_all`", "no profile pbs"),
        ("`pip install 'z1g[phtoo]'`", "no extra phtoo"),
        ("```bash\napt-get download a && python docs/images/mak.py film b\n```", "no file docs/images/mak.py"),
        ("(`huggingface-cli download a/b`)", "no program huggingface-cli"),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(text: str, what: str) -> None:
    (wrong,) = [said for words in commands(text) if words and (said := problem(words))]
    assert what in wrong


def test_the_page_of_ablations_lists_every_set() -> None:
    text = (ROOT / "docs/ablations.md").read_text(encoding="utf-8")
    table = text[text.index("| | varies |") : text.index("\n\n## ")]
    listed = set(re.findall(r"(?m)^\| `(\w+)` \|", table))
    there = {folder.name for folder in (ROOT / "ablations").iterdir() if folder.is_dir()}
    assert there == listed
