"""The pipeline of z1g: trains and evaluates an image-to-splats model for each ablation."""

import os
import shlex
import sys
from pathlib import Path

from snakemake.utils import min_version

from z1g.core.errors import UserError
from z1g.core.stages import TRAINED
from z1g.jobs.leases import gpus_at_once
from z1g.plan.plan import NAMES_FILE, Plan

min_version("9.20")  # priorities that are functions


report: "workflow/report/workflow.rst"


RESULTS = Path(str(config.get("results", "results")))
NAMES = RESULTS / NAMES_FILE
Z1G = f"{shlex.quote(sys.executable)} -m z1g"

try:
    if "gpus" in config and workflow.is_main_process:
        workflow.register_resource("gpu", gpus_at_once(config["gpus"]))
    plan = Plan.from_options(config, RESULTS, check=workflow.is_main_process)
except (UserError, OSError) as error:
    sys.stderr.write(f"z1g: error: {error}\n")
    sys.exit(2)


wildcard_constraints:
    id="[0-9a-f]+",
    chunk=r"\d+",
    name=r"[^/]+",
    study=r"[^/]+",
    rung=r"[\d.]+",


onstart:
    try:
        plan.write()
    except OSError as error:
        sys.exit(f"z1g: error: {RESULTS} cannot be written: {error}")


include: "workflow/rules/common.smk"


# The first rule is the default target.
rule ablation_all:
    input:
        f"{RESULTS}/report.html",
        multiext(f"{RESULTS}/tables/ablations", ".csv", ".md", ".tex"),
        *trained(
            lambda name: [
                f"{RESULTS}/ablations/{name}/MODEL_CARD.md",
                f"{RESULTS}/ablations/{name}/reproduce.json",
            ]
        ),
    localrule: True


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/results.smk"
