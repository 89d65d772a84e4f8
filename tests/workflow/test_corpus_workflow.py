"""The workflow of the corpus: which sources and packages it asks for."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.paths import ROOT

from z1g.cli import corpus as command
from z1g.corpus.excluded import excluded
from z1g.corpus.sources import SOURCES

FOLDER = ROOT / "workflow/corpus"
PACKAGES = yaml.safe_load((FOLDER / "packages.yaml").read_text())


def dry_run(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--snakefile", str(FOLDER / "Snakefile")]
    return subprocess.run([*command, *words, "--config", f"out={out}", "licenses=free"], cwd=out, capture_output=True, text=True)


def test_sources_and_packages_are_those_of_the_converter() -> None:
    assert PACKAGES["sources"].keys() == SOURCES.keys() == set(command.SOURCES)
    for name, source in SOURCES.items():
        assert (source.name, list(source.packages), source.free) == (
            name, PACKAGES["sources"][name]["packages"], PACKAGES["sources"][name]["free"]
        )  # fmt: skip
    named = [package for source in PACKAGES["sources"].values() for package in source["packages"]]
    assert sorted(named) == sorted(PACKAGES["packages"])
    for package in PACKAGES["packages"].values():
        assert re.fullmatch("[0-9a-f]{64}", package["sha256"])
        assert all(excluded(pattern) is None for pattern in package["files"])


@pytest.mark.slow
def test_free_sources_only(tmp_path: Path) -> None:
    planned = dry_run(tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert set(re.findall(r"deb/([a-z0-9-]+)\.deb", planned.stdout + planned.stderr)) == {
        package for source in SOURCES.values() if source.free for package in source.packages
    }
    one = dry_run(tmp_path, "furniture")
    assert one.returncode == 0, one.stderr
    assert "sweethome3d-furniture" in one.stdout + one.stderr
    assert "0ad-data" not in one.stdout + one.stderr
