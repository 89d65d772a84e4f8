"""Plain scalars are those of YAML 1.2: nothing turns into a number that does not look like one."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from z1g.config.documents import resolved
from z1g.config.resolve import resolve
from z1g.config.yaml_file import YamlFile, read_yaml
from z1g.core.errors import UserError


def value(folder: Path, text: str) -> Any:
    """What `text` means as the value of a key."""
    path = folder / "idea.yaml"
    path.write_text(f"key: {text}\n", encoding="utf-8")
    return read_yaml(path).values["key"]


# YAML 1.2.2, 10.3.2: the tag resolution of the core schema.
@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("1:30", "1:30"), ("190:20:30.15", "190:20:30.15"), ("1_000", "1_000"), ("0b11", "0b11"), ("=", "="),
        ("yes", "yes"), ("No", "No"), ("on", "on"), ("OFF", "OFF"), ("y", "y"),
        ("2001-12-14", "2001-12-14"), ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
        ("0", 0), ("-0", 0), ("12", 12), ("+12", 12), ("-12", -12), ("0o10", 8), ("0x1f", 31), ("0x1F", 31),
        ("-0x1f", "-0x1f"), ("0o8", "0o8"),
        ("1e3", 1000.0), ("1e-3", 0.001), ("1.", 1.0), (".5", 0.5), ("-1.5E+2", -150.0), ("0.50", 0.5), ("+.5", 0.5),
        (".inf", math.inf), ("-.Inf", -math.inf), ("+.INF", math.inf), ("inf", "inf"), ("1e", "1e"), (".", "."),
        ("true", True), ("True", True), ("FALSE", False), ("tRUE", "tRUE"),
        ("null", None), ("Null", None), ("~", None), ("", None), ("nULL", "nULL"),
        ('"12"', "12"), ("'true'", "true"), ("!!str 12", "12"), ("!!int 12", 12), ("!!float 1", 1.0),
    ],
)  # fmt: skip
def test_plain_scalars_are_those_of_yaml_1_2(tmp_path: Path, text: str, meaning: Any) -> None:
    read = value(tmp_path, text)
    assert read == meaning
    assert type(read) is type(meaning)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_not_a_number_is_read(tmp_path: Path, text: str) -> None:
    assert math.isnan(value(tmp_path, text))


@pytest.mark.parametrize("text", ["010", "-010", "+007", "00"])
def test_whole_numbers_with_leading_zeros_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"idea\.yaml:1: .*leading zero.*quotes"):
        value(tmp_path, text)


@pytest.mark.parametrize("text", ["!!int 1:30", "!!int 0b1", "!!int 1_0", "!!float 1:30", "!!bool yes", "!!null 0"])
def test_tags_take_no_more_than_plain_scalars(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"idea\.yaml:1: cannot be read as (int|float|bool|null): "):
        value(tmp_path, text)


@pytest.mark.parametrize("text", ["9" * 30, "9" * 5000, f"0x{'f' * 6000}", f"0o{'7' * 6000}", f"!!int {'9' * 5000}"])
def test_numbers_of_many_digits_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"idea\.yaml:1: the number is too large"):
        value(tmp_path, text)


def test_a_time_is_no_number_of_minutes(tmp_path: Path) -> None:
    (tmp_path / "idea.yaml").write_text("resources:\n  unet: {minutes: 1:30}\n")
    with pytest.raises(UserError, match=r'idea\.yaml:2: resources\.unet\.minutes: expected an integer, got "1:30"$'):
        resolve([read_yaml(tmp_path / "idea.yaml")])


@pytest.mark.parametrize("name", ["1e3", "0o17", "1:30", "yes", "2001-12-14", "010", "1_000", "null", "0x1f"])
def test_what_is_printed_reads_as_the_same(tmp_path: Path, name: str) -> None:
    experiment = resolve([YamlFile(Path("idea"), {"resources": {"unet": {"partition": name, "account": name}}})])
    (tmp_path / "printed.yaml").write_text(resolved(experiment), encoding="utf-8")
    assert resolve([read_yaml(tmp_path / "printed.yaml")]) == experiment
    assert yaml.safe_load(resolved(experiment))["resources"]["unet"]["partition"] == name


@pytest.mark.parametrize("key", ["partition", "account", "qos"])
@pytest.mark.parametrize("name", ['"gpu\\n"', '"gpu\\n#SBATCH --wrap=ls"', '"a b"', "a;b", '"-x"', '""', "'$(ls)'"])
def test_names_for_slurm_are_words(tmp_path: Path, key: str, name: str) -> None:
    (tmp_path / "idea.yaml").write_text(f"resources:\n  fit: {{{key}: {name}}}\n")
    with pytest.raises(UserError, match=rf"idea\.yaml:2: resources\.fit\.{key}: expected .*letters.*got") as caught:
        resolve([read_yaml(tmp_path / "idea.yaml")])
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["gpu", "gpu,cpu", "a100-80_gb.long", "proj@site", "group+x", "a/b"])
def test_usual_names_for_slurm_are_taken(name: str) -> None:
    experiment = resolve([YamlFile(Path("idea"), {"resources": {"fit": {"partition": name, "account": name}}})])
    assert experiment.resources.fit.partition == name
