"""What pages of experiments say of a table is what the table says."""

import re

from support.paths import ROOT

PAGE = ROOT / "docs/experiments/representations.md"


def test_frechet_distances_of_the_mosaic_and_of_regression() -> None:
    text = PAGE.read_text()
    mosaic, regression = (
        [int(number) for number in re.findall(rf"^\| `{kind}` \|.*\| ([\d, ]+) \|$", text, re.MULTILINE)[0].split(",")]
        for kind in ("mosaic", "regression")
    )
    lower = [b - a for a, b in zip(mosaic, regression, strict=True)]
    words = f"{min(lower)} to {max(lower)} lower in Fréchet distance for each seed, "
    words += f"{round(sum(mosaic) / 3)} against {round(sum(regression) / 3)} in the mean"
    assert len(lower) == 3
    assert words in " ".join(text.split())
