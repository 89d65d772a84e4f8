"""Systems that sets measure beside their ablations, as jobs of the DAG."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from z1g.config.peers import PeerName, PeerOptions
from z1g.config.preflight import Policy
from z1g.core.errors import UserError
from z1g.core.names import did_you_mean
from z1g.core.needs import Missing
from z1g.core.sealed import read_sealed, update_sealed
from z1g.plan.identity import digest
from z1g.plan.runs import planned_runs

log = logging.getLogger("z1g")
FOLDER, PLAN = "peers", "plan.json"


@dataclass(frozen=True)
class PlannedPeer:
    """A system, how it is read, and the ablation whose objects, views and metrics it is measured with."""

    name: str
    options: PeerOptions
    like: str
    metrics: str
    ingest: str

    def record(self) -> dict[str, Any]:
        """Content of its `plan.json`."""
        return {"name": self.name, "like": self.like, "metrics": self.metrics, "options": self.options.model_dump()}

    @property
    def identity(self) -> str:
        """Digest of its plan, and of names, sizes and times of its files: measured again where one changed."""
        folder = Path(self.options.outputs)
        files = [*(path for path in sorted(folder.rglob("*")) if path.is_file())]
        files += [Path(self.options.objects)] if self.options.objects else []
        states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.exists()]
        return digest([self.record(), states])


def planned_peers(named: Iterable[tuple[str, str, str, Mapping[str, PeerOptions]]]) -> dict[str, PlannedPeer]:
    """Systems by name. named: (ablation, metrics id, ingest id, its set's peers). Raises UserError."""
    found: dict[str, PlannedPeer] = {}
    for like, metrics, ingest, peers in named:
        for name, options in peers.items():
            one = found.setdefault(name, PlannedPeer(name, options, like, metrics, ingest))
            if one.options != options:
                raise UserError(f"peers: {name} stands for different outputs in two sets; rename one of them")
    return found


def check_peers(peers: Mapping[str, PlannedPeer], missing: Policy) -> None:
    """Raise UserError, or warn, if outputs of planned systems are not on this machine."""
    for peer in peers.values():
        try:
            peer.options.check()
        except Missing as error:
            message = f"peers.{peer.name}.{error}"
            if missing == "stop":
                raise UserError(message) from error
            log.warning("%s", message)


def write_planned(results: Path, peers: Iterable[PlannedPeer]) -> None:
    """Write the plan of each system, where it changed."""
    for peer in peers:
        update_sealed(results / FOLDER / peer.name / PLAN, peer.record(), _owner(peer.name))


def read_planned(results: Path, name: str) -> tuple[str, str, PeerOptions]:
    """Name, ablation and options of a planned system. Raises UserError if none of this name was planned."""
    file = results / FOLDER / peer_name(name) / PLAN
    try:
        record = read_sealed(file, _owner(name))
        return name, record["like"], PeerOptions.model_validate(record["options"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read: {error}; start `snakemake` again to write it again") from error


def peer_name(text: str) -> str:
    """A name that a folder can have. Raises UserError."""
    try:
        return TypeAdapter(PeerName).validate_python(text)
    except ValidationError as error:
        raise UserError(f"--name: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error


def first_planned(results: Path) -> str:
    """The planned ablation that is used if none is named. Raises UserError if nothing was planned."""
    runs = planned_runs(results)
    if not runs:
        raise UserError(f"{results} has no planned ablation, so there are no true views to measure against")
    return runs[0]


def require_planned(results: Path, name: str) -> None:
    """Raise UserError if no ablation of this name was planned."""
    if not (results / "ablations" / name / "plan.json").is_file():
        raise UserError(f"{results}: no ablation {name!r} was planned here{did_you_mean(name, planned_runs(results))}")


def _owner(name: str) -> str:
    return f"plan of {FOLDER}/{name}"
