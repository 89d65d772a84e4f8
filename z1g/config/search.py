"""Options of `z1g search`: what is searched, for which metric, by which sampler, and for how long."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from z1g.config.entries import read_header
from z1g.config.run_names import FILE_NAME
from z1g.config.sweep import Distribution, Path
from z1g.config.yaml_file import read_yaml
from z1g.core.errors import UserError
from z1g.core.slots import MAX_SEED, Section

KEY = "search"
MAX_TRIALS = 10_000


class Goal(Section):
    """The measured value that a search improves: a mean over objects, and over the replicates of a point."""

    metric: str = Field("psnr", min_length=1, description="a metric of the stage `metrics`")
    source: str = Field("sampled", min_length=1, description="splats that are measured: sampled, autodecoder, …")
    split: Literal["test", "train"] = Field("test", description="objects that are measured")
    direction: Literal["maximize", "minimize"] = Field("maximize", description="which values are better")


class Proposals(Section):
    """How points are proposed."""

    kind: Literal["tpe", "random", "gp", "cma-es"] = Field(
        "tpe",
        description="tpe: tree-structured Parzen estimator (Bergstra et al. 2011); gp: Gaussian process with expected "
        "improvement; cma-es: evolution strategy (Hansen & Ostermeier 2001), for uniform and log_uniform only; random: "
        "independent draws",
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="random seed; the same seed proposes the same points")
    startup: int = Field(10, ge=1, le=MAX_TRIALS, description="random points before tpe, gp and cma-es begin")


class Search(Section):
    """A search over key paths of an ablation."""

    space: dict[Path, Distribution] = Field(min_length=1, description="distribution of each key path")
    objective: Goal = Goal()
    sampler: Proposals = Proposals()
    trials: int = Field(24, ge=1, le=MAX_TRIALS, description="points to train, in all")
    batch: int = Field(4, ge=1, le=MAX_TRIALS, description="points that are proposed and trained together")
    gpu_hours: float | None = Field(
        None, gt=0, description="no further batch is proposed after this many GPU hours of jobs; null: no limit"
    )

    @model_validator(mode="after")
    def _sampler_knows_the_space(self) -> Self:
        other = [path for path, kind in self.space.items() if kind.uniform is None and kind.log_uniform is None]
        if self.sampler.kind == "cma-es" and other:
            raise ValueError(
                f"sampler cma-es is for continuous distributions, uniform and log_uniform; {', '.join(other)} "
                f"{'is' if len(other) == 1 else 'are'} not. Use tpe, or leave {'it' if len(other) == 1 else 'them'} out"
            )
        return self


@dataclass(frozen=True)
class SearchFile:
    """A file of `z1g search`: an ablation file with `search` in place of `sweep`. `values` has all but `search`."""

    name: str
    search: Search
    values: dict[str, Any]


def read_search(path: pathlib.Path) -> SearchFile:
    """Read a search. Raises UserError with file, line, key path and expectation."""
    file = read_yaml(path)
    if not FILE_NAME.fullmatch(path.stem):
        raise UserError(f'{path}: the name "{path.stem}" must be a word of letters, digits, "_", "-" and "."')
    if not isinstance(file.values.get(KEY), dict):
        raise UserError(f"{path}: search: expected a mapping with `space`; see docs/pruning_and_search.md")
    for key in ("sweep", "prune", "folds"):
        if file.values.get(key) is not None:
            raise UserError(f"{file.where((key,))}: {key}: a search proposes its own points; leave it out")
    search = read_header(file, SearchHeader, {KEY: file.values[KEY]}).search
    return SearchFile(path.stem, search, {key: value for key, value in file.values.items() if key != KEY})


class SearchHeader(Section):
    """What a file of `z1g search` says besides an ablation."""

    search: Search
