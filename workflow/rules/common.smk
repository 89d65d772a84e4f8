"""Path patterns and lookups that every rule uses."""


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


def identity(stage):
    """Plain text that Snakemake tracks: a changed slice or stage version reruns the stage."""
    return (
        lambda wildcards: f"{wildcards.id} v{plan.stage(stage, wildcards.id).version}"
    )


def ask(stage, what):
    """What a job of the stage asks of the machine, from the configuration's `resources`; else from the environment."""

    def value(wildcards):
        known = getattr(plan.stage(stage, wildcards.id).resources, what)
        return (
            os.environ.get(f"Z1G_SLURM_{what.upper()}", "") if known is None else known
        )

    return value


def run(verb, *options):
    """The one shell line of a stage's rule: its log is shown and kept."""
    words = [
        Z1G,
        verb,
        f"{RESULTS}/{verb}/{{wildcards.id}}",
        *options,
        "--threads {threads}",
    ]
    return " ".join(words) + " 2>&1 | tee {log}"
