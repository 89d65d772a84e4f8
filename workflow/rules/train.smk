"""Both training stages, and the codes between them."""


rule autodecoder:
    input:
        shards=needs("autodecoder", "ingest", "chunk-{chunk}.tar"),
        splats=needs("autodecoder", "fit", "chunk-{chunk}.safetensors"),
    output:
        model=directory(out("autodecoder", "model")),
        history=out("autodecoder", "history.jsonl"),
    log:
        out("autodecoder", "logs/autodecoder.log"),
    benchmark:
        out("autodecoder", "benchmark/autodecoder.tsv")
    threads: ask("autodecoder", "threads")
    resources:
        gpu=ask("autodecoder", "gpus"),
        mem_mb=ask("autodecoder", "memory_mb"),
        runtime=ask("autodecoder", "minutes"),
        slurm_partition=ask("autodecoder", "partition"),
        slurm_account=ask("autodecoder", "account"),
    params:
        identity=identity("autodecoder"),
    shell:
        run("autodecoder")


rule codes:
    input:
        model=needs("codes", "autodecoder", "model"),
    output:
        codes=out("codes", "codes.safetensors"),
    log:
        out("codes", "logs/codes.log"),
    benchmark:
        out("codes", "benchmark/codes.tsv")
    threads: ask("codes", "threads")
    resources:
        gpu=ask("codes", "gpus"),
        mem_mb=ask("codes", "memory_mb"),
        runtime=ask("codes", "minutes"),
        slurm_partition=ask("codes", "partition"),
        slurm_account=ask("codes", "account"),
    params:
        identity=identity("codes"),
    shell:
        run("codes")


rule unet:
    input:
        model=needs("unet", "autodecoder", "model"),
        codes=needs("unet", "codes", "codes.safetensors"),
    output:
        pipeline=directory(out("unet", "pipeline")),
        history=out("unet", "history.jsonl"),
    log:
        out("unet", "logs/unet.log"),
    benchmark:
        out("unet", "benchmark/unet.tsv")
    threads: ask("unet", "threads")
    resources:
        gpu=ask("unet", "gpus"),
        mem_mb=ask("unet", "memory_mb"),
        runtime=ask("unet", "minutes"),
        slurm_partition=ask("unet", "partition"),
        slurm_account=ask("unet", "account"),
    params:
        identity=identity("unet"),
    shell:
        run("unet")
