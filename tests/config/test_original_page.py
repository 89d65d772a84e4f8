"""docs/original.md: every flag of the original, once, as `z1g config --from-command` knows it."""

import csv

import pytest
from support.paths import ROOT

from z1g.config.original_command import SCRIPTS
from z1g.config.original_flags import FLAGS, row

PAGE = (ROOT / "docs" / "original.md").read_text(encoding="utf-8")


def listed() -> dict[str, str]:
    """The original's flags and their defaults, in its order, from its source."""
    with (ROOT / "tests" / "support" / "original_flags.tsv").open(encoding="utf-8") as stream:
        lines = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {line["flag"]: line["default"] for line in lines}


def test_every_flag_is_known_with_its_default() -> None:
    flags = listed()
    assert len(flags) == 113
    assert {flag.name: flag.default for flag in FLAGS.values()} == flags


def test_the_table_is_complete() -> None:
    """A row a flag, in the original's order; each has a key or a reason."""
    table = [line for line in PAGE.splitlines() if line.startswith("| `--") and line.count("|") == 5]
    assert [line for line in table if "`--main_process_port`" not in line] == [row(FLAGS[name]) for name in listed()]
    assert all(flag.keys or flag.note for flag in FLAGS.values())


def test_every_program_and_machine_is_named() -> None:
    assert all(name in PAGE for name in SCRIPTS)
    for word in ("acc_configs/gpu1.yaml", "gpu4.yaml", "dearpygui", "zero123plus/pipeline_v2.py", "accelerate launch"):
        assert word in PAGE


@pytest.mark.parametrize("word", ["autodecoder", "unet", "inference"])
def test_the_sets_ablations_are_in_the_page(word: str) -> None:
    assert f"`original_{word}`" in PAGE
    assert (ROOT / "ablations" / "original" / f"original_{word}.yaml").is_file()
