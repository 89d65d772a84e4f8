"""Commands of the original as ablations over `configs/original.yaml`."""

from __future__ import annotations

import ast
import math
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from z1g.config.original_flags import FLAGS, Acts, Flag
from z1g.config.original_overlay import overlay
from z1g.config.resolve import resolve
from z1g.config.scalars import Dumper
from z1g.config.yaml_file import KeyPath, YamlFile, read_yaml
from z1g.core.errors import UserError
from z1g.core.names import counted, did_you_mean
from z1g.core.slots import Section

BASE = "original"
SCRIPTS: dict[str, Acts] = {
    "main_zero123plus_v4_batch_code.py": "autodecoder",
    "main_zero123plus_v4_batch_code_unet.py": "unet",
    "main_zero123plus_v4_batch_code_inference.py": "infer",
}
PRESETS: dict[str, dict[str, Any]] = {"big": {"splat_size": 128, "output_size": 512}, "small": {}, "lrm": {}}
"""What presets set of the options that mean something here."""
LAUNCHER = {
    "config_file": "processes are `resources.<stage>.gpus`",
    "num_processes": "processes are `resources.<stage>.gpus`",
    "num_machines": "machines are `resources.<stage>.nodes`",
    "main_process_port": "ports are chosen by the job",
    "main_process_ip": "SLURM's jobs know their machines",
    "machine_rank": "SLURM's jobs know their machines",
    "mixed_precision": "the program's own flag counts",
    "multi_gpu": "a job with several GPUs uses all of them",
    "gpu_ids": "a job uses the GPUs that it is given",
}
"""Arguments of `accelerate launch`, and what they are in z1g."""
NO_VALUE = ("multi_gpu",)


@dataclass
class Command:
    """A command of the original. given: values of its flags. gpus: processes. objects: of the data set."""

    stage: Acts
    script: str
    preset: str
    given: dict[str, Any]
    gpus: int = 1
    launcher: list[str] = field(default_factory=list)

    @property
    def values(self) -> dict[str, Any]:
        """All options: defaults, the preset, and what is given."""
        defaults = {flag.name: _default(flag) for flag in FLAGS.values()}
        return {**defaults, **PRESETS[self.preset], **self.given}


def translated(text: str, objects: int, configs: Path) -> str:
    """The ablation, as YAML with comments, that means the same as a command of the original.

    objects: size of the data set, by which epochs become steps. Raises UserError for commands that the original does
    not have.
    """
    command = parse(text)
    base = read_yaml(configs / f"{BASE}.yaml")
    wanted = overlay(command.stage, command.values, set(command.given), command.gpus, objects)
    # Its only line, so that mistakes are the command's and not those of the base.
    file = YamlFile(Path("--from-command"), wanted, dict.fromkeys(_key_paths(wanted), 1))
    before, after = resolve([base]), resolve([base, file])
    notes = [f"The original's `{command.script}` with {counted(objects, 'object')}, over scale `{BASE}`."]
    notes += [f"--{name}: {why}" for name, why in _without_meaning(command)]
    described = f"The original's {command.script}: {command.given.get('desc') or command.stage}."
    values = {"description": described, "base": BASE, **_differences(wanted, before, after)}
    return "".join(f"# {note}\n" for note in notes) + "".join(_yaml(key, value) for key, value in values.items())


def _yaml(key: str, value: Any) -> str:
    """A section, with its innermost mappings on one line each."""
    flow = None if isinstance(value, dict) else False
    text: str = yaml.dump({key: value}, Dumper=Dumper, sort_keys=False, width=1000, default_flow_style=flow)
    return text


def parse(text: str) -> Command:
    """A command as a shell would read it. Raises UserError naming unknown programs, flags and values."""
    try:
        words = shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise UserError(f"--from-command: not a command: {error}") from error
    script = next((i for i, word in enumerate(words) if word.endswith(".py")), None)
    if script is None or Path(words[script]).name not in SCRIPTS:
        wrong = "it names no program" if script is None else f"`{words[script]}` is not one"
        raise UserError(f"--from-command: {wrong} of the original's: {', '.join(SCRIPTS)}")
    preset, rest = (words[script + 1 : script + 2] or [""])[0], words[script + 2 :]
    if preset not in PRESETS:
        raise UserError(
            f"--from-command: after the program comes a preset, got `{preset}`{did_you_mean(preset, PRESETS)}"
        )
    name = Path(words[script]).name
    command = Command(SCRIPTS[name], name, preset, _flags(rest))
    command.gpus, command.launcher = _launched(words[:script])
    return command


