"""Damage to single files of a finished results tree, and whether those who read the tree notice it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from safetensors.torch import load_file, save_file

from support.finished import OUTPUTS, run_stage
from support.photographs import disc, saved
from z1g.cli.main import main
from z1g.core.seeding import seeded
from z1g.plan.plan import Plan

NOTICED, HARMLESS, SILENT = "noticed", "harmless", "passed in silence"


@dataclass(frozen=True)
class Kind:
    """Files of one kind: a pattern in the results folder, and the command that reads them next.

    read: whether any command reads them; damage to others must be without consequences.
    """

    pattern: str
    next: str
    read: bool = True


KINDS = (
    Kind("runs.txt", "report"),
    Kind("ingest/*/manifest.jsonl", "fit"),
    Kind("ingest/*/chunk-00000.tar", "fit"),
    Kind("ingest/*/chunk-00000.jsonl", "fit"),
    Kind("ingest/*/stage.json", "fit"),
    Kind("ingest/*/jobs/chunk-00000.json", "fit"),
    Kind("fit/*/chunk-00000.safetensors", "autodecoder"),
    Kind("fit/*/chunk-00000.jsonl", "autodecoder"),
    Kind("fit/*/chunk-00000.png", "report"),
    Kind("fit/*/stage.json", "fit"),
    Kind("fit/*/jobs/chunk-00000.json", "autodecoder"),
    Kind("autodecoder/*/model/heads.safetensors", "codes"),
    Kind("autodecoder/*/model/vae/config.json", "codes"),
    Kind("autodecoder/*/model/vae/*.safetensors", "codes"),
    Kind("autodecoder/*/history.jsonl", "report"),
    Kind("autodecoder/*/checkpoints/step-00000006.pt", "autodecoder"),
    Kind("autodecoder/*/stage.json", "codes"),
    Kind("autodecoder/*/jobs/autodecoder.json", "codes"),
    Kind("codes/*/codes.safetensors", "unet"),
    Kind("codes/*/stage.json", "codes"),
    Kind("codes/*/jobs/codes.json", "unet"),
    Kind("unet/*/pipeline/unet/*.safetensors", "infer"),
    Kind("unet/*/pipeline/unet/config.json", "infer"),
    Kind("unet/*/pipeline/vae/*.safetensors", "infer"),
    Kind("unet/*/pipeline/vision_encoder/*.safetensors", "infer"),
    Kind("unet/*/pipeline/conditioning/*.safetensors", "infer"),
    Kind("unet/*/pipeline/heads.safetensors", "infer"),
    Kind("unet/*/pipeline/stage1.json", "infer"),
    Kind("unet/*/pipeline/model_index.json", "infer"),
    Kind("unet/*/pipeline/scheduler/scheduler_config.json", "infer"),
    Kind("unet/*/history.jsonl", "report"),
    Kind("unet/*/checkpoints/step-00000006.pt", "unet"),
    Kind("unet/*/conditions/shard-00000.safetensors", "unet"),
    Kind("unet/*/conditions/key.json", "unet"),
    Kind("unet/*/stage.json", "infer"),
    Kind("unet/*/jobs/unet.json", "infer"),
    Kind("infer/*/chunk-00000/splats.safetensors", "metrics"),
    Kind("infer/*/chunk-00000/objects.jsonl", "metrics"),
    Kind("infer/*/chunk-00000/*.ply", "export"),
    Kind("infer/*/chunk-00000/*.sheet.png", "report"),
    Kind("infer/*/chunk-00000/*.turntable.webp", "report"),
    Kind("infer/*/stage.json", "metrics"),
    Kind("infer/*/jobs/chunk-00000.json", "metrics"),
    Kind("metrics/*/metrics.jsonl", "ablation"),
    Kind("metrics/*/objects.jsonl", "ablation"),
    Kind("metrics/*/metrics.json", "ablation"),
    Kind("metrics/*/images/*.sampled.png", "report"),
    Kind("metrics/*/stage.json", "metrics"),
    Kind("metrics/*/jobs/metrics.json", "ablation"),
    Kind("ablations/micro/plan.json", "ablation"),
    Kind("ablations/micro/config.json", "ablation"),
    Kind("ablations/micro/reproduce.json", "report"),
    Kind("ablations/micro/metrics.csv", "report"),
    Kind("ablations/micro/MODEL_CARD.md", "report"),
    Kind("ablations/micro/tb/*", "report", read=False),
    Kind("autodecoder/*/tb/*", "report", read=False),
    Kind("autodecoder/*/.lock", "autodecoder", read=False),
    Kind("codes/*/.turns/codes", "codes", read=False),
)
"""All kinds of files in a results tree but logs and Snakemake's benchmark tables, which are texts for people."""
PLACES = ("_name_or_path", "files", "checksum")
"""Keys of JSON files with paths of this copy of the tree, and with digests of files that have such keys."""
READ_BY_INFER = ("unet/", "infer/*/stage", "autodecoder/*/model", "autodecoder/*/stage", "ablations/micro/plan")


