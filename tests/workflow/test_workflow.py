"""The DAG in Snakemake: planned jobs, and jobs that run again after an edit or with `-R`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import forked_snakemake
from support.paths import ROOT

from z1g.jobs.leases import POOL, SHARED
from z1g.plan.runs import named

STAGE_RULES = ("ingest", "fit", "autodecoder", "codes", "unet", "infer", "metrics")
FAKE = """
import sys
from pathlib import Path

OUTPUTS = {
    "ingest": ["chunk-{c}.tar", "chunk-{c}.jsonl", "chunk-{c}.png"],
    "fit": ["chunk-{c}.safetensors", "chunk-{c}.jsonl", "chunk-{c}.png"],
    "autodecoder": ["model/", "history.jsonl"],
    "codes": ["codes.safetensors"],
    "unet": ["pipeline/", "history.jsonl"],
    "infer": ["chunk-{c}/"],
    "metrics": ["metrics.jsonl", "objects.jsonl", "metrics.json", "images/"],
}
verb, first, *rest = sys.argv[1:]
if verb in OUTPUTS:
    assert (Path(first) / "stage.json").is_file(), "the run did not record its stages"
    chunk = rest[rest.index("--chunk") + 1] if "--chunk" in rest else ""
    files = [Path(first) / name.format(c=chunk) for name in OUTPUTS[verb]]
    made = [(file, name.endswith("/")) for file, name in zip(files, OUTPUTS[verb])]
elif verb == "ablation":
    names = ("metrics.csv", "MODEL_CARD.md", "reproduce.json")
    made = [(Path(first) / "ablations" / rest[0] / name, False) for name in names]
elif verb == "tables":
    made = [(Path(first) / "tables" / f"ablations.{e}", False) for e in ("csv", "md", "tex")]
else:
    made = [(Path(rest[-1]), False)]
for path, folder in made:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(exist_ok=True) if folder else path.write_text(verb)
"""


def snakemake(folder: Path, *arguments: str) -> str:
    done = forked_snakemake.snakemake(arguments, folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def jobs(output: str) -> dict[str, int]:
    """Rules and their number of jobs in a dry run."""
    table = output.split("Job stats:")[1].split("total")[0] if "Job stats:" in output else ""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A checkout whose commands only create their outputs."""
    for name in ("workflow", "ablations", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("local", "slurm"):
        (tmp_path / name).symlink_to(f"workflow/profiles/{name}")
    (tmp_path / "fake.py").write_text(FAKE)
    text = (ROOT / "Snakefile").read_text()
    changed, n = re.subn(r"(?m)^Z1G = .*$", f'Z1G = f"{{sys.executable}} {tmp_path}/fake.py"', text)
    assert n == 1
    (tmp_path / "Snakefile").write_text(changed)
    return tmp_path


LOCAL = ("--profile", "local", "--config", "scale=scratch")


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["local", "slurm"])
@pytest.mark.parametrize("scale", ["scratch", "small", "full", "original"])
def test_every_ablation_resolves_at_every_scale_with_both_profiles(profile: str, scale: str, tmp_path: Path) -> None:
    # The original's rasterizer and weights have no package.
    missing = "warn" if scale == "original" else "stop"
    config = ("--config", f"scale={scale}", f"results={tmp_path}/results", f"missing={missing}")
    planned = jobs(snakemake(ROOT, "-n", "--profile", profile, *config, "--", "ablation_all"))
    n = len(list((ROOT / "ablations").glob("*.yaml")))
    assert planned["ablation"] == n
    # Two ablations are the same if a scale already has the options of one of them.
    assert n - 1 <= planned["metrics"] <= n
    assert planned["report"] == planned["tables"] == 1
    assert set(STAGE_RULES) <= set(planned)
    assert not (tmp_path / "results").exists(), "a dry-run must not write"


def threads(output: str) -> dict[str, str]:
    """Cores by rule in a dry run."""
    return {rule: n for rule, n in re.findall(r"rule (\w+):(?:\n +.*)*?\n +threads: (\d+)", output)}


