"""What every stage of a set is doing, from what is on disk and from SLURM's queue.

It needs neither the process of Snakemake nor a plugin for its logger: those know only what happens while they live, and
a status is asked for from another shell, on another node, and above all after a crash. They also see no step of a job.
"""

from z1g.plan.status.evidence import Evidence
from z1g.plan.status.jobs import STATES, JobStatus, State
from z1g.plan.status.nodes import StageNode, nodes_of_plan, nodes_on_disk
from z1g.plan.status.stages import StageStatus, Status, status

__all__ = [
    "STATES",
    "Evidence",
    "JobStatus",
    "StageNode",
    "StageStatus",
    "State",
    "Status",
    "nodes_of_plan",
    "nodes_on_disk",
    "status",
]
