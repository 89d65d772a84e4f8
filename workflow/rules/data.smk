"""Rules that render meshes and fit splatter images, one chunk of objects per job."""


rule ingest:
    input:
        lambda wildcards: plan.sources(wildcards.id, int(wildcards.chunk)),
    output:
        shard=out("ingest", "chunk-{chunk}.tar"),
        table=out("ingest", "chunk-{chunk}.jsonl"),
        sheet=report(
            out("ingest", "chunk-{chunk}.png"),
            caption="../report/ingest.rst",
            category="Renders",
        ),
    log:
        out("ingest", "logs/chunk-{chunk}.log"),
    benchmark:
        out("ingest", "benchmark/chunk-{chunk}.tsv")
    priority: priority("ingest")
    threads: threads("ingest")
    resources:
        **stage_resources("ingest"),
    params:
        identity=identity("ingest"),
    shell:
        run("ingest", "--chunk {wildcards.chunk}")


rule fit:
    input:
        shard=same_chunk("fit", "ingest", "chunk-{chunk}.tar"),
    output:
        splats=out("fit", "chunk-{chunk}.safetensors"),
        table=out("fit", "chunk-{chunk}.jsonl"),
        sheet=report(
            out("fit", "chunk-{chunk}.png"),
            caption="../report/fit.rst",
            category="Fits",
        ),
    log:
        out("fit", "logs/chunk-{chunk}.log"),
    benchmark:
        out("fit", "benchmark/chunk-{chunk}.tsv")
    priority: priority("fit")
    threads: threads("fit")
    resources:
        **stage_resources("fit"),
    params:
        identity=identity("fit"),
    shell:
        run("fit", "--chunk {wildcards.chunk}")
