"""A finished micro ablation: the chain run by the real commands, as the rules of the workflow run it."""

from pathlib import Path
from typing import Any

from support.builders import fill, plan, stage_path
from z1g.cli.main import main
from z1g.core.seeding import seeded
from z1g.data.shards import shard_path, table_path
from z1g.jobs.records import recorded
from z1g.plan.plan import Plan
from z1g.stages import ablation

OUTPUTS = {
    "fit": ("chunk-{}.safetensors", "chunk-{}.jsonl", "chunk-{}.png"),
    "autodecoder": ("model", "history.jsonl"),
    "codes": ("codes.safetensors",),
    "unet": ("pipeline", "history.jsonl"),
    "infer": ("chunk-{}",),
    "metrics": ("metrics.jsonl", "objects.jsonl", "metrics.json", "images"),
}
"""Outputs of the stages after ingest, by the names in the rules."""


def run_stage(results: Path, planned: Plan, name: str) -> int:
    """Run all jobs of a stage in a results folder; returns the first exit code that is not 0."""
    stage = planned.ablations["micro"].stages[name]
    folder = results / name / stage.id
    for chunk in range(stage.n_chunks):
        outputs = [str(folder / pattern.format(f"{chunk:05d}")) for pattern in OUTPUTS[name]]
        numbered = ["--chunk", str(chunk)] if name in ("fit", "infer") else []
        with seeded(0):  # networks that are not trained are random, and the same in each process
            code = main([name, str(folder), *numbered, "--threads", "1", "--outputs", *outputs])
        if code:
            return code
        for output in map(Path, outputs):
            if output.is_dir():
                (output / ".snakemake_timestamp").touch()  # as Snakemake does
    return 0


def finish(root: Path, **changes: Any) -> Plan:
    """Plan three synthetic objects in `root` and run the chain on them, with synthetic results of ingest."""
    planned = plan(root, n_objects=3, **changes)
    fill(planned, placed=True)
    ingest = stage_path(planned, "ingest")
    for chunk in range(planned.ablations["micro"].stages["ingest"].n_chunks):
        with recorded(ingest, f"chunk-{chunk:05d}", [place(ingest, chunk) for place in (shard_path, table_path)]):
            pass
    for name in OUTPUTS:
        assert run_stage(root / "results", planned, name) == 0
    ablation.run(root / "results", "micro")
    return planned
