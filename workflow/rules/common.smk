"""Path patterns and lookups that every rule uses.

A rule lists only the most downstream files that its command reads. Commands also read files upstream of these, which are
not listed: with shards in every rule, a dry run of 10,000 objects and 20 ablations would take 19 seconds of CPU time
instead of 4.
"""

SECONDS_TO_CHECKPOINT = 120
"""Seconds before the time limit at which SLURM signals a training job, which then writes a checkpoint."""


def out(stage, name):
    """Return the path pattern of a stage's output."""
    return f"{RESULTS}/{stage}/{{id}}/{name}"


def needs(rule_stage, stage, name):
    """Input function: a file of an upstream stage. `{chunk}` in `name` expands to all chunks of that stage."""

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
    """Input function: an upstream file of the same chunk."""

    def file(wildcards):
        stage_id = plan.stage(rule_stage, wildcards.id).upstream[stage]
        return (
            f"{RESULTS}/{stage}/{stage_id}/{name.replace('{chunk}', wildcards.chunk)}"
        )

    return file


def trained(files):
    """Input functions: `files` of every ablation that is trained to its end.

    Those of a pruned study follow its last decision. A function for each study lets all of them run at once.
    """

    def study_files(study):
        def decided(wildcards):
            rung = plan.pruning.last_rung(study)
            decision = checkpoints.prune.get(study=study, rung=rung).output[0]
            names = plan.pruning.survivors(study)
            return [decision, *distinct(files, names)]

        return decided

    return [
        lambda wildcards: distinct(files, plan.pruning.unpruned),
        *(study_files(study) for study in plan.pruning.cohorts),
    ]


def distinct(files, names):
    """Files of ablations, which may share some of them."""
    return list(dict.fromkeys(file for name in names for file in files(name)))


def measured(*more):
    """Input functions: metrics of trained ablations, and further outputs `more` of their metrics stages."""
    return trained(lambda name: plan.metrics_files(name, *more))


def peer_files(wildcards):
    """Input function: measurements of the other systems that the sets name."""
    return [f"{RESULTS}/peers/{name}/peer.json" for name in plan.peers]


def peer_stage(wildcards):
    """The metrics stage whose resources a measurement of another system has."""
    return plan.stage("metrics", plan.peers[wildcards.peer].metrics)


def rung_values(wildcards):
    """Input function: what is measured at a rung of a study, of all arms that the rung before has kept."""
    before = plan.pruning.rung_before(wildcards.study, wildcards.rung)
    if before is not None:
        checkpoints.prune.get(study=wildcards.study, rung=before)
    return plan.pruning.rung_files(wildcards.study, wildcards.rung)


def planned_ablations(wildcards):
    """Parameter that Snakemake tracks: the content of `plan.json` and `config.json` of all ablations.

    And which runs the budget left out, which tables and report say.
    """
    if budget is None or not budget.left_out:
        return plan.identity
    return (
        f"{plan.identity}, {budget.gpu_hours:g} h without {' '.join(budget.left_out)}"
    )


def identity(stage):
    """Parameter that Snakemake tracks: a change of the slice or of the stage version reruns the stage."""
    return (
        lambda wildcards: f"{wildcards.id} v{plan.stage(stage, wildcards.id).version}"
    )


def priority(stage, more=0):
    """Priority of a stage's jobs: that of the most urgent run that needs them, and `more`."""
    return lambda wildcards: plan.priority(stage, wildcards.id) + more


def stage_resources(stage):
    """Resources of a stage's jobs, from `resources` in the configuration or from environment variables."""

    def option(value):
        return lambda wildcards: value(plan.stage(stage, wildcards.id).resources)

    def site(name):
        return option(
            lambda requested: getattr(requested, name)
            or os.environ.get(f"Z1G_SLURM_{name.upper()}", "")
        )

    everywhere = dict(
        gpu=option(lambda requested: requested.gpus * nodes(requested)),
        mem_mb=option(lambda requested: requested.memory_mb),
        runtime=option(lambda requested: requested.minutes),
        slurm_partition=site("partition"),
        slurm_account=site("account"),
        # An empty one would be passed on to sbatch.
        qos=option(
            lambda requested: requested.qos or os.environ.get("Z1G_SLURM_QOS") or None
        ),
    )
    if stage not in TRAINED:
        return dict(everywhere, nodes=1)

    def on_several(value):
        return option(
            lambda requested: value(requested) if nodes(requested) > 1 else None
        )

    return dict(
        everywhere,
        nodes=option(nodes),
        slurm_extra=option(slurm_extra),
        gpu_memory_gb=option(lambda requested: requested.gpu_memory_gb or 0),
        # One task per node, started by z1g with srun.
        mpi=on_several(lambda requested: "srun"),
        tasks=on_several(nodes),
        tasks_per_gpu=on_several(lambda requested: 0),
    )


def nodes(requested):
    """Number of SLURM nodes of a job. Only training can use several."""
    return getattr(requested, "nodes", 1)


def slurm_extra(requested):
    """Options of sbatch for which Snakemake has no resource."""
    options = [f"--signal=TERM@{min(SECONDS_TO_CHECKPOINT, requested.minutes * 15)}"]
    if nodes(requested) > 1 and requested.gpus:
        options.append(f"--gpus-per-node={requested.gpus}")
    return " ".join(options)


def threads(stage):
    """Number of CPU cores of a job, fewer where jobs share GPUs."""

    def part(wildcards):
        asked = plan.stage(stage, wildcards.id).resources
        cores = workflow.resource_settings.cores  # None where a cluster runs jobs
        return part_of_cores(asked.threads, asked.gpus, cores, SHARED_LEASES)

    return part


def run(verb, *options):
    """Return the shell command of a stage's rule. Its output is shown and logged.

    On SIGTERM, the command writes a checkpoint, while the shell and the logging process ignore the signal.
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
    if verb in TRAINED:
        words.append("--gpu-memory-gb {resources.gpu_memory_gb}")
    return f"trap : TERM; {' '.join(words)} 2>&1 | (trap '' TERM; exec tee {{log}})"
