"""Rules for both training stages, and for the codes between them."""


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
    priority: priority("autodecoder")
    threads: threads("autodecoder")
    resources:
        **stage_resources("autodecoder"),
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
    priority: priority("codes")
    threads: threads("codes")
    resources:
        **stage_resources("codes"),
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
    priority: priority("unet")
    threads: threads("unet")
    resources:
        **stage_resources("unet"),
    params:
        identity=identity("unet"),
    shell:
        run("unet")


rule autodecoder_rung:
    input:
        shards=needs("autodecoder", "ingest", "chunk-{chunk}.tar"),
        splats=needs("autodecoder", "fit", "chunk-{chunk}.safetensors"),
    output:
        values=out("autodecoder", "rungs/{rung}.json"),
    log:
        out("autodecoder", "logs/rung-{rung}.log"),
    benchmark:
        out("autodecoder", "benchmark/rung-{rung}.tsv")
    # Before training to the end, where an ablation outside of the study shares it.
    priority: priority("autodecoder", 1)
    threads: threads("autodecoder")
    resources:
        **stage_resources("autodecoder"),
    params:
        identity=identity("autodecoder"),
    shell:
        run("autodecoder", "--until {wildcards.rung}")


rule unet_rung:
    input:
        model=needs("unet", "autodecoder", "model"),
        codes=needs("unet", "codes", "codes.safetensors"),
    output:
        values=out("unet", "rungs/{rung}.json"),
    log:
        out("unet", "logs/rung-{rung}.log"),
    benchmark:
        out("unet", "benchmark/rung-{rung}.tsv")
    # Before training to the end, where an ablation outside of the study shares it.
    priority: priority("unet", 1)
    threads: threads("unet")
    resources:
        **stage_resources("unet"),
    params:
        identity=identity("unet"),
    shell:
        run("unet", "--until {wildcards.rung}")


checkpoint prune:
    input:
        rung_values,
    output:
        f"{RESULTS}/studies/{{study}}/rung-{{rung}}.json",
    log:
        f"{RESULTS}/studies/{{study}}/rung-{{rung}}.log",
    localrule: True
    params:
        identity=lambda wildcards: plan.pruning.identity(wildcards.study),
    shell:
        Z1G
        + f" prune {RESULTS} {{wildcards.study:q}} {{wildcards.rung}} > {{log:q}} 2>&1"