@pytest.mark.slow
def test_jobs_that_share_gpus_share_cores(tmp_path: Path) -> None:
    environment = {**os.environ, POOL: "0,1", SHARED: "8"}
    words = ["-n", "--cores", "64", "--config", "scale=small", f"results={tmp_path}/results", "--", "ablation_all"]
    alone = forked_snakemake.snakemake(["--profile", "local", *words], ROOT, {**environment, SHARED: "1"})
    shared = forked_snakemake.snakemake(["--profile", "local", *words], ROOT, environment)
    assert (alone.returncode, shared.returncode) == (0, 0)
    before, after = threads(alone.stdout + alone.stderr), threads(shared.stdout + shared.stderr)
    assert before["unet"] == before["ingest"] == "8"
    assert (after["unet"], after["ingest"]) == ("4", "8")


def test_a_wrong_number_of_jobs_is_one_line(tmp_path: Path) -> None:
    words = ["-n", "--cores", "2", "--config", "scale=scratch", f"results={tmp_path}/results", "--", "ablation_all"]
    done = forked_snakemake.snakemake(words, ROOT, {**os.environ, SHARED: "x"})
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"z1g: error: {SHARED}=x: give a number of jobs from 1 to 64"


@pytest.mark.slow
def test_edits_and_forced_rules_run_downstream_jobs_only(workspace: Path) -> None:
    snakemake(workspace, *LOCAL)
    assert "Nothing to be done" in snakemake(workspace, "-n", *LOCAL)

    file = workspace / "ablations/optimized_splat_no_dropout.yaml"
    file.write_text(file.read_text() + "  train: {optimizer: {lr: 3.0e-4}}\n")
    assert jobs(snakemake(workspace, "-n", *LOCAL)) == {
        "unet": 1, "infer": 1, "metrics": 1, "ablation": 1, "tables": 1, "report": 1, "ablation_all": 1,
    }  # fmt: skip
    snakemake(workspace, *LOCAL)
    assert "Nothing to be done" in snakemake(workspace, "-n", *LOCAL)

    forced = jobs(snakemake(workspace, "-n", *LOCAL, "-R", "fit", "--", "ablation_all"))
    everything = {
        "fit": 2, "autodecoder": 4, "codes": 4, "unet": 5, "infer": 5, "metrics": 5,
        "ablation": 5, "tables": 1, "report": 1, "ablation_all": 1,
    }  # fmt: skip
    assert forced == everything

    # A new ablation without changes shares all stages.
    (workspace / "ablations/new.yaml").write_text("autodecoder:\n  codes: {kind: optimized}\n")
    assert jobs(snakemake(workspace, "-n", *LOCAL)) == {"ablation": 1, "tables": 1, "report": 1, "ablation_all": 1}
    (workspace / "ablations/new.yaml").unlink()

    runtime = workspace / "configs/scratch.yaml"
    runtime.write_text(runtime.read_text().replace("checkpoint_every: 200", "checkpoint_every: 100"))
    assert "Nothing to be done" in snakemake(workspace, "-n", *LOCAL)


@pytest.mark.slow
def test_an_ablation_without_its_record_gets_one(workspace: Path) -> None:
    """For example, results of versions without records."""
    snakemake(workspace, *LOCAL, "ablations=encoder_mix")
    (workspace / "results/ablations/encoder_mix/reproduce.json").unlink()
    planned = jobs(snakemake(workspace, "-n", *LOCAL, "ablations=encoder_mix"))
    assert planned == {"ablation": 1, "ablation_all": 1}, "tables and report do not read it"


@pytest.mark.slow
def test_an_edited_description_updates_tables_and_report(workspace: Path) -> None:
    snakemake(workspace, *LOCAL, "ablations=encoder_mix")
    file = workspace / "ablations/encoder_mix.yaml"
    file.write_text(re.sub("(?m)^description: .*$", "description: other words", file.read_text()))
    planned = jobs(snakemake(workspace, "-n", *LOCAL, "ablations=encoder_mix"))
    assert planned == {"ablation": 1, "tables": 1, "report": 1, "ablation_all": 1}


@pytest.mark.slow
def test_systems_of_a_set_are_measured_before_tables_and_report(workspace: Path) -> None:
    (workspace / "outputs").mkdir()
    (workspace / "outputs/a.ply").write_text("splats")
    (workspace / "ablations/mine").mkdir()
    (workspace / "ablations/mine/one.yaml").write_text("description: one\n")
    peers = workspace / "ablations/mine/_set.yaml"
    peers.write_text("description: mine\npeers:\n  lgm: {outputs: outputs, frame: lgm}\n")
    planned = snakemake(workspace, "-n", *LOCAL, "ablations=mine")
    assert jobs(planned)["peer"] == 1
    for rule in ("tables", "report"):
        (inputs,) = re.findall(rf"rule {rule}:\n    input: (.*)", planned)
        assert "results/peers/lgm/peer.json" in inputs
    peers.write_text("description: mine\n")
    assert "peer" not in jobs(snakemake(workspace, "-n", *LOCAL, "ablations=mine"))


