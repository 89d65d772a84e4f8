"""Hundreds of calls of every command with hostile arguments: an answer of one line, never a traceback or a hang.

With Z1G_ADVERSARIAL=long there are ten times as many calls, from another seed.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import webbrowser
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.finished_tree import SCENES, finished
from support.gaussians import gaussians
from support.hostile import NUMBERS, WORDS, places, truncated
from support.paths import ROOT
from support.photographs import disc, saved
from support.watched import Ended, run_all, without_override

from z1g.cli.main import VERBS
from z1g.core.stages import STAGE_NAMES
from z1g.gaussians import files as splat_files

LONG = os.environ.get("Z1G_ADVERSARIAL") == "long"
N_CALLS, SEED = (4000, 2) if LONG else (400, 1)
N_WORKERS = 2
N_PROCESSES = 8
"""Calls that are also made in processes of their own."""
_JOB = "{%s} --threads 1 --gpus 0 --nodes 1 --outputs {%s}/made.bin"
NO_HUB = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
"""Nobody listens there."""
GOOD = {
    **{stage: [_JOB % (stage, stage)] for stage in ("autodecoder", "codes", "unet", "metrics")},
    **{stage: [_JOB % (stage, stage) + " --chunk 0"] for stage in ("ingest", "fit")},
    "infer": [
        _JOB % ("infer", "infer") + " --chunk 0",
        "a.png --run {run} --out splats --background keep --seed 1 --size 16 --threads 1",
        "photos a.png --run {run} --out splats",
    ],
    "ablation": ["{results} micro"],
    "prune": ["{results} micro 0.5"],
    "search": ["ablations/one.yaml --scale scratch --objects meshes --results planned --missing warn --gpus 0"],
    "status": [
        "--results {results} --ablations micro --json",
        "--results {results} --html status.html",
        "--results planned --scale scratch --objects meshes --ablations one",
    ],
    "tables": ["{results} --ablations micro --out tables"],
    "report": ["{results} --ablations micro --out report.html"],
    "compare": [
        "micro micro --results {results} --split test --source sampled --format md",
        "{metrics}/metrics.jsonl micro --results {results}",
    ],
    "conditions": ["--results {results} --like micro --out conditions --sizes 16 --objects ids.txt"],
    "evaluate": [
        "--results {results} --outputs peers --frame z1g --like micro --objects ids.txt --name mine --seconds 2",
        "--results {results} --outputs peers --frame auto --registered --parameters 1e8 --memory-gb 3 --threads 1",
    ],
    "verify": ["{run} --sample 0 --seed 0 --threads 1"],
    "pack": ["{run} --out packed --card a.json", "micro --results {results} --out packed --weights float32"],
    "app": ["--model base --host 127.0.0.1 --port 8090 --keep kept --threads 1 --no-browser"],
    "publish": ["base --to someone/model --picture a.png --license mit --private --dry-run published"],
    "view": ["a.ply a.spz --port 8080 --host 127.0.0.1 --no-browser"],
    "film": ["a.ply a.spz --path a.path.json --out a.webp --size 16"],
    "mesh": ["a.ply --out a.glb --faces 16 --texture 16 --resolution 16 --views 6"],
    "export": ["a.ply --out b.spz", "a.spz --out b.splat", "a.splat --out b.ply"],
    "list": ["meshes a.zip meshes/0.obj l.jsonl --out list.jsonl --root meshes", "a.zip --out list.jsonl --colored"],
    "corpus": ["join listed --out joined", "convert megaglest meshes --out made --processes 1 --limit 1"],
    "plan": [
        "--scale scratch --objects meshes --results planned --missing warn --ablations one --write",
        "--scale s.yaml --objects l.jsonl a.zip --missing stop --check",
        "--scale scratch --cost 1000 10",
    ],
    "bench": [
        "render --backend cpu --ply a.ply --splats 10 --size 16 --views 1 --repeats 1 --device cpu --json",
        "render --backend cpu --splats 10 --size 16 --views 1 --repeats 1 --against reference",
        "fit {fit} --objects 1 --steps 1",
        "ingest --source meshes --objects 1 --size 16 --samples 1 --views 10 --repeats 1",
        "dag --objects 1 --ablations 1 --repeats 1",
        "loader --objects 4 --views 8 --size 16 --splat-size 8 --rendered 1 --batch 1 --workers 0 --folder photos",
        "unet --size tiny --variants b1 --seconds 1 --steps 1",
        "infer --size tiny --variants b1 --seconds 1 --steps 1 --repeats 1",
        "guidance {run} --steps 1 --guidance 1 --sampler ddim --objects 1 --batch 1",
        "autodecoder --variants b1 --views 1 --size 16 --splats 8 --inputs 16 --channels 8 --layers 1 --perceptual 16 "
        "--steps 1 --seconds 1",
    ],
    "config": [
        "schema",
        "reference",
        "defaults",
        "identity",
        "show --ablation ablations/one.yaml --scale scratch",
        "write",
    ],
}
"""Calls that work, before something in them is replaced."""


def workspace(folder: Path, tree: Path) -> dict[str, str]:
    """Fill a folder with everything that the good calls name; returns the names of its stages."""
    shutil.copytree(tree, folder)
    shutil.copytree(ROOT / "configs", folder / "configs")
    for name in ("ablations", "meshes", "photos", "peers"):
        (folder / name).mkdir()
    (folder / "ablations/one.yaml").write_text("description: made up\n")
    (folder / "s.yaml").write_text("model: {kind: scratch}\n")
    for i in range(3):
        (folder / "meshes" / f"{i}.obj").write_text(f"v {i} 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n")
    (folder / "l.jsonl").write_text('{"path": "meshes/0.obj"}\n{"path": "meshes/1.obj"}\n')
    (folder / "listed").mkdir()
    (folder / "listed/objects.jsonl").write_text('{"path": "glb/a.glb"}\n')
    (folder / "listed/rejected.jsonl").touch()
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.write(folder / "meshes/2.obj", "2.obj")
    saved(folder, disc())
    saved(folder / "photos", disc(radius=12), "b.png")
    for ending in ("ply", "spz", "splat"):
        splat_files.write(folder / f"a.{ending}", gaussians(20))
    for name in SCENES:
        splat_files.write(folder / "peers" / f"{name}.ply", gaussians(20))
    (folder / "ids.txt").write_text(f"{SCENES[0]}\n")
    keyframe = {"azimuth_deg": 0, "elevation_deg": 0}
    path = {"kind": "camera path", "version": 1, "seconds": 0.1, "keyframes": [keyframe, keyframe]}
    (folder / "a.path.json").write_text(json.dumps(path))
    stages = {path.parent.name: f"results/{path.parent.name}/{path.name}" for path in folder.glob("results/*/*")}
    return {**stages, "run": "results/ablations/micro", "results": "results"}


def hostile_words(folder: Path, names: dict[str, str]) -> list[str]:
    """Arguments that replace good ones: numbers, texts, and hostile, damaged and misplaced files in `folder`."""
    damage = folder / "damaged"
    damage.mkdir()
    files = [folder / name for name in ("a.ply", "a.spz", "a.splat", "a.png", "a.zip", "l.jsonl", "s.yaml")]
    files += [folder / names["metrics"] / "metrics.jsonl", folder / names["ingest"] / "chunk-00000.tar"]
    damaged = [str(path.relative_to(folder)) for file in files for path in truncated(file, damage)]
    return [*places(folder / "odd"), *damaged, *names.values(), *NUMBERS, *WORDS]


def calls(names: dict[str, str], hostile: Sequence[str], n: int, seed: int) -> list[list[str]]:
    """`n` calls, as many of each command, each with one to three changes."""
    draw = random.Random(seed)
    made = []
    for i in range(n):
        verb = list(VERBS)[i % len(VERBS)]
        words = [word.format(**names) for word in draw.choice(GOOD[verb]).split()]
        for _ in range(draw.choice((1, 1, 1, 1, 2))):
            _change(words, hostile, draw)
        # A viewer that works would open a browser.
        made.append([verb, *words, *(["--no-browser"] if verb in ("app", "view") else [])])
    return made


def _change(words: list[str], hostile: Sequence[str], draw: random.Random) -> None:
    at = draw.randrange(len(words) + 1)
    how = draw.random()
    word = draw.choice(draw.choice((hostile, hostile, NUMBERS, WORDS)))
    values = [i for i, given in enumerate(words) if not given.startswith("--")]
    if how < 0.75 and values:
        chosen = draw.choice(values)
        # What looks right is refused last.
        suffix = Path(words[chosen][:200]).suffix
        alike = [name for name in hostile if suffix and name.endswith(suffix)]
        words[chosen] = draw.choice(alike) if alike and draw.random() < 0.7 else word
    elif how < 0.82:
        words[at:at] = [f"--{draw.choice(('seed', 'out', 'x', 'chunk', 'threads', 'json'))}", word]
    elif how < 0.9:
        words.insert(at, word)
    elif words:
        del words[at % len(words)]


def complaint(words: Sequence[str], ended: Ended) -> str:
    """What is wrong with the end of a call, empty if nothing is."""
    if ended.what:
        return ended.what
    if "Traceback" in ended.output:
        return "a traceback"
    if ended.code not in ((0, 1, 2) if words[0] == "verify" else (0, 2)):
        return f"exit code {ended.code}"
    if ended.code == 2:
        errors = re.findall(r"(?m)^z1g(?: [\w ]+)?: error: .*\S", ended.output)
        if len(errors) != 1:
            return f"{len(errors)} lines with an error"
    return ""


def described(words: Sequence[str], ended: Ended, what: str) -> str:
    shown = [word if len(word) < 200 else f"{word[:50]}... ({len(word)})" for word in words]
    return f"{what}: {shown!a}\n{ended.output[-3000:]}"


def _without_network_and_browser() -> None:
    """Settings of a worker: no Blender, hub or browser, coarse meshes, and a user who ends viewer and app at once."""
    os.environ.update(Z1G_BLENDER="/bin/false", ACCELERATE_USE_CPU="true", **NO_HUB)
    from z1g.inference.local_server import LocalServer
    from z1g.surface import build

    def interrupted(self: Any) -> None:
        raise KeyboardInterrupt

    def coarse(splats: Any, rasterizer: Any, options: Any) -> Any:
        small = {"views": 6, "view_size": 32, "resolution": 16, "faces": 16, "texture": 16}
        return real(splats, rasterizer, replace(options, **small))

    real, build.build = build.build, coarse
    LocalServer.serve_forever = interrupted  # type: ignore[method-assign]
    webbrowser.open = lambda *_, **__: True  # type: ignore[assignment]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[list[str]]]:
    """Equal workspaces of the workers, and the calls."""
    root = tmp_path_factory.mktemp("calls")
    tree = finished(tmp_path_factory.getbasetemp())
    folders = [root / f"worker{i}" / "workspace" for i in range(N_WORKERS)]
    for folder in folders:
        names = workspace(folder, tree)
        hostile = hostile_words(folder, names)
    return folders, calls(names, hostile, N_CALLS, SEED)


def test_every_command_is_called() -> None:
    assert GOOD.keys() == VERBS.keys()
    assert set(STAGE_NAMES) <= GOOD.keys()


@pytest.mark.slow
def test_hostile_calls_in_workers(made: tuple[list[Path], list[list[str]]]) -> None:
    folders, words = made
    ends = list(run_all(words, folders, _without_network_and_browser))
    wrong = [
        described(call, ended, what)
        for call, ended in zip(words, ends, strict=True)
        if (what := complaint(call, ended))
    ]
    assert not wrong, f"{len(wrong)} of {len(words)} calls:\n" + "\n".join(wrong)
    refused = sum(ended.code == 2 for ended in ends)
    assert 0.5 < refused / len(ends) < 0.99, "some calls work all the same"


@pytest.mark.slow
def test_hostile_calls_in_processes(made: tuple[list[Path], list[list[str]]]) -> None:
    """The first calls once more, as a user makes them."""
    folders, words = made
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "Z1G_BLENDER": "/bin/false", **NO_HUB}
    for call in [call for call in words if call[0] not in ("app", "view")][:N_PROCESSES]:
        command = [sys.executable.encode(), b"-m", b"z1g", *map(os.fsencode, call)]
        done = subprocess.run(
            command, cwd=folders[0], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, timeout=300, preexec_fn=without_override,
        )  # fmt: skip
        ended = Ended(done.returncode, done.stdout.decode(errors="backslashreplace"))
        assert not complaint(call, ended), described(call, ended, complaint(call, ended))


def _sleeps() -> None:
    from z1g.cli import main

    main.VERBS["view"] = main.Verb("time", "")  # `parser_for` fails on it
    main.parser_for = lambda verb: signal.pause()  # type: ignore[assignment,return-value]


@pytest.mark.slow
def test_a_hang_a_traceback_and_a_dead_process_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch itself."""
    monkeypatch.setattr("support.watched.HANG_S", 0.5)
    (tmp_path / "w").mkdir()
    ends = list(run_all([["view"], ["config", "x"]], [tmp_path / "w"], _sleeps))
    assert ["it hung" in complaint(["view"], ended) for ended in ends] == [True, True]
    monkeypatch.setattr("support.watched.HANG_S", 60.0)
    (ended,) = run_all([["view"]], [tmp_path / "w"], _dies)
    assert "died with exit code 3" in complaint(["view"], ended)
    (ended,) = run_all([["view"]], [tmp_path / "w"], _raises)
    assert complaint(["view"], ended) == "a traceback"
    assert complaint(["fit"], Ended(1, "")) == "exit code 1"
    assert complaint(["fit"], Ended(2, "no reason\n")) == "0 lines with an error"
    assert not complaint(["fit"], Ended(2, "z1g fit: error: no\n"))


def _dies() -> None:
    from z1g.cli import main

    main.parser_for = lambda verb: os._exit(3)  # type: ignore[assignment,return-value]


def _raises() -> None:
    from z1g.cli import main

    def fail(verb: str) -> None:
        raise RuntimeError

    main.parser_for = fail  # type: ignore[assignment]
