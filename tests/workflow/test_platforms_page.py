"""`docs/platforms.md` names the versions of the lock files, of the requirements and of the measured figures."""

from __future__ import annotations

import re
import tomllib

import pytest
from support.paths import ROOT

from z1g.core.stages import TRAINED
from z1g.plan.cost import memory

PAGE = (ROOT / "docs/platforms.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
LOCK = dict(re.findall(r"(?m)^([\w-]+)==(\S+)$", (ROOT / "requirements.lock").read_text()))
BLENDER = "Blender's Python module"
TABLE = {
    cells[0]: cells[1:]
    for line in PAGE.split("## Versions")[1].splitlines()
    if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 4
}


def required() -> str:
    """All requirements of the package and its extras, a line each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return "\n".join([*project["dependencies"], *(line for extra in extras for line in extra)])


@pytest.mark.parametrize("name", ["torch", "diffusers"])
def test_versions_of_the_lock(name: str) -> None:
    assert TABLE[name][0] == LOCK[name]


def test_versions_of_other_files() -> None:
    blender = (ROOT / "requirements-blender.lock").read_text()
    assert f"bpy=={TABLE[BLENDER][0]}" in blender
    assert f"torch {LOCK['torch']} of `requirements.lock`" in PAGE


def test_bounds_are_those_of_the_package() -> None:
    lines = required()
    for name in ("torch", "gsplat"):
        lowest = TABLE[name][2].removesuffix(" or later")
        assert re.search(rf"(?m)^{name}>={re.escape(lowest)}$", lines), name
    low, high = TABLE["diffusers"][2].split(" to ")
    major, minor = high.split(".")
    assert f"diffusers>={low},<{major}.{int(minor) + 1}" in lines


def test_versions_of_figures_are_those_of_the_benchmarks() -> None:
    figures = BENCHMARKS + (ROOT / "docs/using.md").read_text()
    assert f"gsplat {TABLE['gsplat'][1]}, torch {TABLE['torch'][1]}, Python 3.12" in figures
    assert f"nvdiffrast {TABLE['nvdiffrast'][1]}" in figures


def test_memory_of_the_questions_is_that_of_the_benchmarks() -> None:
    """Each pair of objects a GPU and its peak is one of the plan's, or, with more objects, in the scaling table."""
    rows = [re.split(r" *\| *", line) for line in BENCHMARKS.splitlines() if "GiB |" in line]
    measured = {(row[3], f"{float(row[-2].removesuffix(' GiB')) * 2**30 / 1e9:.1f}") for row in rows if len(row) > 9}
    scales = ("full", "original", "small", "base", "mini/mosaic", "finetune")
    measured |= {(str(peak.objects), f"{peak.gb:.1f}") for peak in memory.measured() if peak.about in scales}
    section = (ROOT / "docs/faq.md").read_text().split("## How much GPU memory?")[1].split("\n## ")[0]
    found = re.findall(r"\| ([\d; ]+) \| ([\d.; ]+) GB \|", section)
    pairs = [pair for sizes, peaks in found for pair in zip(sizes.split("; "), peaks.split("; "), strict=True)]
    assert len(pairs) == 30
    assert set(pairs) <= measured


def test_memory_of_the_benchmarks_is_that_of_the_plan() -> None:
    section = BENCHMARKS.split("## GPU memory")[1].split("\n## ")[0]
    known = {}
    for peak in memory.measured():
        way = peak.objects, peak.whole, peak.recompute, peak.state == "int8", peak.finetune == memory.ADAPTERS
        known[peak.about, peak.stage, *way] = f"{peak.gb:.1f}"
    said = {}
    columns: list[tuple[str, str]] = []
    for line in section.splitlines():
        if line.startswith("| objects at once |"):
            columns = [(about, stage) for about in re.findall(r"`([\w/]+)`: stage 1", line) for stage in TRAINED]
        elif re.match(r"\| \d", line):
            label, *cells = line.strip("| ").split(" | ")
            way = int(label.split(",")[0].split()[0]), *(
                word in label for word in (", all", "recomputed", "8-bit", "adapters")
            )  # fmt: skip
            said |= {(*column, *way): cell for column, cell in zip(columns, cells, strict=True) if cell != "–"}
    trained = {what: gb for what, gb in known.items() if what[1] in TRAINED}
    assert said == trained
