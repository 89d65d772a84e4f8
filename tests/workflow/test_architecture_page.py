"""`docs/architecture.md` draws the house that the import contract holds."""

import re
import tomllib

from support.paths import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text()


def floors() -> list[str]:
    """The rooms of the import contract, the top floor first."""
    (contract,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return contract["layers"]


def test_the_picture_has_every_room_on_its_floor() -> None:
    picture = PAGE.split("```")[1]
    drawn = [word for line in picture.splitlines() for word in re.findall(r"^.{20}(\w+)", line)]
    assert drawn == floors()


def test_files_that_the_page_names_exist() -> None:
    named = set(re.findall(r"`((?:z1g|tests|docs)/[\w/.]+)`", PAGE))
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
