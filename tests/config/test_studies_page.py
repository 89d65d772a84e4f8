"""The examples of docs/studies.md are what the page says."""

import itertools
import re
import shutil
from pathlib import Path

import pytest
from support.paths import CONFIGS, ROOT

from z1g.config.catalog import Catalog
from z1g.config.entries import Entries

PAGE = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(yaml|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (ablations/\S+\.yaml)\n")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """The ablations of the page beside those that come with z1g."""
    root = tmp_path_factory.mktemp("page")
    shutil.copytree(ROOT / "ablations", root / "ablations")
    for kind, text in BLOCK.findall(PAGE):
        if kind == "yaml":
            path = root / FILE.match(text)[1]  # type: ignore[index]
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return Catalog(Entries.of_folder(root / "ablations"), "scratch", CONFIGS)


def examples() -> list[tuple[str, list[str]]]:
    """Names of the files and the lines of the list below each."""
    blocks = BLOCK.findall(PAGE)
    pairs = [(a, b) for a, b in itertools.pairwise(blocks) if (a[0], b[0]) == ("yaml", "text")]
    return [(Path(FILE.match(a[1])[1]).stem, b[1].splitlines()) for a, b in pairs]  # type: ignore[index]


@pytest.mark.parametrize(("name", "lines"), examples(), ids=[name for name, _ in examples()])
def test_an_example_has_the_runs_that_are_listed(catalog: Catalog, name: str, lines: list[str]) -> None:
    runs = [run.name for run in catalog.runs(name)]
    if lines[-1] == "…":
        assert runs[: len(lines) - 1] == lines[:-1]
        assert len(runs) > len(lines)
    else:
        assert runs == lines


def test_the_page_has_an_example_of_each_way() -> None:
    assert len(examples()) >= 6


def test_the_names_of_the_table_are_runs(catalog: Catalog) -> None:
    table = PAGE.split("## Naming runs")[1].split("\n\n")[0]
    names = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    counts = {}
    for name in names:
        runs, problems = catalog.select([name])
        assert not problems
        counts[name] = len(runs)
    assert list(counts.values()) == [2, 4, 1, 3, 1]


def test_the_study_is_as_large_as_the_page_says(catalog: Catalog) -> None:
    runs, problems = catalog.select(["study"])
    assert not problems
    assert f"all of its {len(runs)} runs" in PAGE
    assert {run.about.set for run in runs} == {"study"}
    assert {run.about.seed for run in runs} == {0, 1, 2}
