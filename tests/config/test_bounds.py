"""Every number has bounds, and what is within them can be used."""

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import annotated_types
import pytest
import torch

from z1g.config.lookup import unwrap
from z1g.config.resolve import resolve
from z1g.config.tree import Experiment
from z1g.config.walk import places
from z1g.config.yaml_file import YamlFile, read_yaml
from z1g.core.errors import UserError
from z1g.core.seeding import seeded, torch_generator
from z1g.core.slots import MAX_SEED, Section
from z1g.geometry.views.random_sphere import RandomSphere
from z1g.training.options import TrainOptions


def numbers(section: type[Section]) -> Iterator[tuple[str, type, list[Any]]]:
    """Numbers of a section with the annotations that can bound them; those in lists as `name.entry`."""
    for name, field in section.model_fields.items():
        annotation, extra = unwrap(field.annotation)
        metadata, entries = [*field.metadata, *extra], []
        if typing.get_origin(annotation) in (tuple, list):
            entries = [item for item in typing.get_args(annotation) if item is not Ellipsis]
        for label, item in [(name, annotation), *((f"{name}.entry", entry) for entry in entries)]:
            bare, more = unwrap(item)
            if bare in (int, float):
                lengths = [item for item in metadata if isinstance(item, annotated_types.MaxLen)]
                assert label == name or len(entries) == 2 or lengths, f"a list of numbers of any length: {name}"
                yield label, bare, [*(metadata if label == name else []), *more]


def bounds(metadata: list[Any]) -> tuple[float | None, float | None]:
    low = [getattr(item, key) for item in flat(metadata) for key in ("ge", "gt") if hasattr(item, key)]
    high = [getattr(item, key) for item in flat(metadata) for key in ("le", "lt") if hasattr(item, key)]
    return max(low, default=None), min(high, default=None)


def flat(metadata: list[Any]) -> Iterator[Any]:
    """Annotations, those in a pydantic Field of a list's entries too."""
    for item in metadata:
        yield from flat(item.metadata) if hasattr(item, "metadata") else [item]


def test_every_number_has_bounds() -> None:
    counted, without = 0, []
    for _, section, _ in places():
        for name, kind, metadata in numbers(section):
            low, high = bounds(metadata)
            counted += 1
            if (section, name) == (RandomSphere, "elevation_deg.entry"):
                with pytest.raises(ValueError, match="stay within -90 and 90"):
                    RandomSphere(elevation_deg=(0, 91))
            elif low is None or high is None or (kind is int and high >= 2**40):
                without.append(f"{section.__name__}.{name}")
    assert counted > 150
    assert sorted(set(without)) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: {kind: scratch, unet_size: {layers_per_block: 4600000000000000000}}",
         "model.unet_size.layers_per_block: expected a number less than or equal to 64, got 4600000000000000000"),
        ("model: {kind: scratch, unet_size: {channels: [4600000000000000000, 64]}}",
         "model.unet_size.channels.0: expected a number less than or equal to 16384, got 4600000000000000000"),
        ("model: {kind: scratch, unet_size: {channels: [64, -64]}}",
         "model.unet_size.channels.1: expected a number greater than or equal to 1, got -64"),
        ("unet: {train: {seed: 20000000000000}}",
         "unet.train.seed: expected a number less than or equal to 4294967295, got 20000000000000"),
        ("autodecoder: {train: {optimizer: {lr: 1e300}}}",
         "autodecoder.train.optimizer.lr: expected a number less than or equal to 1000, got 1e+300"),
        ("representation: {scale: {log_max: 1000}}",
         "representation.scale.log_max: expected a number less than or equal to 50, got 1000"),
        ("camera: {condition_elevation_deg: [30, 0]}", "camera: condition_elevation_deg 30 to 0 must rise"),
        ("data: {renderer: {timeout_s: 1e300}}",
         "data.renderer.timeout_s: expected a number less than or equal to 10000000, got 1e+300"),
    ],
)  # fmt: skip
def test_a_number_out_of_bounds_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "idea.yaml").write_text(f"{text}\n")
    with pytest.raises(UserError) as caught:
        resolve([read_yaml(tmp_path / "idea.yaml")])
    assert str(caught.value) == f"{tmp_path}/idea.yaml:1: {words}"


def test_the_largest_seed_of_a_configuration_seeds_all_generators() -> None:
    largest_step = 1_000_000_000
    assert TrainOptions(steps=largest_step, seed=MAX_SEED).seed == MAX_SEED
    with pytest.raises(ValueError, match="less than or equal"):
        TrainOptions(seed=MAX_SEED + 1)
    with pytest.raises(ValueError, match="less than or equal"):
        TrainOptions(steps=largest_step + 1)
    # As in training: dropout of a step, keyed draws, draws of an object.
    with seeded(MAX_SEED * 1_000_003 + largest_step):
        torch.rand(1)
    torch_generator(MAX_SEED, MAX_SEED, largest_step)
    assert torch.tensor([[MAX_SEED, MAX_SEED, largest_step]]).dtype == torch.int64


def test_every_seed_has_the_bound_of_seeds() -> None:
    seeds = {
        (section, name): section.model_fields[name]
        for _, section, _ in places()
        for name in section.model_fields
        if name.endswith("seed")
    }
    assert len(seeds) >= 8
    for (section, name), field in seeds.items():
        assert bounds(field.metadata) == (0, MAX_SEED), f"{section.__name__}.{name}"


def test_the_defaults_are_within_the_bounds() -> None:
    values = Experiment().model_dump(mode="json")
    assert resolve([YamlFile(Path("idea"), values)]) == Experiment()