@pytest.mark.slow
def test_a_raised_stage_version_runs_the_stage_again(workspace: Path) -> None:
    snakemake(workspace, *LOCAL, "ablations=encoder_mix")
    snakefile = workspace / "Snakefile"
    patch = (
        "import dataclasses\nfrom z1g.plan.stages import STAGES\n"
        'STAGES["infer"] = dataclasses.replace(STAGES["infer"], version=99)\n'
    )
    snakefile.write_text(snakefile.read_text().replace("min_version(", patch + "min_version(", 1))
    assert jobs(snakemake(workspace, "-n", *LOCAL, "ablations=encoder_mix")) == {
        "infer": 1, "metrics": 1, "ablation": 1, "tables": 1, "report": 1, "ablation_all": 1,
    }  # fmt: skip


@pytest.mark.slow
def test_an_edited_mesh_is_rendered_again(workspace: Path) -> None:
    snakemake(workspace, *LOCAL, "ablations=encoder_mix")
    mesh = workspace / "workflow/objects/crate/crate.obj"
    mesh.write_text(mesh.read_text() + "\n# edited\n")
    planned = jobs(snakemake(workspace, "-n", *LOCAL, "ablations=encoder_mix"))
    assert planned["ingest"] == 2  # a new data set, which reuses unchanged objects
    assert planned["autodecoder"] == 1


STUDY = """
base: encoder
seeds: {unet: 3}
priority: 5
resources: {unet: {qos: urgent, gpu_memory_gb: 24}}
sweep:
  grid:
    unet.train.optimizer.lr: [1.0e-3, 3.0e-4]
    infer.guidance: [1, 2]
"""


@pytest.mark.slow
def test_points_and_replicates_share_what_does_not_depend_on_them(workspace: Path) -> None:
    (workspace / "ablations/rates").mkdir()
    (workspace / "ablations/rates/rate.yaml").write_text(STUDY)
    run = "rate@lr=1e-3,guidance=2@seed=1"
    expected = {
        "ingest": 2, "fit": 2, "autodecoder": 1, "codes": 1, "unet": 2 * 3, "infer": 12, "metrics": 12,
        "ablation": 12, "tables": 1, "report": 1, "ablation_all": 1,
    }  # fmt: skip
    assert jobs(snakemake(workspace, "-n", *LOCAL, "ablations=rates")) == expected

    said = snakemake(workspace, *LOCAL, f"ablations={run}")
    assert "priority: 5" in said
    assert said.count("qos=urgent") == 1
    assert said.count("gpu_memory_gb=24") == 1
    assert said.count("gpu_memory_gb=0") == 1  # stage 1
    assert named([f"@{workspace / 'results/runs.txt'}"]) == [run]
    assert (workspace / f"results/ablations/{run}/MODEL_CARD.md").read_text() == "ablation"
    assert "Nothing to be done" in snakemake(workspace, "-n", *LOCAL, f"ablations={run}")

    names = f"ablations=rate@lr=1e-3,guidance=1@seed=1,{run},encoder"
    assert jobs(snakemake(workspace, "-n", *LOCAL, names)) == {
        # Both points have the UNet of replicate 1; `encoder` is replicate 0 at guidance 2.
        "unet": 1, "infer": 2, "metrics": 2, "ablation": 2, "tables": 1, "report": 1, "ablation_all": 1,
    }  # fmt: skip


@pytest.mark.slow
def test_rules_are_formatted_and_linted() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "snakefmt", "--check", "Snakefile", "workflow/rules"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lint = forked_snakemake.snakemake(["--lint", "--config", "scale=scratch"], ROOT)
    advice = set(re.findall(r"^    \* (.*)$", lint.stdout + lint.stderr, flags=re.MULTILINE))
    # Ignored advice: requirements.lock pins the environment of all rules.
    assert advice == {"Specify a conda environment or container for each rule.:"}, lint.stdout + lint.stderr


def test_every_caption_that_rules_name_exists() -> None:
    named = set()
    for file in [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]:
        named |= {Path(name).name for name in re.findall(r"[\w./]+\.rst", file.read_text())}
    assert named
    assert named <= {file.name for file in (ROOT / "workflow/report").glob("*.rst")}
