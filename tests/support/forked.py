"""`python -m z1g` without its start: a server that has imported torch forks a process for each command.

The server is `serve` in a process of its own; a command is `python forked.py SOCKET <verb> ...`, which imports almost
nothing. Commands have the caller's folder, environment and output, and end with the same exit code.

With `Z1G_TEST_STARTED=FOLDER`, a command of each verb that has a folder in FOLDER starts Python all the same, as a
user's does, and removes that folder. `Z1G_TEST_KILL=VERB:STEP` kills all processes in the folder, this one last, when
the training of a verb begins a step (counted from 0). With `Z1G_TEST_MADE_UP=1`, stages after `fit` only create their
outputs; the figure at a rung is that of `made_up_figure`.
"""

import gc
import importlib
import json
import math
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

MADE = {
    "autodecoder": ["model/", "history.jsonl"],
    "codes": ["codes.safetensors"],
    "unet": ["pipeline/", "history.jsonl"],
    "infer": ["chunk-{chunk}/"],
    "metrics": ["metrics.jsonl", "objects.jsonl", "metrics.json", "images/"],
}
OF_VERBS = (
    "z1g.search.study", "z1g.stages.ablation", "z1g.stages.codes", "z1g.stages.prune", "z1g.stages.tables",
    "accelerate",
)  # fmt: skip
"""What the server imports besides `watched.PRELOADED`."""


def serve(path: str, ready: "Connection") -> None:
    """Fork for each connection, until killed. Says in a pipe when it does."""
    import diffusers
    import torch
    import transformers

    from support.watched import PRELOADED
    from z1g.cli import main as cli

    gc.disable()
    torch.set_num_threads(1)
    modules = [importlib.import_module(name) for name in (*PRELOADED, *OF_VERBS)]
    # Their submodules are imported on first use.
    lazy = diffusers.AutoencoderKL, diffusers.UNet2DConditionModel, transformers.CLIPVisionModelWithProjection
    # A garbage collection looks at all that is imported, which takes longer than most verbs.
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(16)
        ready.send(len(modules) + len(lazy))
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os._exit(_run(connection, cli.main))
            connection.close()


def _run(connection: socket.socket, main: "object") -> int:
    """Run one command in this process and send its exit code."""
    message, descriptors, _, _ = socket.recv_fds(connection, 1_000_000, 2)
    request = json.loads(message)
    for number, descriptor in zip((1, 2), descriptors, strict=True):
        os.dup2(descriptor, number)
    sys.stdout, sys.stderr = (os.fdopen(i, "w", buffering=1, closefd=False, encoding="utf-8") for i in (1, 2))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["z1g", *request["words"]]
    code = 1
    try:
        if killed := os.environ.get("Z1G_TEST_KILL"):
            verb, step = killed.split(":")
            if request["words"][0] == verb:
                _kill_at(int(step))
        made_up = os.environ.get("Z1G_TEST_MADE_UP") and request["words"][0] not in ("prune",)
        code = (_make_up if made_up else main)(request["words"])  # type: ignore[operator]
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([code]))
    return code


def _kill_at(step: int) -> None:
    from z1g.training import loop

    real = loop.Trainer._step

    def step_or_die(self: loop.Trainer, at: int, batch: object) -> object:
        if at == step:
            kill_all(os.getcwd())
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, at, batch)  # type: ignore[arg-type]

    loop.Trainer._step = step_or_die  # type: ignore[method-assign, assignment]


def kill_all(folder: str) -> None:
    """SIGKILL to all other processes in a folder."""
    import psutil

    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] == folder and process.pid != os.getpid():
            process.kill()


def made_up_figure(lr: float, seed: int, step: int) -> float:
    """A validation PSNR that is highest at a learning rate of 1e-3. Seed 1 is 9 dB worse."""
    return 20 - abs(math.log10(lr) + 3) - 9 * (seed % 2) + 0.01 * step


def _make_up(words: list[str]) -> int:
    verb, first, *rest = words
    if verb == "ablation":
        made = [f"{first}/ablations/{rest[0]}/{name}" for name in ("metrics.csv", "MODEL_CARD.md", "reproduce.json")]
    elif verb == "tables":
        made = [f"{first}/tables/ablations.{ending}" for ending in ("csv", "md", "tex")]
    elif verb == "report":
        made = [rest[-1]]
    elif "--until" in rest:
        options = json.loads(Path(first, "stage.json").read_text())["config"]["unet"]["train"]
        rung = rest[rest.index("--until") + 1]
        step = math.ceil(float(rung) * options["steps"])
        value = made_up_figure(options["optimizer"]["lr"], options["seed"], step)
        file = Path(first, "rungs", f"{rung}.json")
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"rung": float(rung), "step": step, "figures": {"validation_psnr": value}}))
        return 0
    else:
        chunk = rest[rest.index("--chunk") + 1] if "--chunk" in rest else ""
        made = [f"{first}/{name.format(chunk=chunk)}" for name in MADE[verb]]
    for name in made:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).mkdir(exist_ok=True) if name.endswith("/") else Path(name).write_text("")
    return 0


def call(path: str, words: list[str]) -> int:
    """Send a command to the server, and wait for its exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        request = {"cwd": os.getcwd(), "environment": dict(os.environ), "words": words}
        socket.send_fds(connection, [json.dumps(request).encode()], [1, 2])
        answer = connection.recv(1)
    return answer[0] if answer else 1


def start_noted(folder: str, words: list[str]) -> None:
    """Become `python -m z1g words...` if the verb is noted in a folder."""
    try:
        os.rmdir(os.path.join(folder, words[0]))
    except FileNotFoundError:
        return
    os.execv(sys.executable, [sys.executable, "-m", "z1g", *words])


if __name__ == "__main__":
    if "Z1G_TEST_STARTED" in os.environ:
        start_noted(os.environ["Z1G_TEST_STARTED"], sys.argv[2:])
    sys.exit(call(sys.argv[1], sys.argv[2:]))
