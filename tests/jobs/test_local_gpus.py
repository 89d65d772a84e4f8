"""`--profile local`: real Snakemake and real leases of fake GPUs; only the stages' work is fake."""

import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from support.forked_snakemake import snakemake
from support.paths import ROOT

from z1g.config.resolve import merge

VERB = '''
"""z1g whose stages write empty outputs and a journal of their GPUs."""
import os, sys, time
from pathlib import Path
from z1g.cli import main as cli
from z1g.cli import stage

JOURNAL = Path("journal")


def note(*words):
    with JOURNAL.open("a") as file:
        file.write(" ".join(map(str, words)) + "\\n")


def run(verb, folder, threads, chunk):
    gpus = os.environ["CUDA_VISIBLE_DEVICES"] or "none"
    note("begin", verb, os.getpid(), gpus, os.environ.get("WORLD_SIZE", 1))
    together = int(os.environ["FITS_AT_ONCE"]) if verb == "fit" else 0
    end = time.monotonic() + 120
    while JOURNAL.read_text().count("begin fit") < together and time.monotonic() < end:
        time.sleep(0.01)
    for output in sys.argv[sys.argv.index("--outputs") + 1 :]:
        if output.startswith("--"):
            break
        path = Path(output)
        if path.suffix in ("", ".dir"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    note("end", verb, os.getpid(), gpus)


stage._run = run
sys.exit(cli.main())
'''


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A checkout with two chunks of objects: fits on one GPU each, stage 1 on two, everything else on none."""
    for name in ("workflow", "ablations", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "local").symlink_to("workflow/profiles/local")
    micro = yaml.safe_load((ROOT / "tests/support/micro.yaml").read_text())
    paths = [f"workflow/objects/{name}" for name in ("crate", "bread", "basketball", "chicken")]
    changes = {
        "data": {"paths": paths, "chunk_size": 2},
        "resources": {"fit": {"gpus": 1}, "autodecoder": {"gpus": 2}},
    }
    (tmp_path / "micro.yaml").write_text(yaml.safe_dump(merge(micro, changes)))
    (tmp_path / "verb.py").write_text(VERB)
    snakefile = (ROOT / "Snakefile").read_text()
    verb = f'Z1G = f"{{shlex.quote(sys.executable)}} {tmp_path}/verb.py"'
    (tmp_path / "Snakefile").write_text(re.sub(r"(?m)^Z1G = .*$", verb, snakefile))
    return tmp_path


def run(workspace: Path, *config: str, fits_at_once: int, pool: str = "4,7") -> list[list[str]]:
    """Run up to the codes and return the journal."""
    ours = {
        "Z1G_GPUS": pool, "Z1G_LEASES": str(workspace / "leases"), "FITS_AT_ONCE": str(fits_at_once),
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    words = ["--profile", "local", "--cores", "4", "--until", "codes"]
    words += ["--config", "scale=micro.yaml", "ablations=encoder_mix", *config]
    environment = {name: value for name, value in os.environ.items() if name != "SLURM_JOB_ID"} | ours
    done = snakemake(words, workspace, environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [line.split() for line in (workspace / "journal").read_text().splitlines()]


@pytest.mark.slow
def test_jobs_have_distinct_gpus_and_others_none(workspace: Path) -> None:
    begun = [row[1:] for row in run(workspace, fits_at_once=2) if row[0] == "begin"]
    assert sorted(gpus for verb, _, gpus, _ in begun if verb == "fit") == ["4", "7"], "both fits ran at once"
    assert [(gpus, world) for verb, _, gpus, world in begun if verb == "autodecoder"] == [("4,7", "2")] * 2
    assert {gpus for verb, _, gpus, _ in begun if verb in ("ingest", "codes")} == {"none"}


@pytest.mark.slow
def test_the_number_of_gpus_can_be_limited(workspace: Path) -> None:
    held: set[str] = set()
    journal = run(workspace, "gpus=1", fits_at_once=1)
    for event, _, process, gpus, *_ in journal:
        if gpus != "none":
            (held.add if event == "begin" else held.remove)(process)
            assert len(held) <= 1
    (stage_1,) = [row for row in journal if row[:2] == ["begin", "autodecoder"]]
    assert stage_1[4] == "1", "training uses the available GPU"
