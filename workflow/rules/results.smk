"""Rules for samples, metrics, tables and the report."""


rule infer:
    input:
        pipeline=needs("infer", "unet", "pipeline"),
        codes=needs("infer", "codes", "codes.safetensors"),
    output:
        samples=directory(out("infer", "chunk-{chunk}")),
    log:
        out("infer", "logs/chunk-{chunk}.log"),
    benchmark:
        out("infer", "benchmark/chunk-{chunk}.tsv")
    priority: priority("infer")
    threads: threads("infer")
    resources:
        **stage_resources("infer"),
    params:
        identity=identity("infer"),
    shell:
        run("infer", "--chunk {wildcards.chunk}")


rule metrics:
    input:
        samples=needs("metrics", "infer", "chunk-{chunk}"),
        codes=needs("metrics", "codes", "codes.safetensors"),
    output:
        rows=out("metrics", "metrics.jsonl"),
        objects=out("metrics", "objects.jsonl"),
        summary=out("metrics", "metrics.json"),
        images=directory(out("metrics", "images")),
    log:
        out("metrics", "logs/metrics.log"),
    benchmark:
        out("metrics", "benchmark/metrics.tsv")
    priority: priority("metrics")
    threads: threads("metrics")
    resources:
        **stage_resources("metrics"),
    params:
        identity=identity("metrics"),
    shell:
        run("metrics")


rule ablation:
    input:
        needs_all=lambda wildcards: plan.metrics_files(wildcards.name),
    output:
        report(
            f"{RESULTS}/ablations/{{name}}/metrics.csv",
            caption="../report/metrics.rst",
            category="Ablations",
        ),
        card=f"{RESULTS}/ablations/{{name}}/MODEL_CARD.md",
        reproduce=f"{RESULTS}/ablations/{{name}}/reproduce.json",
    log:
        f"{RESULTS}/ablations/{{name}}/ablation.log",
    priority: lambda wildcards: plan.ablations[wildcards.name].ablation.about.priority
    localrule: True
    params:
        identity=lambda wildcards: plan.ablation_identity(wildcards.name),
    shell:
        Z1G + f" ablation {RESULTS} {{wildcards.name:q}} > {{log:q}} 2>&1"


rule peer:
    input:
        lambda wildcards: [
            str(
                plan.folder("ingest", plan.peers[wildcards.peer].ingest)
                / f"chunk-{c}.tar"
            )
            for c in plan.chunks("ingest", plan.peers[wildcards.peer].ingest)
        ],
    output:
        rows=f"{RESULTS}/peers/{{peer}}/metrics.jsonl",
        objects=f"{RESULTS}/peers/{{peer}}/objects.jsonl",
        record=f"{RESULTS}/peers/{{peer}}/peer.json",
        images=directory(f"{RESULTS}/peers/{{peer}}/images"),
    log:
        f"{RESULTS}/peers/{{peer}}/evaluate.log",
    threads: lambda wildcards: peer_stage(wildcards).resources.threads
    resources:
        gpu=lambda wildcards: peer_stage(wildcards).resources.gpus,
        mem_mb=lambda wildcards: peer_stage(wildcards).resources.memory_mb,
        runtime=lambda wildcards: peer_stage(wildcards).resources.minutes,
    params:
        identity=lambda wildcards: plan.peers[wildcards.peer].identity,
    shell:
        Z1G
        + f" evaluate --results {RESULTS} --planned {{wildcards.peer}} --threads {{threads}} > {{log}} 2>&1"


rule tables:
    input:
        *measured(),
        peers=peer_files,
    output:
        report(
            multiext(f"{RESULTS}/tables/ablations", ".csv", ".md", ".tex"),
            caption="../report/table.rst",
            category="Tables",
        ),
    log:
        f"{RESULTS}/tables/tables.log",
    localrule: True
    params:
        identity=planned_ablations,
    shell:
        Z1G
        + f" tables {RESULTS} --ablations @{NAMES} --out {RESULTS}/tables > {{log}} 2>&1"


rule report:
    input:
        *measured("images"),
        peers=peer_files,
    output:
        report(
            f"{RESULTS}/report.html", caption="../report/report.rst", category="Report"
        ),
    log:
        f"{RESULTS}/report.log",
    localrule: True
    params:
        identity=planned_ablations,
    shell:
        Z1G + f" report {RESULTS} --ablations @{NAMES} --out {{output}} > {{log}} 2>&1"
