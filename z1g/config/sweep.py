"""Sweeps: the points that `sweep:` of an ablation file describes, each a set of values by key path."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from z1g.config.yaml_file import YamlFile
from z1g.core.errors import UserError
from z1g.core.slots import MAX_SEED, Section
from z1g.data.manifest import unit_hash

MAX_POINTS = 10_000
DRAWS_PER_POINT = 100
"""Draws after which a random sweep gives up to find a further point that it does not have yet."""
DIGITS = 3


def _key_path(text: str) -> str:
    """A key path with dots. Raises ValueError."""
    if not all(text.split(".")):
        raise ValueError(f'expected a key path such as unet.train.steps, got "{text}"')
    return text


Path = Annotated[str, AfterValidator(_key_path)]
Values = Annotated[tuple[Any, ...], Field(min_length=1)]
Limits = tuple[float, float]


class Distribution(Section):
    """How one value of a random point is drawn: exactly one of the kinds."""

    uniform: Limits | None = Field(None, description="uniform between two numbers")
    log_uniform: Limits | None = Field(None, description="uniform in the logarithm between two positive numbers")
    integers: tuple[int, int] | None = Field(None, description="whole numbers from the first to the second")
    choice: Values | None = Field(None, description="one of the listed values")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = type(self).model_fields
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of {', '.join(kinds)}, got {' and '.join(given) or 'none'}")
        limits = self.uniform or self.log_uniform or self.integers
        if limits and not limits[0] < limits[1]:
            raise ValueError(f"{given[0]}: expected a smaller and a larger number, got {json.dumps(limits)}")
        if self.log_uniform and self.log_uniform[0] <= 0:
            raise ValueError(f"log_uniform: expected positive numbers, got {json.dumps(limits)}")
        if limits and not self._width(*limits) < math.inf:
            raise ValueError(f"{given[0]}: the limits are too far apart, got {json.dumps(limits)}")
        return self

    def _width(self, low: float, high: float) -> float:
        """What a draw is a share of: a difference, or a ratio."""
        return high / low if self.log_uniform else high - low

    def at(self, u: float) -> Any:
        """The value at the fraction `u` in [0,1) of the distribution, with few digits, so that its name is exact."""
        if self.choice is not None:
            return self.choice[int(u * len(self.choice))]
        if self.integers is not None:
            low, high = self.integers
            return low + int(u * (high - low + 1))
        if self.log_uniform is not None:
            lower, upper = self.log_uniform
            drawn = float(f"{lower * (upper / lower) ** u:.{DIGITS}g}")
        else:
            lower, upper = self.uniform or (0.0, 1.0)
            drawn = round(lower + u * (upper - lower), DIGITS - math.floor(math.log10(upper - lower)))
        return min(max(drawn, lower), upper)

    def ends(self) -> Values:
        """All choices, or both limits: values between limits are valid if these are."""
        return self.choice or self.uniform or self.log_uniform or self.integers or ()


class RandomPoints(Section):
    """Random points. The first n points do not depend on the number that is asked for."""

    n: int = Field(ge=1, le=MAX_POINTS, description="number of different points")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="random seed of the draws")
    distributions: dict[Path, Distribution] = Field(min_length=1, description="distribution of each key path")


class Sweep(Section):
    """Points by key path, such as `unet.train.optimizer.lr`.

    Several ways together are combined: each point of one with each point of the others.
    """

    grid: dict[Path, Values] = Field({}, description="every combination of the values of each key path")
    zip: dict[Path, Values] = Field({}, description="the first values together, then the second, and so on")
    list: tuple[dict[Path, Any], ...] = Field((), description="points that are written out")
    random: RandomPoints | None = Field(None, description="points that are drawn")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not (self.grid or self.zip or self.list or self.random):
            raise ValueError(f"expected at least one of {', '.join(type(self).model_fields)}")
        lengths = {len(values) for values in self.zip.values()}
        if len(lengths) > 1:
            raise ValueError(f"zip: all lists need the same number of values, got {sorted(lengths)}")
        if not all(self.list):
            raise ValueError("list: a point needs at least one key path")
        ways = [set(self.grid), set(self.zip), {path for point in self.list for path in point}]
        ways.append(set(self.random.distributions) if self.random else set())
        for one, other in itertools.combinations(ways, 2):
            if both := sorted(one & other):
                raise ValueError(f"{both[0]} is varied in two ways; name it in one of them")
        return self


@dataclass(frozen=True)
class Point:
    """One point of a sweep: values by key path, and where each is in the file."""

    values: dict[str, Any]
    places: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __or__(self, other: Point) -> Point:
        return Point({**self.values, **other.values}, {**self.places, **other.places})


def points(sweep: Sweep, file: YamlFile) -> list[Point]:
    """All points of the sweep of a file, in the order of the file; the last key path of a grid varies fastest.

    Raises UserError if a value or a point appears twice, if a random sweep has too few points, or for too many points.
    """
    number = math.prod(len(values) for values in sweep.grid.values()) * _n_zipped(sweep) * max(1, len(sweep.list))
    number *= sweep.random.n if sweep.random else 1
    if number > MAX_POINTS:
        raise UserError(f"{file.where(('sweep',))}: sweep: {number} points; at most {MAX_POINTS} are supported")
    ways = [way for way in (_grid(sweep, file), _zip(sweep), _listed(sweep), _random(sweep, file)) if way]
    found: dict[str, Point] = {}
    for point in _products(ways):
        place = next(iter(point.places.values()))
        if found.setdefault(plain(point.values), point) is not point:
            raise UserError(f"{file.where(place)}: {place[1]}: a point appears twice: {plain(point.values)}")
    return list(found.values())


def plain(value: Any) -> str:
    """A text that is the same for values that mean the same: `1` and `1.0` are, `1` and `true` are not."""
    return json.dumps(_without_points(value), sort_keys=True)


def _without_points(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_points(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_points(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _grid(sweep: Sweep, file: YamlFile) -> Sequence[Point]:
    axes = []
    for path, values in sweep.grid.items():
        seen = set()
        for i, value in enumerate(values):
            if plain(value) in seen:
                raise UserError(
                    f"{file.where(('sweep', 'grid', path, str(i)))}: {path}: the value {plain(value)} appears twice"
                )
            seen.add(plain(value))
        axes.append([Point({path: value}, {path: ("sweep", "grid", path, str(i))}) for i, value in enumerate(values)])
    return _products(axes) if axes else []


def _products(axes: Sequence[Sequence[Point]]) -> list[Point]:
    combined = []
    for combination in itertools.product(*axes):
        point = Point({})
        for part in combination:
            point |= part
        combined.append(point)
    return combined


def _zip(sweep: Sweep) -> Sequence[Point]:
    return [
        Point(
            {path: values[i] for path, values in sweep.zip.items()},
            {path: ("sweep", "zip", path, str(i)) for path in sweep.zip},
        )
        for i in range(_n_zipped(sweep) if sweep.zip else 0)
    ]


def _n_zipped(sweep: Sweep) -> int:
    return min((len(values) for values in sweep.zip.values()), default=1)


def _listed(sweep: Sweep) -> Sequence[Point]:
    return [
        Point(dict(values), {path: ("sweep", "list", str(i), path) for path in values})
        for i, values in enumerate(sweep.list)
    ]


def _random(sweep: Sweep, file: YamlFile) -> Sequence[Point]:
    options = sweep.random
    if options is None:
        return []
    places: dict[str, tuple[str, ...]] = {
        path: ("sweep", "random", "distributions", path) for path in options.distributions
    }
    found: dict[str, Point] = {}
    for draw in itertools.islice(_draws(options), options.n * DRAWS_PER_POINT):
        found.setdefault(plain(draw), Point(draw, places))
        if len(found) == options.n:
            return list(found.values())
    raise UserError(
        f"{file.where(('sweep', 'random', 'n'))}: sweep.random.n: the distributions have only about {len(found)} "
        f"different points, {options.n} are asked for"
    )


def _draws(options: RandomPoints) -> Iterator[dict[str, Any]]:
    # A hash of seed, key path and index: a further key path or point leaves the values of the others as they are.
    uniform: Callable[[str, int], float] = lambda path, i: unit_hash(f"{options.seed}/{path}/{i}")  # noqa: E731
    for i in itertools.count():
        yield {path: kind.at(uniform(path, i)) for path, kind in options.distributions.items()}