def _launched(words: Sequence[str]) -> tuple[int, list[str]]:
    """Number of processes, and names of the arguments of `accelerate launch`."""
    gpus, names, i = 1, list[str](), 0
    while i < len(words):
        word, i = words[i], i + 1
        if not word.startswith("--"):
            continue
        name, _, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name not in LAUNCHER:
            raise UserError(f"--from-command: accelerate's argument --{name} is unknown{did_you_mean(name, LAUNCHER)}")
        if not value and name not in NO_VALUE:
            value, i = (words[i] if i < len(words) else ""), i + 1
        names.append(name)
        # acc_configs/gpu4.yaml
        of_file = re.search(r"gpus?_?(\d{1,4})\.ya?ml$", value) if name == "config_file" else None
        count = of_file.group(1) if of_file else value if name == "num_processes" else None
        if name == "num_processes" and not value.isdecimal():
            raise UserError(f"--from-command: --num_processes is a number, got `{value}`")
        gpus = max(int(count), 1) if count is not None else gpus
    return gpus, names


def _flags(words: Sequence[str]) -> dict[str, Any]:
    """Values by flag. Flags may be written with hyphens, and switches with `--no-`."""
    given, i = dict[str, Any](), 0
    while i < len(words):
        word = words[i]
        if not word.startswith("--"):
            raise UserError(f"--from-command: `{word}` belongs to no flag")
        name, equals, inline = word[2:].partition("=")
        entry, _, key = name.replace("-", "_").partition(".")
        negated = entry.startswith("no_") and FLAGS.get(entry[3:], Flag("", "str", "", "", "")).kind == "bool"
        flag = FLAGS.get(entry[3:] if negated else entry)
        if flag is None:
            raise UserError(f"--from-command: the original has no flag --{name}{did_you_mean(entry, FLAGS)}")
        end = next((j for j in range(i + 1, len(words)) if words[j].startswith("--")), len(words))
        values = [inline] if equals else list(words[i + 1 : end])
        i = i + 1 if equals else end
        if flag.kind == "dict":
            pairs = {key: values[0]} if key and values else dict(zip(values[::2], values[1::2], strict=False))
            given.setdefault(flag.name, {}).update({item: _number(flag, value) for item, value in pairs.items()})
        else:
            given[flag.name] = False if negated else _value(flag, values)
    return given


def _value(flag: Flag, values: list[str]) -> Any:
    if flag.kind == "words":
        return tuple(values)
    if flag.kind == "bool":
        if values and values not in (["True"], ["False"]):
            raise UserError(f"--from-command: --{flag.name} is a switch, got `{' '.join(values)}`")
        return values != ["False"]
    if len(values) != 1:
        raise UserError(f"--from-command: --{flag.name} takes one value, got {len(values)}: {' '.join(values)[:80]}")
    if flag.kind == "str":
        return os.path.expandvars(values[0])
    return _number(flag, values[0])


def _number(flag: Flag, text: str) -> Any:
    """A number; the values of a dict may be words, too."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and (flag.kind != "int" or value == int(value)):
        return int(value) if flag.kind == "int" else value
    if flag.kind == "dict":
        return text
    what = "a whole number" if flag.kind == "int" else "a number"
    raise UserError(f"--from-command: --{flag.name} is {what}, got `{text}`")


def _default(flag: Flag) -> Any:
    return {} if flag.kind == "dict" else ast.literal_eval(flag.default)


def _without_meaning(command: Command) -> Iterable[tuple[str, str]]:
    """Given flags that change nothing, and why."""
    for name in command.launcher:
        counts = name in ("config_file", "num_processes")
        if counts and command.stage == "unet" and command.gpus > 1:
            yield name, f"{command.gpus} processes train apart and the first is saved: one GPU, fewer objects a pass"
        elif not (counts and command.stage == "autodecoder"):
            yield name, LAUNCHER[name]
    for name, value in command.given.items():
        flag = FLAGS[name]
        if not flag.keys:
            yield name, flag.note
        elif command.stage not in flag.acts:
            stages = " and ".join(flag.acts) or "fit"
            yield name, f"`{flag.keys}` acts in stage {stages} only"
        elif name == "lambda_alpha" and command.values["lambda_rendering"] != 0:
            yield name, "without effect beside lambda_rendering, which weights color and alpha"
        elif name.startswith("data_path_") and "$" in str(value):
            yield name, f"`{flag.keys}` {flag.note}; {value} is not set here"


def _differences(wanted: Mapping[str, Any], before: Any, after: Any) -> dict[str, Any]:
    """Entries of an overlay that change something: `before` and `after` are sections, or mappings of sections."""
    out: dict[str, Any] = {}
    for key, value in wanted.items():
        old, new = (at.get(key) if isinstance(at, dict) else getattr(at, key, None) for at in (before, after))
        if not isinstance(value, dict):
            plain = _plain(after, key)
            if plain != _plain(before, key):
                out[key] = plain
        elif isinstance(new, Section) and type(new) is not type(old):
            fresh = type(new)()
            out[key] = {"kind": value["kind"], **_differences(_but_kind(value), fresh, new)}
        elif inner := _differences(_but_kind(value), old, new):
            out[key] = inner
    return out


def _key_paths(values: Mapping[str, Any], above: KeyPath = ()) -> Iterable[KeyPath]:
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _key_paths(value, (*above, key))


def _plain(owner: Any, key: str) -> Any:
    return owner.model_dump(mode="json").get(key)


def _but_kind(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "kind"}
