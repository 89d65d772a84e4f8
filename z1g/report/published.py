"""Figures from papers, each by its authors' own protocol: shown below the tables, never in their columns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from z1g.config.yaml_file import read_yaml
from z1g.core.errors import UserError
from z1g.core.slots import Section

FILE = Path(__file__).parents[2] / "docs" / "peers.yaml"
HEADING = "Published figures, each by its own protocol: not comparable with the table, nor with each other."
UNKNOWN = "unknown"
Fact = Annotated[str, Field(min_length=1, max_length=300)]
ReadFrom = Literal["paper", "abstract", "copy", "readme", "notes", "summary"]
"""What was read. copy: its table in somebody else's text; readme: the README of its repository; notes: this project's
notes on the paper; summary: somebody else's summary of it."""
Figures = Annotated[
    dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Annotated[float, Field(allow_inf_nan=False)]],
    Field(min_length=1),
]


class TheirProtocol(Section):
    """What a paper says about its evaluation; `unknown` where it was not read or does not say."""

    data: Fact = Field(description="data set and number of objects")
    views: Fact = UNKNOWN
    cameras: Fact = UNKNOWN
    resolution: Fact = UNKNOWN
    background: Fact = UNKNOWN
    normalization: Fact = UNKNOWN
    metrics: Fact = UNKNOWN
    measured_by: Fact = Field(description="the authors of the system, or those of another paper")

    def text(self) -> str:
        """What is known, and that the rest is unknown."""
        known = {name: value for name, value in self.model_dump().items() if value != UNKNOWN}
        data, by = known.pop("data"), known.pop("measured_by")
        rest = [f"{name}: {value}" for name, value in known.items()]
        unknown = [name for name, value in self.model_dump().items() if value == UNKNOWN]
        return "; ".join([data, f"measured by {by}", *rest, *([f"unknown: {', '.join(unknown)}"] if unknown else [])])


class Published(Section):
    """Figures of systems from one source by one protocol."""

    systems: dict[Fact, Figures] = Field(min_length=1)
    protocol: TheirProtocol
    hardware: Fact = UNKNOWN
    source: Fact = Field(description="paper with its identifier, and where in it")
    read_from: ReadFrom

    @model_validator(mode="after")
    def _has_an_identifier(self) -> Published:
        if not any(mark in self.source for mark in ("arXiv:", "doi:", "https://")):
            raise ValueError(f"source {self.source[:60]!r} has no arXiv:, doi: or https://")
        return self

    def names(self) -> list[str]:
        """Names of all figures."""
        return list(dict.fromkeys(name for figures in self.systems.values() for name in figures))

    def rows(self) -> list[tuple[str, list[str]]]:
        """Each system with its figures as texts, in the order of `names`."""
        return [
            (system, [f"{figures[name]:g}" if name in figures else "–" for name in self.names()])
            for system, figures in self.systems.items()
        ]

    def about(self) -> str:
        """Source, protocol and hardware."""
        return f"{self.source_text()}: {self.protocol.text()}; hardware: {self.hardware}"

    def source_text(self) -> str:
        """The source, and what of it was read if that was not the paper."""
        how = {
            "abstract": "abstract", "copy": "by a copy of the table", "readme": "README",
            "notes": "by this project's notes", "summary": "by a summary of others",
        }  # fmt: skip
        return self.source + (f" ({how[self.read_from]})" if self.read_from in how else "")


def read_published(path: Path = FILE) -> list[Published]:
    """The figures of a file, none if it does not exist. Raises UserError that names each mistake."""
    if not path.is_file():
        return []
    entries = read_yaml(path).values.get("published")
    if not isinstance(entries, list):
        raise UserError(f"{path}: expected a list under `published`")
    found, problems = [], []
    for i, entry in enumerate(entries):
        try:
            found.append(Published.model_validate(entry))
        except ValidationError as error:
            problems += [f"{path}: published[{i}].{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    if problems:
        raise UserError("\n".join(problems))
    return found
