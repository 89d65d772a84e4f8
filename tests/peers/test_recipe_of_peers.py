"""The commands of docs/peers.md, from condition images to the report, as they stand there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from support.builders import stage_path
from support.paths import ROOT
from support.peer_objects import World, world

from z1g.cli.main import main
from z1g.core.files import read_json, read_jsonl, write_json, write_jsonl
from z1g.gaussians import files
from z1g.gaussians.affine import transformed
from z1g.plan.runs import NAMES_FILE, write_names

FILE_AXES = np.diag([1.0, -1.0, -1.0])
"""`files.write` turns y-up splats by this, which LGM's writer does not."""


def commands() -> list[list[str]]:
    """The words of each command of the first block of the page."""
    block = re.findall(r"```bash\n(.*?)```", (ROOT / "docs/peers.md").read_text(), re.DOTALL)[0]
    return [words for line in block.splitlines() if (words := shlex.split(line, comments=True))]


def write_as_lgm(made: World, names: list[str], conditions: Path, folder: Path) -> None:
    """Splats in the frame of LGM: the condition camera, wherever it was, is on the z axis. All else is as here."""
    folder.mkdir(parents=True)
    cameras = read_json(conditions / "cameras.json")["objects"]
    for name in names:
        turn = FILE_AXES @ Rotation.from_euler("x", cameras[name]["elevation_deg"], degrees=True).as_matrix()
        x = transformed(made.splats[name][None].double(), torch.from_numpy(turn)[None])[0]
        files.write(folder / f"{name}.ply", x.float())


def write_our_run(made: World, rows: list[dict], objects: list[dict], about: dict) -> None:
    """Measurements of our run: 2 dB worse than the system on each view."""
    folder = stage_path(made.planned, "metrics")
    ours = [{**row, "source": "sampled", "psnr": row["psnr"] - 2} for row in rows]
    write_jsonl(folder / "metrics.jsonl", ours)
    write_jsonl(folder / "objects.jsonl", [{**row, "source": "sampled"} for row in objects])
    write_json(folder / "metrics.json", {key: about[key] for key in ("metrics", "missing", "sets", "gaps", "truth")})


@pytest.mark.slow
def test_the_commands_of_the_page_lead_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    made = world(tmp_path, 4)  # object0 is a test object
    *given, missing = sorted(made.splats)
    write_names(made.results / NAMES_FILE, ["micro"])
    monkeypatch.chdir(tmp_path)
    recipe = commands()
    assert [words[1] for words in recipe] == ["conditions", "evaluate", "compare", "tables", "report"]
    for program, verb, *words in recipe:
        assert program == "z1g"
        assert main([verb, *("micro" if word == "encoder_mix" else word for word in words)]) == 0, verb
        if verb == "conditions":
            write_as_lgm(made, given, tmp_path / "conditions", tmp_path / "outputs" / "lgm")
        elif verb == "evaluate":
            said = capfd.readouterr().out
            peer = made.results / "peers" / "lgm"
            rows, objects = read_jsonl(peer / "metrics.jsonl"), read_jsonl(peer / "objects.jsonl")
            write_our_run(made, rows, objects, read_json(peer / "peer.json"))
        elif verb == "compare":
            compared = capfd.readouterr().out
    assert np.mean([row["psnr"] for row in rows]) > 30, "another frame shows the objects from elsewhere"
    assert f"not measured: {missing}: missing" in said
    for _, verb, *words in recipe[3:]:
        assert shlex.join(["z1g", verb, *words]) in said, "evaluate says how to go on"
    assert "+2.00" in compared
    assert "| peer: lgm |" in (made.results / "tables/ablations.md").read_text()
    page = (made.results / "report.html").read_text()
    for name in given:
        assert re.search(rf'<img src="data:image/webp;base64,[^"]+" alt="{name}, peer: lgm"', page)
