"""The pipeline of z1g: trains and evaluates an image-to-splats model for each ablation."""

import os
import shlex
import sys
from pathlib import Path

from snakemake.utils import min_version

from z1g.core.errors import UserError
from z1g.core.stages import TRAINED
from z1g.core.urls import NO_STORAGE
from z1g.jobs.budget import forget_budget
from z1g.jobs.hooks import tell
from z1g.jobs.leases import gpus_at_once, jobs_per_gpu, leases, part_of_cores
from z1g.plan.budget import gpu_hours_of, within_budget
from z1g.plan.plan import Plan
from z1g.plan.runs import NAMES_FILE

min_version("9.20")  # priorities that are functions


report: "workflow/report/workflow.rst"


RESULTS = Path(str(config.get("results", "results")))
NAMES = RESULTS / NAMES_FILE
INTERRUPTED = "z1g: interrupted while planning; the same command starts it again\n"
Z1G = f"{shlex.quote(sys.executable)} -m z1g"

try:
    if workflow.storage_settings.default_storage_provider:
        raise UserError(NO_STORAGE)
    if "gpus" in config and workflow.is_main_process:
        workflow.register_resource("gpu", gpus_at_once(config["gpus"]))
    # Of this machine, where jobs share GPUs. A job that another machine runs has its cores already.
    SHARED_LEASES = leases() if workflow.is_main_process and jobs_per_gpu() > 1 else 0
    plan = Plan.from_options(config, RESULTS, check=workflow.is_main_process)
    budget = None
    if "budget" in config and workflow.is_main_process:
        budgeted = within_budget(plan, gpu_hours_of(config["budget"]))
        plan, budget = budgeted.plan, budgeted.budget
        sys.stderr.writelines(f"z1g: {line}\n" for line in budgeted.sentences())
except (UserError, OSError) as error:
    sys.stderr.write(f"z1g: error: {error}\n")
    sys.exit(2)
except KeyboardInterrupt:
    sys.stderr.write(INTERRUPTED)
    sys.exit(130)


wildcard_constraints:
    id="[0-9a-f]+",
    chunk=r"\d+",
    name=r"[^/]+",
    study=r"[^/]+",
    rung=r"[\d.]+",
    peer=r"[^/]+",


onstart:
    try:
        plan.write()
        if budget is None:
            forget_budget(RESULTS)
        else:
            budget.write(RESULTS)
    except OSError as error:
        sys.stderr.write(f"z1g: error: {RESULTS} cannot be written: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write(INTERRUPTED)
        sys.exit(130)


onsuccess:
    tell(config, "success", RESULTS, plan.ablations)


onerror:
    tell(config, "error", RESULTS, plan.ablations)


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
