"""Path patterns and lookups that every rule uses.

A rule's inputs are the last files that its verb reads. What those were made from is upstream of them and not listed
again, although verbs read of it too: shards in every rule would make a dry-run of 10,000 objects and 20 ablations take
19 seconds of CPU instead of 4.
"""

SECONDS_TO_CHECKPOINT = 120
"""How long before its time limit SLURM warns a training job, which then writes a checkpoint."""


def out(stage, name):
    """Path pattern of a stage's output."""
    return f"{RESULTS}/{stage}/{{id}}/{name}"


def needs(rule_stage, stage, name):
    """Input function: a file of an upstream stage; `{chunk}` in its name expands to all chunks of that stage."""

    def files(wildcards):
        stage_id = plan.stage(rule_stage, wildcards.id).upstream[stage]
        folder = f"{RESULTS}/{stage}/{stage_id}"
        if "{chunk}" not in name:
            return f"{folder}/{name}"
        return [
            f"{folder}/{name.replace('{chunk}', c)}"
            for c in plan.chunks(stage, stage_id)
        ]

    return files


def same_chunk(rule_stage, stage, name):
    """Input function: the upstream file of the chunk that the job works on."""

    def file(wildcards):
        stage_id = plan.stage(rule_stage, wildcards.id).upstream[stage]
        return (
            f"{RESULTS}/{stage}/{stage_id}/{name.replace('{chunk}', wildcards.chunk)}"
        )

    return file


def measured(*more):
    """Input function: all ablations' numbers, and `more` of what their metrics stages write."""
    return lambda wildcards: list(
        dict.fromkeys(
            file for name in plan.ablations for file in plan.metrics_files(name, *more)
        )
    )


def planned_ablations(wildcards):
    """Plain text that Snakemake tracks: what `plan.json` and `config.json` of the ablations hold."""
    return " ".join(plan.ablation_identity(name) for name in plan.ablations)


def identity(stage):
    """Plain text that Snakemake tracks: a changed slice or stage version reruns the stage."""
    return (
        lambda wildcards: f"{wildcards.id} v{plan.stage(stage, wildcards.id).version}"
    )


def asks(stage):
    """What a job of the stage asks of the machine, from the configuration's `resources`; else from the environment."""

    def known(value):
        return lambda wildcards: value(plan.stage(stage, wildcards.id).resources)

    def site(name):
        return known(
            lambda asked: getattr(asked, name)
            or os.environ.get(f"Z1G_SLURM_{name.upper()}", "")
        )

    everywhere = dict(
        gpu=known(lambda asked: asked.gpus * nodes(asked)),
        mem_mb=known(lambda asked: asked.memory_mb),
        runtime=known(lambda asked: asked.minutes),
        slurm_partition=site("partition"),
        slurm_account=site("account"),
    )
    if stage not in TRAINED:
        return dict(everywhere, nodes=1)

    def on_several(value):
        return known(lambda asked: value(asked) if nodes(asked) > 1 else None)

    return dict(
        everywhere,
        nodes=known(nodes),
        slurm_extra=known(slurm_extra),
        # One task on each node, started by z1g's own srun.
        mpi=on_several(lambda asked: "srun"),
        tasks=on_several(nodes),
        tasks_per_gpu=on_several(lambda asked: 0),
    )


def nodes(asked):
    """SLURM nodes of a job; only training can use several."""
    return getattr(asked, "nodes", 1)


def slurm_extra(asked):
    """Options of sbatch that Snakemake has no resource for."""
    options = [f"--signal=TERM@{min(SECONDS_TO_CHECKPOINT, asked.minutes * 15)}"]
    if nodes(asked) > 1 and asked.gpus:
        options.append(f"--gpus-per-node={asked.gpus}")
    return " ".join(options)


def threads(stage):
    """CPU cores of a job."""
    return lambda wildcards: plan.stage(stage, wildcards.id).resources.threads


def run(verb, *options):
    """The one shell line of a stage's rule: its log is shown and kept.

    A SIGTERM that a whole job receives is for the verb, which checkpoints; the shell and its log outlive it.
    """
    words = [
        Z1G,
        verb,
        f"{RESULTS}/{verb}/{{wildcards.id}}",
        *options,
        "--threads {threads}",
        "--gpus {resources.gpu}",
        "--nodes {resources.nodes}",
        "--outputs {output}",
    ]
    return f"trap : TERM; {' '.join(words)} 2>&1 | (trap '' TERM; exec tee {{log}})"
