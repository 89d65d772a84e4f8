"""Runs in each process of `test_ddp.py`: `ddp_cases.py FOLDER STAGE_FOLDER...`, by one, two or four.

Trains toys in FOLDER and stage 1 in the other folders, and writes the final state of each rank.
"""

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from support.builders import CodedToy, Toy, toy_options
from support.watched import PRELOADED
from z1g.cli import main as cli
from z1g.core.errors import Preempted
from z1g.training.loop import Trainer, one_precision_each
from z1g.training.options import TrainOptions
from z1g.training.passes import ReplayedPasses

PLAIN: dict[str, Any] = {"batch_size": 4, "steps": 10, "ema": None}


class ReplayedToy(Toy):
    """A toy whose passes are captured in a CUDA graph on a GPU; on a CPU they are eager."""

    replayable = True


class WideToy(Toy):
    """A toy with a layer that is large enough for compact moments."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__(dropout=dropout)
        generator = torch.Generator().manual_seed(8)
        self.net = nn.Sequential(nn.Linear(4, 1024), nn.Tanh(), nn.Dropout(dropout), nn.Linear(1024, 2))
        with torch.no_grad():
            for parameter in self.net.parameters():
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))


class CrowdedToy(Toy):
    """A toy on GPUs of which the last holds one object at once."""

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        last = os.environ.get("RANK", "0") == str(int(os.environ.get("WORLD_SIZE", "1")) - 1)
        if last and len(batch["key"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(batch)


CASES: dict[str, tuple[Callable[[], Toy | CodedToy], TrainOptions]] = {
    "toy": (lambda: Toy(dropout=0), toy_options(**{**PLAIN, "ema": 0.8})),
    "micro_batch": (lambda: Toy(dropout=0), toy_options(**PLAIN, micro_batch=1)),
    "crowded": (lambda: CrowdedToy(dropout=0), toy_options(**PLAIN)),
    "broken": (lambda: Toy(range(3, 5), dropout=0), toy_options(**PLAIN)),
    "plateau": (
        lambda: Toy(dropout=0),
        toy_options(**PLAIN, log_every=1, schedule={"kind": "plateau", "patience": 1, "factor": 0.5}),
    ),
    "restarts": (lambda: Toy(dropout=0), toy_options(**PLAIN, schedule={"kind": "cosine_restarts", "period": 3})),
    "one_cycle": (lambda: Toy(dropout=0), toy_options(**PLAIN, schedule={"kind": "one_cycle", "warmup_steps": 4})),
    "codes": (CodedToy, toy_options(**PLAIN)),
    "replayed": (lambda: ReplayedToy(dropout=0), toy_options(**PLAIN)),
    "bfloat16_moments": (lambda: WideToy(dropout=0), toy_options(**PLAIN, optimizer={"lr": 0.02, "state": "bfloat16"})),
    "int8_moments": (lambda: WideToy(dropout=0), toy_options(**PLAIN, optimizer={"lr": 0.02, "state": "int8"})),
    "bf16": (lambda: Toy(dropout=0), toy_options(**{**PLAIN, "precision": "bf16"})),
}


def train(case: str, folder: Path) -> dict[str, torch.Tensor]:
    """Train in `folder` and return the final weights (and codes)."""
    make, options = CASES[case]
    toy = make()
    # A process has one precision otherwise.
    one_precision_each()
    trainer = Trainer(toy, toy.data(options), options, folder)
    trainer.run()
    one_precision_each()
    if toy.replayable and torch.cuda.is_available():
        assert isinstance(trainer.passes, ReplayedPasses)
        assert trainer.passes.replay is not None
    ended = {name: parameter.detach().cpu().clone() for name, parameter in toy.named_parameters()}
    if isinstance(toy, CodedToy):
        ended |= {"codes": toy.book.codes, "moments": toy.book.moments, "visits": toy.book.visits}
    return ended


def preempt_one_rank(folder: Path, rank: int) -> str:
    """Send SIGTERM to rank 1 only, and return the message of each rank."""
    real = Trainer._step

    def step(self: Trainer, at: int, batch: Any) -> dict[str, float]:
        if at == 4 and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, at, batch)

    Trainer._step = step  # type: ignore[method-assign]
    try:
        train("toy", folder)
    except Preempted as stopped:
        return str(stopped)
    finally:
        Trainer._step = real  # type: ignore[method-assign]
    return "went on"


def run_on_cpu(folder: str, *stages: str) -> None:
    """The cases and stages as one rank on a CPU."""
    os.environ |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    run(Path(folder), stages)


def fork_ranks(n: int, function: Callable[..., None], *arguments: str) -> None:
    """Call a function in `n` ranks by the launcher as a function, whose processes are forks of a server."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    config = LaunchConfig(
        1, 1, n, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="forkserver", max_restarts=0
    )
    elastic_launch(config, function)(*arguments)


def stages_on_cpu(*folders: str) -> None:
    """Stages, by the names of the folders above theirs, as one rank on a CPU.

    Raises RuntimeError if one fails, or if the ranks did not train together.
    """
    gc.freeze()
    os.environ |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    for folder in folders:
        if cli.main([Path(folder).parent.name, folder, "--threads", "1"]):
            raise RuntimeError(f"{folder} failed")
        if torch.distributed.get_world_size() == 1:
            raise RuntimeError("there is one rank only")


def run(folder: Path, stages: Sequence[str]) -> None:
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    gc.freeze()  # Each training collects garbage, else among all modules.
    ended: dict[str, Any] = {case: train(case, folder / case) for case in CASES}
    ended["preempted"] = preempt_one_rank(folder / "preempted", rank)
    ended["resumed"] = train("toy", folder / "preempted")
    ended["stages"] = [cli.main(["autodecoder", stage, "--threads", "1"]) for stage in stages]
    ended["backend"] = torch.distributed.get_backend()
    torch.save(ended, folder / f"rank{rank}.pt")
    gc.unfreeze()


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:])
