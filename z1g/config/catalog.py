"""The ablations of a folder, and the runs that each of them describes.

A file in the folder is an ablation, a subfolder is a set of ablations. A file describes one run, or one for each point
of its sweep, each fold and each replicate (`z1g.config.run_names` has their names).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from z1g.config.entries import SET_FILE, Entries, Entry
from z1g.config.header import option_values
from z1g.config.overlays import fold_overlay, point_overlay, seed_overlay
from z1g.config.resolve import Ablation, Resolver, Run, merge, scale_file
from z1g.config.run_names import MAX_NAME, PART, point_names, run_name
from z1g.config.sweep import Point, points
from z1g.config.yaml_file import NO_LINE, KeyPath, YamlFile
from z1g.core.errors import UserError
from z1g.core.names import did_you_mean

YAML_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class _Layers:
    """What an ablation is made of: its scale, the files and overlays over it, and the ablations that it builds on."""

    scale: str
    files: tuple[YamlFile, ...]
    chain: tuple[str, ...] = ()

    def over(self, *overlays: YamlFile) -> _Layers:
        """With further overlays."""
        return replace(self, files=(*self.files, *overlays))


class Catalog:
    """The ablations of a folder on a scale.

    scale: the base of ablations that do not name one. objects: meshes that replace the data of the base.
    """

    def __init__(self, entries: Entries, scale: str, configs: Path, objects: Sequence[str] = ()) -> None:
        self.entries, self.scale, self.configs = entries, scale, configs
        data = {"kind": "meshes", "paths": list(objects)} if objects else {}
        places: dict[KeyPath, int] = {("data", key): NO_LINE for key in data}
        self._objects = YamlFile(Path("objects of the command line"), {"data": data} if data else {}, places)
        self._resolver = Resolver()
        self._runs: dict[str, list[Ablation]] = {}
        self._open: list[str] = []

    def select(self, names: Iterable[str] | None) -> tuple[list[Ablation], list[str]]:
        """The runs of the given names that can be read, and what is wrong with the others.

        A name is that of a set, of a file, or of a run; one with fewer parts than a run's means all runs that have
        these parts, so `study@seed=1` is that replicate of every point. None: all files of the folder itself. Raises
        UserError if there are none.
        """
        folder, files = self.entries.folder, self.entries.files
        requested = [name for name, path in files.items() if path.parent == folder] if names is None else list(names)
        if not requested:
            raise UserError(f"{folder}: no ablation files (*.yaml) here" if not files else "no ablations are named")
        found: dict[str, Ablation] = {}
        problems: list[str] = []
        for word in requested:
            for stem, parts in self._stems(word):
                try:
                    found |= {run.name: run for run in self._having(word, stem, parts)}
                except UserError as error:
                    problems += str(error).splitlines()
        return list(found.values()), list(dict.fromkeys(problems))

    def ablation(self, name: str) -> Ablation:
        """The ablation of a file without its sweep, folds and replicates. Raises UserError."""
        entry, layers = self.entries.entry(name), self._layers(name)
        return self._resolved(entry, layers, Run(name, name, chain=layers.chain, **entry.remarks), name)

    def runs(self, name: str) -> list[Ablation]:
        """All runs of a file. Raises UserError naming every mistake once."""
        if name not in self._runs:
            problems: list[str] = []
            runs = list(self._expanded(self.entries.entry(name), problems))
            problems = problems or list(self._twice(self.entries.entry(name).where("sweep"), runs))
            if problems:
                raise UserError("\n".join(dict.fromkeys(problems)))
            self._runs[name] = runs
        return self._runs[name]

    def chain(self, name: str) -> list[tuple[str, Path]]:
        """Names and files from which an ablation is merged, itself first and its scale last. Raises UserError."""
        layers = self._layers(name)
        own = [(word, self.entries.files[word.partition(PART)[0]]) for word in (name, *layers.chain)]
        return [*own, (layers.scale, scale_file(layers.scale, self.configs))]

    def _stems(self, word: str) -> list[tuple[str, list[str]]]:
        stem, *parts = word.split(PART)
        return [
            (name, parts) for name in ([stem] if stem in self.entries.files else self.entries.sets.get(stem, [stem]))
        ]

    def _having(self, word: str, stem: str, parts: Sequence[str]) -> list[Ablation]:
        """The runs of a file whose names have the parts. Raises UserError if there is none."""
        runs = self.runs(stem)
        named = [run for run in runs if run.name == word]  # Also of a point `seed=1` with the replicate `seed=0`.
        chosen = named or [run for run in runs if set(parts) <= set(run.name.split(PART)[1:])]
        if not chosen:
            pieces = {piece for run in runs for piece in run.name.split(PART)[1:]}
            near = did_you_mean(
                word, [stem, *(f"{stem}{PART}{piece}" for piece in pieces), *(run.name for run in runs)]
            )
            raise UserError(f'ablation "{word}": {self.entries.files[stem]} has no such run{near}')
        return chosen

    def _layers(self, name: str) -> _Layers:
        """What an ablation, or a run of one, is made of. Raises UserError."""
        stem, *parts = name.split(PART)
        if parts:
            (run,) = [run for run in self.runs(stem) if run.name == name]
            return _Layers(run.base, run.files[2:], run.about.chain)
        entry = self.entries.entry(stem)
        base = entry.header.base
        if base is None:
            return _Layers(self.scale, (entry.file,))
        if self._is_scale(entry, base):
            return _Layers(base, (entry.file,))
        self._open.append(stem)
        try:
            self._check_base(entry, base)
            below = self._layers(base)
        finally:
            self._open.pop()
        return _Layers(below.scale, (*below.files, entry.file), (base, *below.chain))

    def _is_scale(self, entry: Entry, base: str) -> bool:
        """Whether a base is a scale; else it is an ablation. Raises UserError if it is neither or both."""
        where, files = f"{entry.where('base')}: base", self.entries.files
        if not base.isprintable():
            raise UserError(f"{where}: {base!r} is not a name")
        try:
            file = scale_file(base, self.configs)
        except UserError as error:
            if base.endswith(YAML_ENDINGS):
                raise UserError(f"{where}: {error}") from error
            if base.partition(PART)[0] in files:
                return False
            near = did_you_mean(base, [*(file.stem for file in self.configs.glob("*.yaml")), *files])
            missing = f"there is no file {self.configs / base}.yaml, and no ablation of this name{near}"
            raise UserError(f'{where}: scale "{base}": {missing}') from error
        if base in files:
            raise UserError(f'{where}: "{base}" is a scale, {file}, and an ablation, {files[base]}; rename one of them')
        return True

    def _check_base(self, entry: Entry, base: str) -> None:
        """Raise UserError if an ablation builds on itself, or on a run that there is not."""
        where, files, stem = f"{entry.where('base')}: base", self.entries.files, base.partition(PART)[0]
        if stem in self._open:
            loop = [*self._open[self._open.index(stem) :], stem]
            raise UserError(f"{where}: a loop: {' builds on '.join(str(files[name]) for name in loop)}")
        if base != stem and base not in (names := [run.name for run in self.runs(stem)]):
            raise UserError(f'{where}: {files[stem]} has no run "{base}"{did_you_mean(base, names)}')

    def _expanded(self, entry: Entry, problems: list[str]) -> Iterator[Ablation]:
        """Runs of a file; what is wrong with those that cannot be resolved is added to `problems`."""
        header, layers = entry.header, self._layers(entry.name)
        sweep: list[tuple[Point | None, str | None]] = [(None, None)]
        if header.sweep is not None:
            found = points(header.sweep, entry.file)
            sweep = list(zip(found, point_names([point.values for point in found]), strict=True))
        problems += self._alone(entry, len(sweep))
        folds = [None] if header.folds is None else range(header.folds)
        for (point, word), fold in itertools.product(sweep, folds):
            over = [] if point is None else [point_overlay(point, entry.file)]
            if header.folds is not None and fold is not None:
                over.append(fold_overlay(header.folds, fold, *entry.place("folds")))
                problems += _also_set(over[-1], (entry.file, *over[:-1]))
            values = {} if point is None else point.values
            about = Run(entry.name, run_name(entry.name, word), values, fold=fold, chain=layers.chain, **entry.remarks)
            try:
                yield from self._replicated(entry, layers.over(*over), about)
            except UserError as error:
                problems += str(error).splitlines()

    def _alone(self, entry: Entry, points: int) -> Iterator[str]:
        """Pruning without a second arm that competes, which would be without effect."""
        if entry.header.prune is None or points > 1:
            return
        where = f"{entry.where('prune')}: prune"
        if entry.said_in["prune"] is entry.file:
            yield (
                f"{where}: the points of a file's sweep compete, and this file has no two: add `sweep`, say `prune` in "
                f"a set's {SET_FILE}, whose ablations compete, or leave it out"
            )
        elif len(self.entries.sets.get(entry.set or "", ())) == 1:
            yield f"{where}: the ablations of a set compete, and this set has no two: add another one, or leave it out"

    def _twice(self, where: str, runs: Sequence[Ablation]) -> Iterator[str]:
        """Points that are written in different ways and mean the same, so that one result would count as two."""
        arms: dict[Any, str] = {}
        for run in runs:
            about = run.about
            key = about.fold, about.seed, *self._resolver.parts(run.experiment)
            if (arm := arms.setdefault(key, about.arm)) != about.arm:
                yield f"{where}: sweep: {arm} and {about.arm} have the same options; leave one of these points out"

    def _replicated(self, entry: Entry, layers: _Layers, about: Run) -> Iterator[Ablation]:
        single = self._resolved(entry, layers, about, run_name(about.arm, None, about.fold))
        if (seeds := entry.header.seeds) is None:
            yield single
            return
        trained = tuple(stage for stage in seeds.replicated if stage != "infer")
        for number in seeds.numbers:
            overlay = seed_overlay(single.experiment, seeds, number, *entry.place("seeds"))
            run = replace(about, seed=number, replicated=trained)
            name = run_name(about.arm, None, about.fold, number)
            yield self._resolved(entry, layers.over(overlay) if overlay.values else layers, run, name)

    def _resolved(self, entry: Entry, layers: _Layers, about: Run, name: str) -> Ablation:
        if len(name) > MAX_NAME:
            raise UserError(f"{entry.file.path}: the name {name} has more than {MAX_NAME} characters; rename the file")
        files = (self.entries.yaml(scale_file(layers.scale, self.configs)), self._objects, *layers.files)
        differences: dict[str, Any] = {}
        for file in layers.files:
            differences = merge(differences, option_values(file.values))
        experiment = self._resolver.experiment(files)
        return Ablation(name, entry.header.description, layers.scale, differences, experiment, files, about)


def _also_set(fold: YamlFile, files: Sequence[YamlFile]) -> Iterator[str]:
    """What a file or a point says of the split that its fold says, too, and so would be without effect."""
    for path, file in itertools.product(fold.lines, files):
        if path in file.lines:
            yield f"{file.where(path)}: {'.'.join(path)}: `folds` says it for each run; leave one of them out"


def load_ablation(path: Path, scale: str, configs: Path, objects: Sequence[str] = ()) -> Ablation:
    """Read and validate one file as an ablation, without its sweep, folds and replicates.

    Its base may be an ablation in the same folder. `objects` are meshes that replace the data of the base. Raises
    UserError with file, line, key path and expectation, also for mistakes in what only some of its runs have.
    """
    catalog = Catalog(Entries.around(path), scale, configs, objects)
    catalog.runs(path.stem)
    return catalog.ablation(path.stem)