def flip(file: Path, place: float = 0.5) -> None:
    """Flip one bit."""
    content = bytearray(file.read_bytes())
    if content:
        content[min(int(place * len(content)), len(content) - 1)] ^= 1 << int(8 * place) % 8
    _replace(file, bytes(content))


def cut(file: Path) -> None:
    """Lose the end, as when a disk was full."""
    content = file.read_bytes()
    _replace(file, content[: len(content) * 3 // 5])


def empty(file: Path) -> None:
    """Lose everything but the name."""
    _replace(file, b"")


def swap(file: Path) -> None:
    """Put another whole file of the same kind in its place: a sibling's, or the same with other numbers."""
    siblings = [
        other
        for other in sorted([*file.parent.glob(f"*{file.suffix}"), *file.parents[1].glob(f"*/{file.name}"),
                             *file.parents[2].glob(f"*/*/{file.name}"), *file.parents[2].glob(f"*/*/jobs/{file.name}")])
        if other.is_file() and other != file and other.stat().st_size
    ]  # fmt: skip
    others = [other for other in siblings if other.read_bytes() != file.read_bytes()]
    if file.suffix == ".safetensors" and not file.name.startswith("chunk"):
        tensors = {name: value * 1.01 for name, value in load_file(file).items()}
        file.unlink()
        save_file(tensors, file)
    elif others:
        _replace(file, others[0].read_bytes())
    else:
        _replace(file, _with_another_digit(file.read_bytes()))


def _with_another_digit(content: bytes) -> bytes:
    """11 dB become 51 dB: the first digit that is neither in a name nor the first of a number is another one."""
    digits = np.flatnonzero(np.isin(np.frombuffer(content, np.uint8), list(b"123456789")))
    if not len(digits):
        return content + b"x"
    changed = bytearray(content)
    place = int(digits[len(digits) // 2])
    changed[place] = ord("5") if changed[place] != ord("5") else ord("1")
    return bytes(changed)


def _replace(file: Path, content: bytes) -> None:
    """Write a new file; the old one may be a link to the undamaged tree."""
    file.unlink()
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "bit flipped": flip,
    "cut": cut,
    "emptied": empty,
    "swapped": swap,
}


class Judge:
    """Runs readers in linked copies of a tree and compares their output with that for the undamaged tree."""

    def __init__(self, planned: Plan, folder: Path) -> None:
        self.planned, self.folder = planned, folder
        self.photograph = saved(folder, disc(), "photo.png")
        self._copies = 0
        self._expected: dict[tuple[str, bool], Any] = {}

    def verdict(self, kind: Kind, damage: Callable[[Path], None], reader: str) -> tuple[str, str]:
        """Whether a reader notices damage, and what it says about it. An exception is neither."""
        resume = "checkpoints" in kind.pattern or "conditions" in kind.pattern
        if (reader, resume) not in self._expected:
            code, output, said = self._read(self._copy(), reader, resume)
            assert code == 0, f"{reader}: {said}"
            self._expected[reader, resume] = output
        copy = self._copy()
        file = sorted(copy.glob(kind.pattern))[0]
        before = file.read_bytes()
        damage(file)
        same = _same_meaning(before, file.read_bytes(), file)
        code, output, said = self._read(copy, reader, resume)
        shutil.rmtree(copy)
        if code:
            return NOTICED, said
        if reader == "verify":
            return (HARMLESS if same or not kind.read else SILENT), said
        return (HARMLESS if output == self._expected[reader, resume] else SILENT), said

    def _copy(self) -> Path:
        self._copies += 1
        results = self.folder / f"{self._copies}" / "results"
        shutil.copytree(self.planned.results, results, symlinks=True, copy_function=os.link)
        return results

    def _read(self, results: Path, reader: str, resume: bool) -> tuple[int, Any, str]:
        """Exit code, output and messages of a reader. resume: whether training goes on from its checkpoint."""
        errors, printed = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(printed), seeded(0):
            code, output = self._run(results, reader, resume)
        return code, printed.getvalue() if output is None else output, errors.getvalue() + printed.getvalue()

    def _run(self, results: Path, reader: str, resume: bool) -> tuple[int, Any]:
        ablation, out = results / "ablations/micro", results.parent / "out"
        if reader in OUTPUTS:
            folder = results / reader / self.planned.ablations["micro"].stages[reader].id
            for name in () if resume else ("checkpoints", "conditions"):
                shutil.rmtree(folder / name, ignore_errors=True)
            return run_stage(results, self.planned, reader), _outputs(folder)
        if reader == "verify":
            return main(["verify", str(ablation), "--sample", "0"]), None
        if reader == "compare":
            return main(["compare", "micro", "--results", str(results), "--format", "csv"]), None
        if reader == "photograph":
            words = [str(self.photograph), "--run", str(ablation), "--out", str(out), "--size", "32"]
            with mock.patch("z1g.inference.batch.FRAMES", 2):  # of the film, which nobody compares
                return main(["infer", *words]), _outputs(out, ("*.ply", "*.sheet.png"))
        if reader == "ablation":
            return main(["ablation", str(results), "micro"]), _outputs(ablation, ("metrics.csv", "MODEL_CARD.md"))
        if reader == "export":
            splats = sorted(results.glob("infer/*/chunk-00000/*.ply"))[0]
            return main(["export", str(splats), "--out", str(out / "x.splat")]), _outputs(out)
        page = out / "report.html"
        return main(["report", str(results), "--ablations", "micro", "--out", str(page)]), _outputs(out)


def _outputs(folder: Path, patterns: tuple[str, ...] = ("**/*",)) -> dict[str, bytes]:
    """Files of a folder that a later run has to repeat to the bit."""
    files = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    names = {file.relative_to(folder).as_posix(): file for file in files}
    skipped = ("jobs/", "tb/", "checkpoints/", "conditions/", "stage.json", ".")
    return {name: _timeless(file) for name, file in sorted(names.items()) if not name.startswith(skipped)}


def _timeless(file: Path) -> bytes:
    """Content of a file without measured times and without the place of the tree."""
    if file.suffix == ".json":
        value = json.loads(file.read_text(encoding="utf-8"))
        return json.dumps({key: value[key] for key in value if key not in PLACES}).encode()
    if file.suffix != ".jsonl":
        return file.read_bytes()
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return json.dumps([{key: value for key, value in row.items() if key != "seconds"} for row in rows]).encode()


def _same_meaning(before: bytes, after: bytes, file: Path) -> bool:
    """Whether a change of a file changes nothing that it says."""
    if before == after:
        return True
    try:
        return file.suffix == ".json" and bool(json.loads(before) == json.loads(after))
    except ValueError:
        return False
