"""The files of an ablation's folder `results/ablations/<name>` that the plan writes."""

from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.files import read_json
from z1g.core.sealed import Damaged, checksum, read_sealed

PLAN, CONFIGURATION = "plan.json", "config.json"
CONFIG = "config_checksum"
"""Key of `plan.json` with the checksum of `config.json`, which is a plain configuration."""
REMEDY = "start `snakemake` again, or `z1g plan --write`, to write it again"


def ablation_owner(name: str) -> str:
    """What the checksums of an ablation's files cover besides their content."""
    return f"ablations/{name}"


def read_plan(folder: Path) -> dict[str, Any]:
    """Content of `plan.json`. Raises UserError if it is missing or damaged, or belongs to another ablation."""
    file = folder / PLAN
    try:
        plan = read_sealed(file, ablation_owner(folder.resolve().name))
        if not isinstance(plan["stages"], dict):
            raise Damaged("its stages are no mapping")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read: {error}; {REMEDY}") from error
    plan.setdefault("name", folder.name)
    return plan


def read_config(folder: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """Content of `config.json`, {} if it does not exist. Raises UserError if it is damaged, or not that of the plan."""
    file = folder / CONFIGURATION
    if not file.is_file():
        return {}
    try:
        config: dict[str, Any] = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}; {REMEDY}") from error
    if CONFIG in plan and checksum(config) != plan[CONFIG]:
        raise UserError(f"{file} is not as it was written with {PLAN}: it is damaged, or belongs elsewhere; {REMEDY}")
    return config
