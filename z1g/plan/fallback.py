"""What is planned where OpenGL is not available: Blender instead of the rasterizer.

The configuration is changed before identities are computed, so that renders of one are never taken for those of the
other. The process that starts a run decides; what it decided is kept in the folder of the stage that is not run, where
jobs on other machines and other commands find it.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from z1g.config.preflight import Policy
from z1g.config.resolve import Ablation
from z1g.core.errors import UserError
from z1g.core.recorded import stage_owner
from z1g.core.sealed import read_sealed, update_sealed
from z1g.core.slots import Section
from z1g.data.shards import table_path
from z1g.meshes.executable import find_blender
from z1g.meshes.renderers import Raster
from z1g.meshes.renderers.raster import opengl_problem
from z1g.plan.identity import Stage
from z1g.sources.meshes import Meshes

FILE = "instead.json"


def available(
    planned: Iterable[tuple[Ablation, Stage]], results: Path, policy: Policy | None
) -> tuple[list[Ablation], dict[str, str]]:
    """Ablations with renderers that work here, and by id of the `ingest` stages that are not run, why.

    planned: ablations with their `ingest` stage. policy: as of `Plan.load`; "warn": jobs run elsewhere, so nothing is
    replaced; None: what the start of the run decided, if there was one.
    """
    reasons: dict[str, str | None] = {}
    replaced: dict[int, Section] = {}
    chosen = []
    for ablation, ingest in planned:
        data = ablation.experiment.data
        if isinstance(data, Meshes) and isinstance(data.renderer, Raster) and policy != "warn":
            if ingest.id not in reasons:
                reasons[ingest.id] = _reason(ingest, results / "ingest" / ingest.id, decides=policy is not None)
            if reasons[ingest.id] is not None:
                # Ablations share sections, by which the plan recognizes what it has computed before.
                own = replaced.setdefault(id(data), data.model_copy(update={"renderer": data.renderer.by_blender()}))
                ablation = replace(ablation, experiment=ablation.experiment.model_copy(update={"data": own}))
        chosen.append(ablation)
    return chosen, {ingest: reason for ingest, reason in reasons.items() if reason is not None}


def note(results: Path, ingest: str, reason: str | None) -> None:
    """Keep why an `ingest` stage is not run, or that it is (None)."""
    file = results / "ingest" / ingest / FILE
    if reason is None:
        file.unlink(missing_ok=True)
    else:
        update_sealed(file, {"renderer": "blender", "because": reason}, stage_owner(ingest))


def _reason(ingest: Stage, folder: Path, decides: bool) -> str | None:
    """Why Blender renders instead; None if the rasterizer does, or has done."""
    if not decides:
        try:
            return str(read_sealed(folder / FILE, stage_owner(ingest.id))["because"])
        except (OSError, ValueError, KeyError):
            if (folder / "stage.json").is_file():
                return None
    if all(table_path(folder, chunk).is_file() for chunk in range(ingest.n_chunks)):
        return None
    problem = opengl_problem()
    return problem if problem is not None and _has_blender() else None


def _has_blender() -> bool:
    try:
        find_blender(None)
    except UserError:
        return False  # the preflight says so
    return True
